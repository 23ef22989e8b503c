"""`segue.testing`: its clusters do what they say, and leave nothing behind."""

from __future__ import annotations

import importlib.util
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from segue.testing import Cluster, ClusterError, SqlError, _binaries, _processes, _workdir
from segue.testing._binaries import _first_line
from segue.testing._ports import PortLease
from segue.testing._workdir import reachable as _reachable


@pytest.fixture(scope="module")
def pair() -> Iterator[Cluster]:
    """One cluster for the tests below, each of which leaves it with two servers that run."""
    with Cluster() as cluster:
        yield cluster


def rows(cluster: Cluster) -> list[str | None]:
    return [row[0] for row in cluster.primary.sql("SELECT id FROM seen ORDER BY id")]


def test_a_primary_and_a_standby(pair: Cluster) -> None:
    assert not pair.primary.in_recovery()
    assert [standby.in_recovery() for standby in pair.standbys] == [True]
    assert pair.version >= 14
    [(sync,)] = pair.sql(pair.primary, "SELECT sync_state FROM pg_stat_replication")
    assert sync == "quorum"
    assert pair.primary.sql("SELECT 1, NULL, 'ä'; SELECT 2") == [("1", None, "ä"), ("2",)]
    assert f"127.0.0.1:{pair.servers[0].port},127.0.0.1:{pair.servers[1].port}" in pair.uri
    assert repr(pair) == f"<Cluster of 2, primary {pair.primary.number}>"


def test_servers_never_run_as_root(pair: Cluster) -> None:
    for server in pair.servers:
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
        assert server.directory.stat().st_mode & 0o077 == 0


def test_the_superuser_does_not_come_in_over_tcp(pair: Cluster) -> None:
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(pair.uri) as conn:
        assert conn.execute("SELECT current_user, inet_server_port() IS NULL").fetchone() == (
            "app",
            False,
        )
    with psycopg.connect(pair.dsn_unix) as conn:
        assert conn.execute("SELECT current_user").fetchone() == ("app",)
    with psycopg.connect(pair.dsn_superuser) as conn:
        assert conn.execute("SELECT current_user").fetchone() == ("postgres",)
    with pytest.raises(psycopg.OperationalError, match="pg_hba"):
        psycopg.connect(pair.uri.replace("app@", "postgres@"))


def test_errors_of_sql_say_what_the_server_said(pair: Cluster) -> None:
    with pytest.raises(SqlError, match="division by zero") as info:
        pair.sql(0, "SELECT 1/0")
    assert info.value.sqlstate == "22012"
    with pytest.raises(ClusterError, match="no server 7"):
        pair.sql(7, "SELECT 1")
    with pytest.raises(SqlError, match="COPY from stdin failed"):
        pair.primary.sql("CREATE TEMP TABLE t (x int); COPY t FROM STDIN")


def test_failover_start_switchover_lose_nothing(pair: Cluster) -> None:
    pair.primary.sql("CREATE TABLE seen (id int); INSERT INTO seen VALUES (1)")
    old = pair.primary
    new = pair.failover()
    assert new is pair.primary
    assert new is not old
    assert not old.is_running
    assert rows(pair) == ["1"]
    new.sql("INSERT INTO seen VALUES (2)")

    pair.start(old)
    assert old.in_recovery()
    pair.wait_for_standbys()
    assert old.sql("SELECT count(*) FROM seen") == [("2",)]
    # It is waited for again.
    [(sync,)] = new.sql("SELECT sync_state FROM pg_stat_replication")
    assert sync == "quorum"

    assert pair.switchover() is old
    assert new.in_recovery()
    assert rows(pair) == ["1", "2"]


def test_pause_is_silence_and_resume_ends_it(pair: Cluster) -> None:
    with pair.paused(pair.primary) as server:
        assert server.is_running
        with socket.create_connection(("127.0.0.1", server.port), timeout=5):
            pass
        with pytest.raises(ClusterError, match=r"time is up|timed out"):
            server.sql("SELECT 1", timeout=0.3)
    assert pair.primary.sql("SELECT 1") == [("1",)]


@pytest.mark.parametrize("mode", ["fast", "immediate", "smart"])
def test_stop_and_start(pair: Cluster, mode: str) -> None:
    standby = pair.standbys[0]
    pair.stop(standby, mode)
    assert not standby.is_running
    with pytest.raises(ClusterError, match="not running"):
        pair.stop(standby)
    pair.start(standby)
    assert standby.in_recovery()
    with pytest.raises(ClusterError, match="running already"):
        pair.start(standby)


