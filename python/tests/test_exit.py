"""A program may end at any time, and in whatever state its connections are."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from segue.testing import Cluster

PROLOGUE = """\
import segue, sys, threading, time
conn = segue.connect(sys.argv[1], autocommit=True)
"""

ENDINGS = {
    "open transaction": "conn.autocommit = False; conn.execute('CREATE TABLE ended (id int)')",
    "running statement": """
thread = threading.Thread(target=lambda: conn.execute('SELECT pg_sleep(600)'), daemon=True)
thread.start()
time.sleep(0.2)
""",
    "open stream": "s = conn.cursor().stream('SELECT generate_series(1, 1000000)'); next(s)",
    "open copy": "copy = conn.cursor().copy('COPY pg_class TO STDOUT').__enter__(); copy.read()",
    "open pipeline": "p = conn.pipeline(); p.__enter__(); conn.execute('SELECT 1')",
    "many connections": "conns = [segue.connect(sys.argv[1]) for _ in range(20)]",
    "reference cycle": "conn.self = conn; conn.cursors = [conn.execute('SELECT 1')]",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_ends(cluster: Cluster, ending: str) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", PROLOGUE + ENDINGS[ending], cluster.uri],
        env=env,
        cwd="/",
        check=True,
        timeout=30,
    )
    assert cluster.primary.sql("SELECT to_regclass('ended')") == [(None,)]


def test_a_program_ends_while_a_thread_waits_for_a_server(segue_cluster: Cluster) -> None:
    script = """
print("connected", flush=True)
sys.stdin.readline()
threading.Thread(target=lambda: conn.execute("SELECT 1"), daemon=True).start()
time.sleep(0.3)
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROLOGUE + script, segue_cluster.uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        cwd="/",
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "connected\n"
        segue_cluster.kill_primary()
        started = time.monotonic()
        child.communicate("\n", timeout=30)
        assert child.returncode == 0
        # Far less than failover_timeout_ms.
        assert time.monotonic() - started < 20


def test_nothing_is_printed(segue_cluster: Cluster) -> None:
    """A program that configures no logging finds nothing of ours on its stderr or stdout.

    Events that are warnings were printed there by logging's handler of last resort.
    """
    script = """
import segue.events
with segue.Client(sys.argv[1]) as client, segue.Pool(sys.argv[1], min_size=1) as pool:
    seen = []
    client.on_event(seen.append, segue.events.Event)
    pool.getconn().execute("SELECT 1")
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    sys.stdin.readline()
    conn.execute("SELECT 1")
    while not any(isinstance(it, segue.events.Promoted) for it in seen):
        time.sleep(0.01)
    left = pool.getconn()
    left.execute("CREATE TEMP TABLE t ()")
    pool.putconn(left)  # in a transaction, of which the pool warns
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROLOGUE + script, segue_cluster.uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd="/",
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        segue_cluster.failover()
        out, err = program.communicate("\n", timeout=120)
    assert (out, err, program.returncode) == ("", "", 0)
