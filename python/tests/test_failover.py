"""What an application sees when its server dies: a slow statement, or an error that says it all.

Each test that commits inserts ids of its own, and asks the surviving server what is there.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import segue
from segue.testing import Cluster, Server


def prepared(cluster: Cluster) -> None:
    with segue.connect(cluster.uri) as conn:
        conn.execute("CREATE TABLE work (id int, note text)")


def ids(server: Server) -> list[int]:
    return [int(row[0] or 0) for row in server.sql("SELECT id FROM work ORDER BY id")]


class Worker(threading.Thread):
    """A thread whose exception is the test's."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def result(self, timeout: float = 60) -> None:
        self.join(timeout)
        assert not self.is_alive(), "the thread has not ended"
        if self._error is not None:
            raise self._error


def hold_commit(cluster: Cluster, commit: Callable[[], object]) -> Worker:
    """Starts a commit that waits for the standby, which is paused, and so is in flight for sure."""
    cluster.pause(cluster.standbys[0])
    worker = Worker(commit)
    cluster.primary.wait_for(
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    )
    return worker


def test_a_transaction_outlives_its_server(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    with segue.connect(segue_cluster.uri) as conn:
        before = conn.info.backend_pid
        conn.execute("INSERT INTO work VALUES (%s, %s)", (1, "before"))
        assert conn.execute("SELECT count(*) FROM work").fetchone() == (1,)
        new = segue_cluster.failover()
        conn.execute("INSERT INTO work VALUES (%s, %s)", (2, "after"))
        assert conn.execute("SELECT id FROM work ORDER BY id").fetchall() == [(1,), (2,)]
        conn.commit()
        assert conn.info.backend_pid != before
    assert ids(new) == [1, 2]


def test_a_block_outlives_its_server(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    with segue.connect(segue_cluster.uri, autocommit=True) as conn, conn.transaction():
        conn.execute("INSERT INTO work VALUES (1)")
        with conn.transaction():
            conn.execute("INSERT INTO work VALUES (2)")
            segue_cluster.failover()
            conn.execute("INSERT INTO work VALUES (3)")
        with pytest.raises(ZeroDivisionError), conn.transaction():
            conn.execute("INSERT INTO work VALUES (4)")
            raise ZeroDivisionError
    assert ids(segue_cluster.primary) == [1, 2, 3]


def test_a_commit_in_flight_is_applied_once(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    conn = segue.connect(segue_cluster.uri)
    conn.execute("INSERT INTO work VALUES (1)")
    committing = hold_commit(segue_cluster, conn.commit)
    segue_cluster.kill_primary()
    segue_cluster.resume(1)
    new = segue_cluster.promote()
    committing.result()
    assert ids(new) == [1]
    conn.close()


def test_an_autocommit_write_in_flight_is_applied_once(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    conn = segue.connect(segue_cluster.uri, autocommit=True)
    found: list[object] = []

    def insert() -> None:
        found.append(conn.execute("INSERT INTO work VALUES (1) RETURNING id").fetchone())

    committing = hold_commit(segue_cluster, insert)
    segue_cluster.kill_primary()
    segue_cluster.resume(1)
    new = segue_cluster.promote()
    committing.result()
    assert found == [(1,)]
    assert ids(new) == [1]
    conn.close()


def test_without_the_ledger_a_commit_in_flight_is_unknown(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    conn = segue.connect(segue_cluster.uri, ledger="off")
    conn.execute("INSERT INTO work VALUES (1)")
    committing = hold_commit(segue_cluster, conn.commit)
    segue_cluster.kill_primary()
    segue_cluster.resume(1)
    new = segue_cluster.promote()
    with pytest.raises(segue.OutcomeUnknown) as info:
        committing.result()
    error = info.value
    assert error.outcome is segue.Outcome.UNKNOWN
    assert error.sqlstate == "08007"
    assert error.maybe_committed
    assert not error.is_retryable
    assert ids(new) in ([], [1])
    # The connection goes on.
    assert conn.execute("SELECT 1").fetchone() == (1,)
    conn.close()


def test_a_replay_that_differs_is_rolled_back_and_says_so(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    conn = segue.connect(segue_cluster.uri)
    conn.execute("INSERT INTO work VALUES (1)")
    conn.execute("SELECT random()").fetchone()
    new = segue_cluster.failover()
    with pytest.raises(segue.ReplayDiverged) as info:
        conn.execute("INSERT INTO work VALUES (2)")
        conn.commit()
    assert isinstance(info.value, segue.errors.SerializationFailure)
    assert info.value.sqlstate == "40001"
    assert info.value.outcome is segue.Outcome.NOT_COMMITTED
    assert info.value.is_retryable
    conn.rollback()
    assert ids(new) == []
    conn.execute("INSERT INTO work VALUES (3)")
    conn.commit()
    assert ids(new) == [3]
    conn.close()


def test_what_cannot_be_replayed_is_named(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    conn = segue.connect(segue_cluster.uri)
    conn.execute("CREATE TEMP TABLE mine (id int)")
    conn.commit()
    assert conn.execute("SELECT count(*) FROM mine").fetchone() == (0,)
    segue_cluster.failover()
    with pytest.raises(segue.ProtectionLost, match="temporary"):
        conn.execute("SELECT count(*) FROM mine")
    conn.rollback()
    assert conn.execute("SELECT 1").fetchone() == (1,)
    conn.close()


def test_when_no_server_comes_the_wait_ends(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    conn = segue.connect(segue_cluster.uri, failover_timeout_ms=700)
    conn.execute("INSERT INTO work VALUES (1)")
    segue_cluster.kill_primary()
    started = time.monotonic()
    with pytest.raises(segue.errors.FailoverTimeout) as info:
        conn.execute("INSERT INTO work VALUES (2)")
    assert 0.5 < time.monotonic() - started < 20
    assert info.value.outcome is segue.Outcome.NOT_COMMITTED
    assert isinstance(info.value, segue.OperationalError)
    new = segue_cluster.promote()
    assert ids(new) == []
    conn.close()


@pytest.mark.parametrize("how", ["kill", "orphans", "pause", "stop", "switchover"])
def test_threads_see_no_error_and_every_commit_once(segue_cluster: Cluster, how: str) -> None:
    prepared(segue_cluster)
    stop = threading.Event()
    committed: dict[int, list[int]] = {}

    def work(number: int) -> None:
        mine = committed[number] = []
        with segue.connect(segue_cluster.uri, autocommit=number % 2 == 0) as conn:
            for count in range(1_000_000):
                if stop.is_set():
                    return
                id = count * 10 + number
                with conn.transaction():
                    conn.execute("INSERT INTO work VALUES (%s, 'a')", (id,))
                    conn.execute("UPDATE work SET note = 'b' WHERE id = %s", (id,))
                mine.append(id)

    def autocommit(number: int) -> None:
        mine = committed[number] = []
        with segue.connect(segue_cluster.uri, autocommit=True) as conn:
            for count in range(1_000_000):
                if stop.is_set():
                    return
                id = count * 10 + number
                cur = conn.execute("INSERT INTO work VALUES (%s, 'b')", (id,))
                assert cur.rowcount == 1
                mine.append(id)

    workers = [Worker(functools.partial(work, number)) for number in range(4)]
    workers += [Worker(functools.partial(autocommit, number)) for number in range(4, 6)]
    wait_until(lambda: len(committed) == 6 and min(map(len, committed.values())) >= 10)
    old = segue_cluster.primary
    if how == "kill":
        segue_cluster.failover()
    elif how == "orphans":
        segue_cluster.kill_primary(leave_backends=True)
        segue_cluster.promote()
    elif how == "pause":
        segue_cluster.pause(old)
        segue_cluster.promote()
    elif how == "stop":
        segue_cluster.stop(old, "fast")
        segue_cluster.promote()
    else:
        segue_cluster.switchover()
    before = {number: len(done) for number, done in committed.items()}
    wait_until(lambda: all(len(committed[n]) > count + 10 for n, count in before.items()))
    stop.set()
    for worker in workers:
        worker.result()
    there = ids(segue_cluster.primary)
    assert there == sorted(id for done in committed.values() for id in done)
    assert segue_cluster.primary.sql("SELECT count(*) FROM work WHERE note <> 'b'") == [("0",)]


def wait_until(question: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not question():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.01)


def test_executemany_outlives_its_server(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    with segue.connect(segue_cluster.uri) as conn:

        def rows() -> Iterator[tuple[int]]:
            for id in range(2000):
                if id == 1000:
                    segue_cluster.failover()
                yield (id,)

        conn.cursor().executemany("INSERT INTO work VALUES (%s)", rows())
    assert ids(segue_cluster.primary) == list(range(2000))


def test_a_stream_goes_on_with_the_next_row(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    statement = "SELECT id, repeat('x', 1000) FROM generate_series(1, 50000) id"
    with segue.connect(segue_cluster.uri) as conn:
        seen = []
        for id, _ in conn.cursor().stream(statement):
            seen.append(id)
            if id == 1000:
                segue_cluster.failover()
        assert seen == list(range(1, 50001))


def test_a_copy_outlives_its_server(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    with segue.connect(segue_cluster.uri) as conn:
        with conn.cursor().copy("COPY work (id) FROM STDIN") as copy:
            for id in range(2000):
                copy.write_row((id,))
                if id == 1000:
                    segue_cluster.failover()
        conn.execute("INSERT INTO work VALUES (2000)")
    assert ids(segue_cluster.primary) == list(range(2001))


def test_settings_are_restored(segue_cluster: Cluster) -> None:
    with segue.connect(segue_cluster.uri, autocommit=True) as conn:
        conn.execute("SET search_path TO elsewhere")
        segue_cluster.failover()
        assert conn.execute("SHOW search_path").fetchone() == ("elsewhere",)


def test_there_and_back_again(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    with segue.connect(segue_cluster.uri) as conn:
        for id in range(1, 4):
            conn.execute("INSERT INTO work VALUES (%s)", (id,))
            old = segue_cluster.primary
            segue_cluster.failover()
            segue_cluster.start(old)
            conn.commit()
    assert ids(segue_cluster.primary) == [1, 2, 3]


def test_a_pipeline_outlives_its_server(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    with segue.connect(segue_cluster.uri) as conn:
        with conn.pipeline() as pipeline:
            early = [conn.execute("INSERT INTO work VALUES (%s)", (id,)) for id in range(50)]
            pipeline.sync()
            segue_cluster.failover()
            late = [conn.execute("INSERT INTO work VALUES (%s)", (id,)) for id in range(50, 100)]
        assert [cur.rowcount for cur in early + late] == [1] * 100
    assert ids(segue_cluster.primary) == list(range(100))


def test_autocommitted_statements_of_a_pipeline_are_applied_once(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    with segue.connect(segue_cluster.uri, autocommit=True) as conn:
        killer = Worker(segue_cluster.failover)
        sent = 0
        while killer.is_alive() or sent < 200:
            with conn.pipeline():
                for _ in range(10):
                    conn.execute("INSERT INTO work VALUES (%s)", (sent,))
                    sent += 1
        killer.result()
    assert ids(segue_cluster.primary) == list(range(sent))


def test_threads_that_share_a_connection_outlive_its_server(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    with segue.connect(segue_cluster.uri, autocommit=True) as conn:
        killer = Worker(segue_cluster.failover)
        done: dict[int, int] = dict.fromkeys(range(4), 0)

        def work(number: int) -> None:
            while killer.is_alive() or done[number] < 50:
                conn.execute("INSERT INTO work VALUES (%s)", (done[number] * 4 + number,))
                done[number] += 1

        for worker in [Worker(functools.partial(work, number)) for number in range(4)]:
            worker.result()
        killer.result()
    expected = sorted(n * 4 + number for number, count in done.items() for n in range(count))
    assert ids(segue_cluster.primary) == expected


def test_a_session_that_reads_goes_on_reading(segue_cluster: Cluster) -> None:
    prepared(segue_cluster)
    with segue.connect(segue_cluster.uri, autocommit=True, writes=False) as conn:
        assert conn.execute("SELECT count(*) FROM work").fetchone() == (0,)
        segue_cluster.failover()
        for _ in range(20):
            assert conn.execute("SELECT count(*) FROM work").fetchone() == (0,)


def test_an_open_result_is_not_lost_with_its_server(segue_cluster: Cluster) -> None:
    with segue.connect(segue_cluster.uri) as conn:
        cur = conn.execute("SELECT generate_series(1, 1000)")
        assert cur.fetchone() == (1,)
        segue_cluster.kill_primary()
        assert len(cur.fetchall()) == 999
        segue_cluster.promote()
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_no_thread_or_socket_is_left_behind(segue_cluster: Cluster) -> None:
    before = set(threading.enumerate())
    for _ in range(20):
        with segue.connect(segue_cluster.uri) as conn:
            conn.execute("SELECT 1")
    # Segue's own thread is none of Python's.
    assert set(threading.enumerate()) == before
    segue_cluster.primary.wait_for(
        "SELECT count(*) < 6 FROM pg_stat_activity WHERE application_name = 'segue'"
    )


@pytest.mark.segue_cluster(1, replication="async")
def test_commits_that_a_promotion_has_lost_are_not_hidden(segue_cluster: Cluster) -> None:
    """The standby never gets what the primary acknowledged; whoever reads again sees that."""
    prepared(segue_cluster)
    segue_cluster.wait_for_standbys()
    with segue.connect(segue_cluster.uri, autocommit=True) as conn:
        with segue_cluster.paused(1):
            segue_cluster.primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
            conn.execute("INSERT INTO work VALUES (1)")
            segue_cluster.kill_primary()
        new = segue_cluster.promote()
        there = conn.execute("SELECT id FROM work").fetchall()
        assert there == [(id,) for id in ids(new)]