def test_a_killed_primary_recovers_and_keeps_its_port(pair: Cluster) -> None:
    port = pair.primary.port
    killed = pair.kill_primary(leave_backends=True)
    assert not killed.is_running
    pair.start(killed)
    assert pair.primary is killed
    assert killed.port == port
    pair.wait_for_standbys()


def test_misuse_is_refused(pair: Cluster) -> None:
    with pytest.raises(ClusterError, match="the primary already"):
        pair.promote(pair.primary)
    with pytest.raises(ValueError, match="smart, fast"):
        pair.stop(0, "quickly")
    with pytest.raises(ValueError, match="standbys"):
        Cluster(-1)
    with pytest.raises(ValueError, match="sync, async"):
        Cluster(replication="maybe")  # type: ignore[arg-type]
    assert all(server.is_running for server in pair.servers)


def test_three_servers_follow_the_most_advanced() -> None:
    with Cluster(2, replication="async", settings={"work_mem": "5MB"}) as cluster:
        cluster.primary.sql("CREATE TABLE seen (id int)")
        assert cluster.primary.sql("SHOW work_mem") == [("5MB",)]
        cluster.wait_for_standbys()
        behind, ahead = cluster.standbys
        cluster.stop(behind)
        cluster.primary.sql("INSERT INTO seen VALUES (1)")
        ahead.wait_for("SELECT count(*) = 1 FROM seen")
        cluster.kill_primary()
        # Not by start(), which would wait for it to reach the primary.
        behind.launch()
        behind.wait_until_ready()
        assert behind.sql("SELECT count(*) FROM seen") == [("0",)]
        assert cluster.promote() is ahead
        ahead.sql("INSERT INTO seen VALUES (2)")
        behind.wait_for("SELECT count(*) = 2 FROM seen")
        assert rows(cluster) == ["1", "2"]


def test_two_primaries_on_request_only() -> None:
    with Cluster() as cluster:
        old = cluster.primary
        cluster.failover()
        cluster.start(old, as_it_was=True)
        assert not old.in_recovery()
        assert not cluster.primary.in_recovery()
        assert cluster.primary is not old


def test_a_cluster_without_standbys_has_nobody_to_promote() -> None:
    with Cluster(0) as cluster:
        assert cluster.primary.sql("CREATE TABLE seen (id int)") == []
        with pytest.raises(ClusterError, match="no running standby"):
            cluster.failover()
        # It was not killed for nothing.
        assert cluster.primary.is_running


def test_close_leaves_nothing_behind() -> None:
    cluster = Cluster(0)
    data, directory, port = cluster.primary.data, cluster.directory, cluster.primary.port
    assert _processes.standing_in(data)
    cluster.pause(0)
    cluster.close()
    cluster.close()
    assert not directory.exists()
    assert not _processes.standing_in(data)
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(("127.0.0.1", port))
    with pytest.raises(ClusterError, match="closed"):
        cluster.kill_primary()


def test_a_cluster_that_nobody_holds_goes_away() -> None:
    directory = Cluster(0).directory
    assert not directory.exists()


CHILD = """\
import os, sys, threading
from segue.testing import Cluster
clusters = []
# From a thread that ends at once: the servers belong to the process, not to the thread.
thread = threading.Thread(target=lambda: clusters.append(Cluster(0)))
thread.start()
thread.join()
cluster = clusters[0]
pid = os.fork()
if pid == 0:
    sys.exit(0)  # A child's exit is no end of the parent's cluster.
os.waitpid(pid, 0)
assert cluster.primary.sql("SELECT 1") == [("1",)]
print(cluster.primary.data, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("by", ["exit", "SIGKILL"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_servers_die_with_their_process(by: str) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        cwd="/",
    ) as child:
        assert child.stdout is not None
        data = Path(child.stdout.readline().strip())
        assert data.is_absolute()
        assert _processes.standing_in(data)
        if by == "SIGKILL":
            child.kill()
        child.communicate("\n")
    assert _processes.wait_until(lambda: not _processes.standing_in(data), timeout=10)
    if by == "exit":
        assert not data.exists()
    else:
        # Nobody was left to remove it; the next process does.
        _workdir._sweep(data.parents[2])
        assert not data.exists()


def test_the_directories_of_living_processes_are_no_leftovers() -> None:
    pid = os.getpid()
    started = _processes.start_time(pid)
    assert started is not None
    assert not _workdir._maker_is_gone(f"{pid}-{started}-0")
    assert _workdir._maker_is_gone(f"{pid}-{started + 1}-0")
    assert not _workdir._maker_is_gone("not-ours")


def test_a_leased_port_is_leased_once() -> None:
    # The application's seed does not make ports collide.
    leases = []
    for _ in range(20):
        random.seed(1)
        leases.append(PortLease())
    assert len({lease.port for lease in leases}) == 20
    for lease in leases:
        lease.release()


def test_no_server_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_PG_BIN", "/nonexistent")
    with pytest.raises(ClusterError, match=r"/nonexistent.*pip install 'segue\[server\]'"):
        Cluster()


@pytest.mark.parametrize("major", [16, 18])
def test_the_embedded_servers_wheel(
    major: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a machine without PostgreSQL; for root the wheel may be where `postgres` cannot go."""
    monkeypatch.setattr(_binaries, "PACKAGED", tmp_path)
    monkeypatch.setattr(_binaries, "_first_line", _without_pg_config)
    if major == 16:
        spec = importlib.util.find_spec(_binaries.EMBEDDED)
        assert spec is not None
        assert spec.submodule_search_locations
        place = Path(spec.submodule_search_locations[0])
        libraries = place.parent / f"{_binaries.EMBEDDED}.libs"
        older = (place / "pginstall" / "bin", place / "pginstall", libraries)
        monkeypatch.setattr(_binaries, "_candidates", lambda: iter([older]))
    monkeypatch.setattr(_workdir, "reachable", _only_temporary_directories)
    with Cluster() as cluster:
        assert cluster.version == major
        cluster.primary.sql("CREATE TABLE seen (id int); INSERT INTO seen VALUES (1)")
        old = cluster.primary
        cluster.failover()
        assert rows(cluster) == ["1"]
        cluster.start(old)


