"""Ctrl-C: it cancels the statement on the server, and leaves a connection that can be used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from segue.testing import Cluster

PROLOGUE = """\
import signal, sys, time, threading
import segue
conn = segue.connect(sys.argv[1], application_name=sys.argv[2], autocommit=True)
"""

EPILOGUE = """
conn.rollback()
assert conn.execute("SELECT 1").fetchone() == (1,)
print("usable", flush=True)
"""


@contextmanager
def child(cluster: Cluster, name: str, script: str) -> Iterator[subprocess.Popen[str]]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROLOGUE + script + EPILOGUE, cluster.uri, name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd="/",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_asleep(cluster: Cluster, name: str, count: int = 1) -> None:
    cluster.primary.wait_for(
        f"SELECT count(*) = {count} FROM pg_stat_activity WHERE application_name = '{name}' "
        "AND wait_event = 'PgSleep'"
    )


def end(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "usable" in out
    return out


STATEMENTS = {
    "autocommit": "conn.execute('SELECT pg_sleep(600)')",
    "transaction": "conn.set_autocommit(False); conn.execute('SELECT pg_sleep(600)')",
    "parameters": "conn.execute('SELECT pg_sleep(%s)', (600,))",
    "executemany": "conn.cursor().executemany('SELECT pg_sleep(%s)', [(600,), (600,)])",
    "stream": "list(conn.cursor().stream('SELECT pg_sleep(600)'))",
    "copy": "\n    with conn.cursor().copy('COPY (SELECT pg_sleep(600)) TO STDOUT') as c: c.read()",
    "pipeline": "\n    with conn.pipeline(): conn.execute('SELECT pg_sleep(600)')",
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_ctrl_c_cancels_the_servers_statement(cluster: Cluster, statement: str) -> None:
    name = f"signal-{statement}"
    script = f"""
try:
    {STATEMENTS[statement]}
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with child(cluster, name, script) as process:
        wait_until_asleep(cluster, name)
        process.send_signal(signal.SIGINT)
        assert "interrupted" in end(process)
    wait_until_asleep(cluster, name, count=0)


def test_ctrl_c_ends_a_wait_for_notifications(cluster: Cluster) -> None:
    script = """
conn.execute("LISTEN news")
print("listening", flush=True)
try:
    for notify in conn.notifies():
        print(notify, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with child(cluster, "signal-notifies", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        cluster.primary.sql("NOTIFY news, 'one'")
        assert "one" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "interrupted" in end(process)


def test_a_handler_that_does_not_raise_disturbs_nothing(cluster: Cluster) -> None:
    script = """
seen = []
signal.signal(signal.SIGUSR1, lambda *_: (seen.append(1), print("handled", flush=True)))
assert conn.execute("SELECT 1 FROM pg_sleep(1)").fetchone() == (1,)
assert seen
"""
    with child(cluster, "signal-usr1", script) as process:
        wait_until_asleep(cluster, "signal-usr1")
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert process.stdout.readline() == "handled\n"
        end(process)


def test_other_threads_run_while_a_statement_waits(cluster: Cluster) -> None:
    script = """
count = 0
done = threading.Event()
def tick():
    global count
    while not done.is_set():
        count += 1
        time.sleep(0.001)
thread = threading.Thread(target=tick)
thread.start()
before = count
conn.execute("SELECT pg_sleep(0.5)")
ticks = count - before
done.set()
thread.join()
assert ticks > 20, ticks
"""
    with child(cluster, "signal-threads", script) as process:
        end(process)


def test_ctrl_c_while_no_server_is_there(segue_cluster: Cluster) -> None:
    script = """
print("ready", flush=True)
try:
    while True:
        conn.execute("SELECT 1")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    with child(segue_cluster, "signal-lost", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        segue_cluster.kill_primary()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        segue_cluster.promote()
        end(process)
