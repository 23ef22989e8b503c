"""Transactions: blocks, savepoints, levels, and what their errors leave behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import segue
from segue import TransactionStatus, errors
from segue.testing import Cluster


@pytest.fixture
def conn(uri: str) -> Iterator[segue.Connection]:
    with segue.connect(uri, autocommit=True) as conn:
        conn.execute("CREATE TEMP TABLE seen (id int UNIQUE DEFERRABLE INITIALLY IMMEDIATE)")
        yield conn


def status(conn: segue.Connection) -> TransactionStatus:
    return conn.info.transaction_status


def roll_back(block: segue.Transaction | None = None) -> None:
    raise segue.Rollback(block)


def ids(conn: segue.Connection) -> list[int]:
    return [row[0] for row in conn.execute("SELECT id FROM seen ORDER BY id").fetchall()]


def insert(conn: segue.Connection, id: int) -> None:
    conn.execute("INSERT INTO seen VALUES (%s)", (id,))


def test_a_block_commits_and_an_exception_rolls_back(conn: segue.Connection) -> None:
    with conn.transaction():
        assert status(conn) == TransactionStatus.INTRANS
        insert(conn, 1)
    assert status(conn) == TransactionStatus.IDLE
    with pytest.raises(ZeroDivisionError), conn.transaction():
        insert(conn, 2)
        raise ZeroDivisionError
    assert ids(conn) == [1]


def test_inner_blocks_are_savepoints(conn: segue.Connection) -> None:
    with conn.transaction() as outer:
        assert outer.savepoint_name is None
        insert(conn, 1)
        with pytest.raises(ZeroDivisionError), conn.transaction() as inner:
            assert inner.savepoint_name is not None
            insert(conn, 2)
            raise ZeroDivisionError
        with conn.transaction('a "name"'):
            insert(conn, 3)
            with pytest.raises(errors.UniqueViolation), conn.transaction():
                insert(conn, 1)
            insert(conn, 4)
    assert ids(conn) == [1, 3, 4]


def test_rollback_ends_a_block_quietly(conn: segue.Connection) -> None:
    with conn.transaction():
        insert(conn, 1)
        roll_back()
    with conn.transaction() as outer:
        insert(conn, 2)
        with conn.transaction():
            insert(conn, 3)
            roll_back(outer)
    with conn.transaction(force_rollback=True):
        insert(conn, 4)
    assert ids(conn) == []


def test_without_autocommit_a_statement_opens_a_transaction(uri: str) -> None:
    with segue.connect(uri) as conn:
        assert not conn.autocommit
        assert status(conn) == TransactionStatus.IDLE
        conn.execute("SELECT 1")
        assert status(conn) == TransactionStatus.INTRANS
        with conn.transaction() as block:
            assert block.savepoint_name is not None
        assert status(conn) == TransactionStatus.INTRANS
        conn.commit()
        assert status(conn) == TransactionStatus.IDLE


def test_a_failed_transaction_is_rolled_back_and_commit_says_so(conn: segue.Connection) -> None:
    conn.autocommit = False
    insert(conn, 1)
    with pytest.raises(segue.DataError):
        conn.execute("SELECT 1/0")
    assert status(conn) == TransactionStatus.INERROR
    with pytest.raises(errors.InFailedSqlTransaction):
        conn.execute("SELECT 1")
    with pytest.raises(errors.TransactionFailed) as info:
        conn.commit()
    assert info.value.outcome is segue.Outcome.NOT_COMMITTED
    assert status(conn) == TransactionStatus.IDLE
    assert ids(conn) == []


def test_a_constraint_that_fails_at_commit(conn: segue.Connection) -> None:
    conn.autocommit = False
    conn.execute("SET CONSTRAINTS ALL DEFERRED")
    insert(conn, 1)
    insert(conn, 1)
    with pytest.raises(errors.UniqueViolation) as info:
        conn.commit()
    assert info.value.outcome is segue.Outcome.NOT_COMMITTED
    assert info.value.diag.constraint_name == "seen_id_key"
    assert status(conn) == TransactionStatus.IDLE
    assert ids(conn) == []


@pytest.mark.parametrize("level", segue.IsolationLevel)
def test_isolation_levels(conn: segue.Connection, level: segue.IsolationLevel) -> None:
    conn.isolation_level = level
    with conn.transaction():
        row = conn.execute("SHOW transaction_isolation").fetchone()
    assert row is not None
    expected = level.name.replace("_", " ").lower()
    assert row[0] in (expected, "read committed" if level == 1 else expected)
    conn.isolation_level = None
    with conn.transaction():
        assert conn.execute("SHOW transaction_isolation").fetchone() == ("read committed",)


def test_read_only_and_deferrable(conn: segue.Connection) -> None:
    conn.read_only = True
    conn.deferrable = True
    with pytest.raises(errors.ReadOnlySqlTransaction), conn.transaction():
        assert conn.execute("SHOW transaction_deferrable").fetchone() == ("on",)
        conn.execute("CREATE TABLE not_to_be (id int)")
    conn.read_only = None
    conn.deferrable = None
    with conn.transaction():
        insert(conn, 1)
    assert ids(conn) == [1]


def test_settings_cannot_change_in_a_transaction(conn: segue.Connection) -> None:
    with conn.transaction():
        for name, value in (
            ("autocommit", False),
            ("isolation_level", segue.IsolationLevel.SERIALIZABLE),
            ("read_only", True),
            ("deferrable", True),
        ):
            with pytest.raises(segue.ProgrammingError, match=name):
                setattr(conn, name, value)
    with pytest.raises(segue.ProgrammingError):
        conn.isolation_level = 9


def test_serialization_failures_say_that_they_may_be_retried(uri: str) -> None:
    with segue.connect(uri, autocommit=True) as one, segue.connect(uri, autocommit=True) as two:
        one.execute("DROP TABLE IF EXISTS conflict")
        one.execute("CREATE TABLE conflict AS SELECT 1 AS id, 0 AS n")
        for conn in (one, two):
            conn.isolation_level = segue.IsolationLevel.REPEATABLE_READ
        with pytest.raises(errors.SerializationFailure) as info, one.transaction():
            one.execute("SELECT n FROM conflict")
            with two.transaction():
                two.execute("UPDATE conflict SET n = 1")
            one.execute("UPDATE conflict SET n = 2")
        assert info.value.is_retryable
        assert one.execute("SELECT n FROM conflict").fetchone() == (1,)
        one.execute("DROP TABLE conflict")


def test_leaving_a_connections_block(uri: str) -> None:
    with segue.connect(uri) as conn:
        conn.execute("DROP TABLE IF EXISTS left_behind")
        conn.execute("CREATE TABLE left_behind (id int)")
    assert conn.closed
    with pytest.raises(ZeroDivisionError), segue.connect(uri) as conn:
        conn.execute("INSERT INTO left_behind VALUES (1)")
        raise ZeroDivisionError
    with segue.connect(uri) as conn:
        assert conn.execute("SELECT count(*) FROM left_behind").fetchone() == (0,)
        conn.execute("DROP TABLE left_behind")


def test_cancel_from_another_thread(conn: segue.Connection) -> None:
    timer = threading.Timer(0.3, conn.cancel)
    timer.start()
    with pytest.raises(errors.QueryCanceled):
        conn.execute("SELECT pg_sleep(600)")
    timer.join()
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_to_ask_for_the_state_waits_for_no_statement(uri: str, cluster: Cluster) -> None:
    with segue.connect(uri, application_name="asleep", autocommit=True) as conn:
        thread = threading.Thread(target=sleep, args=(conn,), daemon=True)
        thread.start()
        cluster.primary.wait_for(
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'asleep' "
            "AND wait_event = 'PgSleep'"
        )
        assert not conn.closed
        assert status(conn) is TransactionStatus.ACTIVE
        assert "ACTIVE" in repr(conn)
        assert thread.is_alive()
        conn.cancel()
        thread.join(30)
        assert not thread.is_alive()
        assert status(conn) is TransactionStatus.IDLE
    assert conn.closed


def sleep(conn: segue.Connection) -> None:
    with pytest.raises(errors.QueryCanceled):
        conn.execute("SELECT pg_sleep(600)")


def test_cancel_while_the_first_statement_is_prepared(segue_cluster: Cluster) -> None:
    """To prepare it waits for locks, too, and does so before BEGIN is sent.

    The statement was executed after it had been cancelled, and waited once more.
    """
    uri = segue_cluster.uri
    with segue.connect(uri) as other, segue.connect(uri, application_name="waits") as conn:
        other.execute("CREATE TABLE held (id int)")
        other.commit()
        other.execute("LOCK held")

        def cancel() -> None:
            segue_cluster.primary.wait_for(
                "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'waits' "
                "AND wait_event_type = 'Lock'"
            )
            conn.cancel()

        thread = threading.Thread(target=cancel, daemon=True)
        thread.start()
        # A second wait for the lock ends all the same, with another error.
        rescue = threading.Timer(20, other.close)
        rescue.start()
        with pytest.raises(errors.QueryCanceled):
            conn.execute("SELECT * FROM held")
        thread.join(30)
        rescue.cancel()
        assert not other.closed
        conn.rollback()
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_threads_may_share_a_connection(conn: segue.Connection) -> None:
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for count in range(50):
                insert(conn, number * 1000 + count)
                row = conn.execute("SELECT %s::int", (number,)).fetchone()
                assert row == (number,)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(ids(conn)) == 200


def test_a_block_ends_its_transaction_itself(conn: segue.Connection) -> None:
    """What a commit() inside would leave is no transaction: statements behind it would stand."""
    for end in conn.commit, conn.rollback:
        with pytest.raises(segue.ProgrammingError, match="block"), conn.transaction():
            insert(conn, 1)
            end()
        assert status(conn) == TransactionStatus.IDLE
        assert ids(conn) == []
    with conn.transaction(), conn.transaction():
        insert(conn, 1)
    conn.commit()
    assert ids(conn) == [1]


def test_blocks_end_in_the_reverse_of_their_order(conn: segue.Connection) -> None:
    outer, inner = conn.transaction(), conn.transaction()
    with pytest.raises(segue.ProgrammingError, match="reverse"), outer:
        inner.__enter__()
        insert(conn, 1)
    inner.__exit__(None, None, None)
    assert status(conn) == TransactionStatus.INTRANS
    conn.rollback()
    with pytest.raises(segue.ProgrammingError, match="once"):
        inner.__enter__()
    with pytest.raises(segue.ProgrammingError, match="has ended"):
        inner.__exit__(None, None, None)
    assert ids(conn) == []


def test_pipeline(conn: segue.Connection) -> None:
    with conn.pipeline() as pipeline:
        first = conn.execute("SELECT 1")
        insert(conn, 1)
        pipeline.sync()
        assert first.fetchone() == (1,)
        last = conn.execute("SELECT 2")
    assert last.fetchone() == (2,)
    with pytest.raises(errors.DivisionByZero), conn.pipeline():
        conn.execute("SELECT 1/0")
        insert(conn, 2)
    assert conn.execute("SELECT 3").fetchone() == (3,)


def test_the_first_error_of_a_pipeline_is_raised(conn: segue.Connection) -> None:
    """In a transaction the statements behind it fail as well, and say nothing worth knowing."""
    with pytest.raises(errors.DivisionByZero), conn.transaction(), conn.pipeline():
        conn.execute("SELECT 1")
        conn.execute("SELECT 1/0")
        conn.execute("SELECT 2")
        conn.execute("SELECT 3")
    assert status(conn) == TransactionStatus.IDLE
    # Outside of one each is a transaction of its own.
    with pytest.raises(errors.DivisionByZero), conn.pipeline():
        insert(conn, 1)
        conn.execute("SELECT 1/0")
        insert(conn, 2)
    assert ids(conn) == [1, 2]


def test_notifications(uri: str, conn: segue.Connection) -> None:
    conn.execute("LISTEN news")
    with segue.connect(uri, autocommit=True) as other:
        other.execute("SELECT pg_notify('news', %s)", ("one",))
        other.execute("NOTIFY news, 'two'")
        pid = other.info.backend_pid
    got = list(conn.notifies(timeout=10, stop_after=2))
    assert [(notify.channel, notify.payload, notify.pid) for notify in got] == [
        ("news", "one", pid),
        ("news", "two", pid),
    ]
    assert list(conn.notifies(timeout=0.05)) == []


def test_after_fork_a_child_is_told_so(conn: segue.Connection) -> None:
    import multiprocessing
    import warnings

    def use(result: object) -> None:
        try:
            conn.execute("SELECT 1")
        except segue.Error as error:
            result.put(type(error).__name__)  # type: ignore[attr-defined]

    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    with warnings.catch_warnings():
        # From 3.12 on, of threads and fork in general.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = context.Process(target=use, args=(queue,))
        process.start()
    process.join(30)
    assert queue.get() == "ConnectionForked"
    assert conn.execute("SELECT 1").fetchone() == (1,)
