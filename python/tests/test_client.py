"""What an application may know of its cluster: status, counters, events, and the ledger."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import events
from segue.client import Health, Role, Verdict
from segue.testing import Cluster

SOURCE = Path(__file__).parents[2] / "src"


class Log:
    """Collects events, from whatever thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: list[events.Event] = []

    def __call__(self, event: events.Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def wait_for(self, kind: type[events.Event], timeout: float = 30) -> Any:
        def found() -> list[events.Event]:
            return [event for event in self._events if isinstance(event, kind)]

        with self._changed:
            assert self._changed.wait_for(found, timeout), f"no {kind.kind}: {self._events}"
            return found()[0]

    def kinds(self) -> list[str]:
        with self._changed:
            return [event.kind for event in self._events]


def wait_until(condition: Callable[[], object], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def run(script: str, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *args],
        env=env,
        cwd="/",
        check=True,
        timeout=timeout,
        capture_output=True,
        text=True,
    )


def test_status(cluster: Cluster) -> None:
    with segue.Client(cluster.uri) as client, client.connect() as conn:
        conn.execute("SELECT 1")
        wait_until(lambda: client.status().servers[1].health is Health.HEALTHY)
        status = client.status()
        assert status.chosen == 0
        assert len(status.servers) == 2
        assert status.primary is status.servers[0]
        assert [server.role for server in status.servers] == [Role.PRIMARY, Role.STANDBY]
        assert {server.verdict for server in status.servers} == {Verdict.MEMBER}
        assert status.sessions >= status.sessions_linked >= 1
        assert status.sessions_waiting == 0
        assert status.ledger_problem is None
        [(identifier,)] = cluster.primary.sql("SELECT system_identifier FROM pg_control_system()")
        assert status.system_identifier == int(identifier or 0)
        assert status.servers[1].lag_bytes is not None
        assert "primary" in status.servers[0].summary
        assert str(Role.PRIMARY) == "primary"
        with pytest.raises(dataclasses.FrozenInstanceError):
            status.chosen = 1  # type: ignore[misc]


def test_connections_of_one_configuration_are_one_client(cluster: Cluster) -> None:
    uri = f"{cluster.uri}&application_name=one_client"
    with segue.Client(uri) as client, segue.connect(uri) as conn, client.connect() as other:
        assert conn.client.number == other.client.number == client.number
        assert client.stats().sessions_opened == 2
        with other.client.connect() as third:
            assert third.client.number == client.number
        with segue.connect(f"{uri}2") as stranger:
            assert stranger.client.number != client.number


def test_options_are_those_of_connect(cluster: Cluster) -> None:
    with (
        segue.Client(cluster.uri, application_name="it's") as client,
        client.connect(autocommit=True, row_factory=segue.rows.scalar_row) as conn,
    ):
        assert conn.autocommit
        assert conn.execute("SHOW application_name").fetchone() == "it's"
    with pytest.raises(segue.errors.ConfigurationError):
        segue.Client("host=localhost nonsense=1")


def test_stats(cluster: Cluster) -> None:
    with segue.Client(cluster.uri, application_name="stats") as client:
        before = client.stats()
        assert set(before.as_dict().values()) == {0}
        with client.connect() as conn:
            conn.execute("SELECT 1")
            conn.execute("SELECT 2")
            conn.commit()
            conn.execute("DO $$ BEGIN RAISE WARNING 'hear'; END $$")
            conn.rollback()
        stats = client.stats()
        assert stats.sessions_opened == 1
        assert stats.statements == 3
        assert stats.transactions_committed == 1
        assert stats.transactions_rolled_back == 1
        assert stats.notices == 1
        assert stats.links_lost == 0


def test_every_counter_of_the_core_is_there() -> None:
    source = (SOURCE / "client" / "statistics.rs").read_text()
    found = re.search(r"pub struct ClientStatistics \{(.*?)\n\}", source, re.DOTALL)
    assert found is not None
    names = re.findall(r"pub (\w+): u64", found[1])
    assert len(names) > 10
    assert [field.name for field in dataclasses.fields(segue.ClientStatistics)] == names


def test_every_event_of_the_core_has_a_class() -> None:
    mapped = (SOURCE.parent / "python" / "src" / "client.rs").read_text()
    for path, enum in ("client/event.rs", "ClientEvent"), ("cluster/status.rs", "ClusterEvent"):
        source = (SOURCE / path).read_text()
        found = re.search(rf"pub enum {enum} \{{(.*?)\n\}}", source, re.DOTALL)
        assert found is not None
        variants = re.findall(r"^    (\w+)[ ({]", found[1], re.MULTILINE)
        assert len(variants) > 8
        for variant in variants:
            assert f"{enum}::{variant}" in mapped, variant
    for name in re.findall(r'"([A-Z]\w+)"', mapped):
        if name not in ("EventQueue", "Client"):
            assert issubclass(getattr(events, name), events.Event)


def test_a_failover_is_seen(segue_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "segue")
    log = Log()
    moved: list[events.SessionMoved] = []
    with (
        segue.Client(segue_cluster.uri) as client,
        client.on_event(log),
        client.on_event(moved.append, events.SessionMoved),
        client.connect() as conn,
    ):
        session = conn.status()["session"]
        conn.execute("CREATE TABLE work (id int)")
        new = segue_cluster.failover()
        conn.execute("INSERT INTO work VALUES (1)")
        promoted = log.wait_for(events.Promoted)
        assert (promoted.server, promoted.previous) == (1, 0)
        assert str(new.port) in promoted.address
        assert promoted.timeline == 2
        lost = log.wait_for(events.ServerLost)
        assert (lost.server, lost.client) == (0, client.number)
        assert lost.reason
        assert log.wait_for(events.ReplayStarted).statements == 1
        finished = log.wait_for(events.ReplayFinished)
        assert finished.session == session
        event = log.wait_for(events.SessionMoved)
        assert (event.session, event.server) == (session, 1)
        assert 0 < event.pause < 60
        assert abs(event.time - time.time()) < 60
        assert event.as_dict()["kind"] == "SessionMoved"
        wait_until(lambda: moved == [event])
        status = client.status()
        assert status.chosen == 1
        assert status.servers[0].health is Health.LOST
        stats = client.stats()
        assert (stats.links_lost, stats.replays_started, stats.replays_finished) == (1, 1, 1)
        assert stats.pause_longest_us == stats.pause_total_us > 0
    [record] = [r for r in caplog.records if "was promoted" in r.message]
    assert (record.name, record.levelno) == ("segue", logging.WARNING)
    assert record.__dict__["segue_kind"] == "Promoted"
    assert record.__dict__["segue_server"] == 1
    assert record.__dict__["segue_event"] == promoted
    assert [r.levelno for r in caplog.records if "after" in r.message] == [logging.INFO]


@pytest.mark.segue_cluster(replication="async")
def test_lost_commits_are_visible(segue_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    with (
        segue.Client(segue_cluster.uri) as client,
        client.on_event(log),
        client.connect(autocommit=True) as conn,
    ):
        conn.execute("CREATE TABLE work (id int)")
        segue_cluster.wait_for_standbys()
        segue_cluster.pause(1)
        primary = segue_cluster.primary
        primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        primary.wait_for("SELECT count(*) = 0 FROM pg_stat_replication")
        conn.execute("INSERT INTO work VALUES (1)")
        segue_cluster.kill_primary()
        segue_cluster.resume(1)
        segue_cluster.promote()
        conn.execute("SELECT 1")
        event = log.wait_for(events.CommitsLost)
        assert event.session == conn.status()["session"]
        assert event.first <= event.last
        assert len(event.ledger_row) == 36
        assert client.stats().commits_lost >= 1
    [record] = [r for r in caplog.records if r.__dict__.get("segue_kind") == "CommitsLost"]
    assert record.levelno == logging.ERROR


def test_a_notice_is_an_event(cluster: Cluster) -> None:
    log = Log()
    with segue.Client(cluster.uri) as client, client.on_event(log, events.Notice):
        with client.connect() as conn:
            conn.execute("DO $$ BEGIN RAISE WARNING 'listen' USING ERRCODE = '01XYZ'; END $$")
        notice = log.wait_for(events.Notice)
        assert notice.diag.message_primary == "listen"
        assert notice.diag.sqlstate == "01XYZ"
        assert notice.diag.severity == "WARNING"
        assert log.kinds() == ["Notice"]


def test_records_need_no_client(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """And however many have the client open, an event is one record."""
    caplog.set_level(logging.DEBUG, "segue")
    uri = f"{cluster.uri}&application_name=records"
    with segue.connect(uri) as conn, segue.connect(uri), segue.Client(uri):
        notice(conn, "recorded")
        wait_until(lambda: "recorded" in caplog.text)
        notice(conn, "and again")
        wait_until(lambda: "and again" in caplog.text)
    [record] = [r for r in caplog.records if "recorded" in r.message]
    assert (record.levelno, record.__dict__["segue_kind"]) == (logging.DEBUG, "Notice")


def test_too_many_events_are_counted(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    total = 25_000
    entered, release = threading.Event(), threading.Event()
    seen: list[events.Event] = []

    def slow(event: events.Event) -> None:
        seen.append(event)
        entered.set()
        release.wait(60)

    with (
        segue.Client(cluster.uri) as client,
        client.connect() as conn,
        client.on_event(slow, events.Notice),
    ):
        notice(conn, "first")
        assert entered.wait(30)
        conn.execute(f"DO $$ BEGIN FOR i IN 2..{total} LOOP RAISE NOTICE '%', i; END LOOP; END $$")
        release.set()
        wait_until(lambda: "were dropped" in caplog.text)
    [record] = [r for r in caplog.records if "were dropped" in r.message]
    assert isinstance(record.args, tuple)
    [dropped] = record.args
    assert isinstance(dropped, int)
    # Other events of the process are among them.
    assert total <= len(seen) + dropped < total + 100
    assert len(seen) <= 10_100


def notice(conn: segue.Connection, text: str) -> None:
    conn.execute(f"DO $$ BEGIN RAISE NOTICE '{text}'; END $$")


def test_a_closed_subscription_is_not_called(cluster: Cluster) -> None:
    first, second = Log(), Log()
    with segue.Client(cluster.uri) as client, client.connect() as conn:
        subscription = client.on_event(first, events.Notice)
        client.on_event(second, events.Notice)
        notice(conn, "one")
        first.wait_for(events.Notice)
        second.wait_for(events.Notice)
        assert not subscription.closed
        subscription.close()
        subscription.close()
        assert subscription.closed
        notice(conn, "two")
        wait_until(lambda: len(second.kinds()) == 2)
        assert len(first.kinds()) == 1
        # Closing the client ends the other, and not the connection.
        client.close()
        with segue.Client(cluster.uri) as again, again.on_event(first, events.Notice):
            notice(conn, "three")
            wait_until(lambda: len(first.kinds()) == 2)
        assert len(second.kinds()) == 2


def test_what_a_callback_raises_is_unraisable(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    log = Log()

    def fail(event: events.Event) -> None:
        raise ZeroDivisionError(event.kind)

    with (
        segue.Client(cluster.uri) as client,
        client.connect() as conn,
        client.on_event(fail, events.Notice),
        client.on_event(log, events.Notice),
    ):
        notice(conn, "one")
        notice(conn, "two")
        wait_until(lambda: len(log.kinds()) == 2)
    assert [entry.exc_type for entry in raised] == [ZeroDivisionError] * 2
    assert raised[0].object is fail


def test_a_callback_may_use_connections(cluster: Cluster) -> None:
    """The connection whose event it is, another one, and the client itself."""
    done = threading.Event()
    seen: list[Any] = []
    with (
        segue.Client(cluster.uri) as client,
        client.connect(autocommit=True) as conn,
        client.connect(autocommit=True) as other,
    ):

        def ask(event: events.Event) -> None:
            seen.append(other.execute("SELECT 1").fetchone())
            seen.append(conn.execute("SELECT 2").fetchone())
            seen.append(client.status().sessions)
            subscription.close()
            done.set()

        subscription = client.on_event(ask, events.Notice)
        notice(conn, "go")
        assert done.wait(30)
    assert seen[:2] == [(1,), (2,)]
    assert seen[2] >= 2


def test_a_slow_callback_delays_nobody(segue_cluster: Cluster) -> None:
    """It even may wait for what the thread does whose statement gave rise to the event."""
    release = threading.Event()
    called = threading.Event()

    def block(event: events.Event) -> None:
        called.set()
        release.wait(60)

    with segue.Client(segue_cluster.uri) as client, client.on_event(block):
        try:
            with client.connect() as conn:
                conn.execute("CREATE TABLE work (id int)")
                assert called.wait(30)
                segue_cluster.failover()
                conn.execute("INSERT INTO work VALUES (1)")
        finally:
            release.set()
    assert segue_cluster.primary.sql("SELECT id FROM work") == [("1",)]


def test_events_while_all_threads_are_busy(cluster: Cluster) -> None:
    """Events arise with and without the GIL while others hold it, and use the client."""
    log = Log()
    errors: list[BaseException] = []
    rounds = 30

    def work(client: segue.Client) -> None:
        try:
            with client.connect(autocommit=True) as conn:
                for _ in range(rounds):
                    with conn.pipeline():
                        notice(conn, "a")
                        notice(conn, "b")
                    client.status()
                    client.stats()
                    sum(range(10_000))
        except BaseException as error:
            errors.append(error)

    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with segue.Client(cluster.uri) as client, client.on_event(log, events.Notice):
            threads = [threading.Thread(target=work, args=(client,), daemon=True) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive(), "a deadlock"
            wait_until(lambda: len(log.kinds()) == 6 * rounds * 2)
    finally:
        sys.setswitchinterval(old)
    assert not errors


def test_bad_callbacks_are_refused(cluster: Cluster) -> None:
    with segue.Client(cluster.uri) as client:
        with pytest.raises(TypeError):
            client.on_event(3)  # type: ignore[call-overload]
        with pytest.raises(TypeError):
            client.on_event(print, int)  # type: ignore[type-var]


def test_a_closed_client_says_so(cluster: Cluster) -> None:
    client = segue.Client(cluster.uri)
    conn = client.connect()
    client.close()
    client.close()
    assert client.closed
    assert "closed" in repr(client)
    for use in client.connect, client.status, client.stats, client.setup, client.remove_ledger:
        with pytest.raises(segue.InterfaceError):
            use()
    assert conn.execute("SELECT 1").fetchone() == (1,)
    conn.close()


def test_no_password_is_shown(cluster: Cluster) -> None:
    with segue.Client(cluster.uri, password="hunter2") as client:
        assert "hunter2" not in repr(client) + repr(client.__dict__) + str(client.status())


def test_the_ledger_comes_and_goes(segue_cluster: Cluster) -> None:
    there = "SELECT count(*) FROM pg_namespace WHERE nspname = 'segue'"
    with segue.Client(segue_cluster.dsn_superuser) as client:
        client.setup()
        assert segue_cluster.primary.sql(there) == [("1",)]
        client.remove_ledger()
        assert segue_cluster.primary.sql(there) == [("0",)]
        with pytest.raises(segue.Error):
            client.setup(role="nobody there")
        client.setup(hardened=True, role="app")
        with segue.connect(segue_cluster.uri) as conn:
            conn.execute("SELECT 1")
            assert conn.status()["ledger"]


def test_setup_of_a_role_that_may_not_says_why(segue_cluster: Cluster) -> None:
    segue_cluster.primary.sql("CREATE ROLE poor LOGIN; REVOKE CREATE ON DATABASE app FROM public")
    uri = segue_cluster.uri.replace("app@", "poor@")
    with segue.Client(uri) as client:
        with pytest.raises(segue.errors.InsufficientPrivilege):
            client.setup()
        with client.connect() as conn:
            conn.execute("SELECT 1")
            problem = client.status().ledger_problem
            assert problem is not None and "permission denied" in problem


def test_an_open_client_keeps_connecting_fast(cluster: Cluster) -> None:
    """What watches the cluster lives on, so that a connection finds the servers known."""
    with segue.Client(cluster.uri, application_name="kept") as client:
        for _ in range(3):
            with client.connect() as conn:
                assert conn.client.number == client.number
        assert client.stats().sessions_opened == 3


def test_events_after_a_fork(cluster: Cluster) -> None:
    script = """
import os, sys, threading, warnings, segue
warnings.simplefilter("ignore", DeprecationWarning)
client = segue.Client(sys.argv[1])
conn = client.connect()
pid = os.fork()
if pid == 0:
    try:
        client.connect()
    except segue.errors.ConnectionForked:
        pass
    else:
        os._exit(3)
    called = threading.Event()
    with segue.Client(sys.argv[1]) as mine, mine.connect() as own:
        mine.on_event(lambda event: called.set(), segue.events.Notice)
        own.execute("DO $$ BEGIN RAISE NOTICE 'child'; END $$")
        os._exit(0 if called.wait(30) else 4)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert conn.execute("SELECT 1").fetchone() == (1,)
"""
    run(script, cluster.uri)


def test_a_program_delivers_its_last_events(cluster: Cluster) -> None:
    script = """
import sys, segue
client = segue.Client(sys.argv[1])
client.on_event(lambda event: print(event.diag.message_primary), segue.events.Notice)
conn = client.connect()
conn.execute("DO $$ BEGIN RAISE NOTICE 'farewell'; END $$")
"""
    assert run(script, cluster.uri).stdout == "farewell\n"


def test_a_program_ends_while_a_callback_blocks(cluster: Cluster) -> None:
    script = """
import sys, threading, segue
called = threading.Event()
def block(event):
    called.set()
    threading.Event().wait()
client = segue.Client(sys.argv[1])
client.on_event(block)
conn = client.connect()
assert called.wait(30)
"""
    started = time.monotonic()
    run(script, cluster.uri)
    assert time.monotonic() - started < 30


def test_the_package_imports_no_more_than_it_needs() -> None:
    script = """
import sys, segue
for name in "segue.client", "segue.events", "segue.pool", "logging":
    assert name not in sys.modules, name
assert segue.Client and segue.Pool and segue.events.Event
from segue import *
assert Pool is segue.Pool
try:
    segue.nonsense
except AttributeError as error:
    assert "nonsense" in str(error)
else:
    sys.exit(1)
"""
    run(script)