def _without_pg_config(program: str | Path, argument: str) -> str:
    return "" if program == "pg_config" else _first_line(program, argument)


def _only_temporary_directories(path: Path, owner: _processes.Owner) -> bool:
    return "site-packages" not in path.parts and _reachable(path, owner)


def test_a_server_that_does_not_start_shows_its_log() -> None:
    with pytest.raises(ClusterError, match="unrecognized configuration parameter"):
        Cluster(0, settings={"no_such_setting": 1})


def test_killing_from_another_thread() -> None:
    with Cluster() as cluster:
        new: list[int] = []
        thread = threading.Thread(target=lambda: new.append(cluster.failover().number))
        thread.start()
        deadline = time.monotonic() + 30
        while cluster.primary.number == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        thread.join()
        assert new == [1]
        assert not cluster.primary.in_recovery()


def test_ctrl_c_is_not_for_the_servers(pair: Cluster) -> None:
    pids = [server.pid for server in pair.servers if server.pid is not None]
    assert len(pids) == 2
    assert all(os.getpgid(pid) != os.getpgid(0) for pid in pids)


PLUGIN_TEST = """\
import pytest

def test_survives(segue_cluster):
    assert segue_cluster.failover().number == 1

@pytest.mark.segue_cluster(2, replication="async")
def test_marker(segue_cluster):
    assert len(segue_cluster.servers) == 3

def test_shared(segue_cluster_module):
    assert segue_cluster_module.primary.number == 0

def test_fails(segue_cluster):
    assert segue_cluster.sql(0, "SELECT 1/0")
"""


def test_the_pytest_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PLUGIN_TEST)
    loaded = [] if _plugin_is_installed() else ["-p", "segue.testing.plugin"]
    result = pytester.runpytest_subprocess("-W", "error", "--strict-markers", *loaded)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*PostgreSQL logs of segue_cluster*", "*division by zero*"])


def test_the_plugins_scope_is_an_option(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        seen = []
        def test_a(segue_cluster): seen.append(segue_cluster)
        def test_b(segue_cluster): assert seen == [segue_cluster]
        """
    )
    pytester.makeini("[pytest]\nsegue_cluster_scope = module")
    loaded = [] if _plugin_is_installed() else ["-p", "segue.testing.plugin"]
    pytester.runpytest_subprocess(*loaded).assert_outcomes(passed=2)
    result = pytester.runpytest_subprocess(*loaded, "-o", "segue_cluster_scope=galaxy")
    assert result.ret != 0


def _plugin_is_installed() -> bool:
    from importlib.metadata import entry_points

    return any(e.value == "segue.testing.plugin" for e in entry_points(group="pytest11"))


def test_signals_reach_every_process(pair: Cluster) -> None:
    data = pair.standbys[0].data
    with pair.paused(pair.standbys[0]):
        assert len(_processes.standing_in(data)) > 3

        def all_stopped() -> bool:
            return {_processes._field(pid, 0) for pid in _processes.standing_in(data)} == {"T"}

        assert _processes.wait_until(all_stopped, timeout=5)
