"""The DB-API and what psycopg's users expect beyond it."""

from __future__ import annotations

import dataclasses
import datetime
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import segue
from segue import errors
from segue.rows import class_row, dict_row, namedtuple_row, scalar_row
from segue.testing import Cluster


@pytest.fixture
def conn(uri: str) -> Iterator[segue.Connection]:
    connection = segue.connect(uri)
    yield connection
    connection.close()


@pytest.fixture
def auto(uri: str) -> Iterator[segue.Connection]:
    connection = segue.connect(uri, autocommit=True)
    yield connection
    connection.close()


def test_module() -> None:
    assert (segue.apilevel, segue.threadsafety, segue.paramstyle) == ("2.0", 2, "pyformat")
    assert segue.STRING == 25 and segue.NUMBER == 23 and segue.STRING != 23
    assert segue.Date(2020, 1, 2).isoformat() == "2020-01-02"


@pytest.mark.parametrize(
    ("query", "params", "expected"),
    [
        ("SELECT %s, %s", (1, 2), (1, 2)),
        ("SELECT %(a)s, %(b)s, %(a)s", {"a": 1, "b": 2, "c": 3}, (1, 2, 1)),
        ("SELECT $2::int - $1", (1, 5), (4,)),
        ("SELECT '5%' || $1::text", ("x",), ("5%x",)),
        # A generated statement's literals are none of Python's format.
        ("SELECT '%s %(a)s %%' || $1::text", ("x",), ("%s %(a)s %%x",)),
        ("SELECT '%'", None, ("%",)),
        ("SELECT '%%'", None, ("%%",)),
        ("SELECT '%%'", (), ("%",)),
        ("SELECT 10 %% %s", (3,), (1,)),
        ("SELECT '%%s', %s", (1,), ("%s", 1)),
        (
            'SELECT $$ $1 $$, \'$2\', "$3".a /* $4 */ FROM (SELECT $1::int AS a) "$3" -- $9',
            (7,),
            (" $1 ", "$2", 7),
        ),
        ("SELECT %s::text", ["list"], ("list",)),
        ("SELECT 1", {}, (1,)),
    ],
)
def test_placeholders(auto: segue.Connection, query: str, params: Any, expected: Any) -> None:
    for _ in range(2):
        assert auto.execute(query, params).fetchone() == expected


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELECT %s", ()),
        ("SELECT %s", (1, 2)),
        ("SELECT $1", (1, 2)),
        ("SELECT %s, %(a)s", (1,)),
        ("SELECT %(a)s", (1,)),
        ("SELECT %(a)s", {"b": 1}),
        ("SELECT %s", {"a": 1}),
        ("SELECT $1", {"a": 1}),
        ("SELECT %s %", (1,)),
        ("SELECT %d", (1,)),
        ("SELECT %(a", {"a": 1}),
        ("SELECT %s", "a"),
        ("SELECT %s", 5),
        ("SELECT 1", (1,)),
        ("SELECT %s; SELECT 2", (1,)),
        ("COPY t TO STDOUT", None),
        (5, None),
    ],
)
def test_bad_use_is_a_programming_error(conn: segue.Connection, query: Any, params: Any) -> None:
    conn.execute("SELECT 1")
    with pytest.raises(segue.ProgrammingError):
        conn.execute(query, params)
    # Nothing was sent: the transaction is as good as before.
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_transactions(uri: str, conn: Any, auto: segue.Connection) -> None:
    auto.execute("DROP TABLE IF EXISTS tx; CREATE TABLE tx (a int PRIMARY KEY)")
    assert conn.info.transaction_status == segue.TransactionStatus.IDLE
    conn.execute("INSERT INTO tx VALUES (1)")
    assert conn.info.transaction_status == segue.TransactionStatus.INTRANS
    assert auto.execute("SELECT count(*) FROM tx").fetchone() == (0,)
    conn.commit()
    assert auto.execute("SELECT count(*) FROM tx").fetchone() == (1,)
    conn.execute("INSERT INTO tx VALUES (2)")
    conn.rollback()
    with pytest.raises(segue.errors.UniqueViolation) as caught:
        conn.execute("INSERT INTO tx VALUES (1)")
    assert caught.value.diag.constraint_name == "tx_pkey"
    assert caught.value.outcome is segue.Outcome.NOT_COMMITTED
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), copy.sqlstate, copy.diag) == (
        segue.errors.UniqueViolation,
        "23505",
        caught.value.diag,
    )
    assert conn.info.transaction_status == segue.TransactionStatus.INERROR
    with pytest.raises(segue.errors.InFailedSqlTransaction):
        conn.execute("SELECT 1")
    conn.rollback()
    # A statement that does not even parse fails the transaction, too, be it the first.
    with pytest.raises(segue.errors.SyntaxError):
        conn.execute("SELEC 1")
    assert conn.info.transaction_status == segue.TransactionStatus.INERROR
    with pytest.raises(segue.errors.TransactionFailed):
        conn.commit()
    assert conn.info.transaction_status == segue.TransactionStatus.IDLE
    with segue.connect(uri) as other:
        other.execute("INSERT INTO tx VALUES (3)")
    assert other.closed
    with pytest.raises(ZeroDivisionError), segue.connect(uri) as other:
        other.execute("INSERT INTO tx VALUES (4)")
        raise ZeroDivisionError
    assert auto.execute("SELECT array_agg(a ORDER BY a) FROM tx").fetchone() == ([1, 3],)
    with pytest.raises(segue.OperationalError):
        other.execute("SELECT 1")


@pytest.mark.parametrize("autocommit", [False, True])
def test_transaction_blocks(uri: str, auto: segue.Connection, autocommit: bool) -> None:
    auto.execute("DROP TABLE IF EXISTS blocks; CREATE TABLE blocks (a int)")
    with segue.connect(uri, autocommit=autocommit) as conn:
        with conn.transaction():
            conn.execute("INSERT INTO blocks VALUES (1)")
            with pytest.raises(ZeroDivisionError), conn.transaction():
                conn.execute("INSERT INTO blocks VALUES (2)")
                raise ZeroDivisionError
            with conn.transaction() as inner:
                conn.execute("INSERT INTO blocks VALUES (3)")
                raise segue.Rollback(inner)
            with pytest.raises(segue.errors.DivisionByZero), conn.transaction("named"):
                conn.execute("SELECT 1/0")
            with conn.transaction(force_rollback=True):
                conn.execute("INSERT INTO blocks VALUES (4)")
            conn.execute("INSERT INTO blocks VALUES (5)")
        assert conn.info.transaction_status == segue.TransactionStatus.IDLE
        assert auto.execute("SELECT array_agg(a ORDER BY a) FROM blocks").fetchone() == ([1, 5],)
        with conn.transaction() as outer, conn.transaction():
            conn.execute("INSERT INTO blocks VALUES (6)")
            raise segue.Rollback(outer)
    assert auto.execute("SELECT array_agg(a ORDER BY a) FROM blocks").fetchone() == ([1, 5],)


def test_settings_of_transactions(conn: segue.Connection) -> None:
    conn.isolation_level = segue.IsolationLevel.SERIALIZABLE
    conn.read_only = True
    conn.deferrable = True
    row = conn.execute(
        "SELECT current_setting('transaction_isolation'), "
        "current_setting('transaction_read_only'), current_setting('transaction_deferrable')"
    ).fetchone()
    assert row == ("serializable", "on", "on")
    with pytest.raises(segue.ProgrammingError):
        conn.read_only = False
    with pytest.raises(segue.ProgrammingError):
        conn.autocommit = True
    conn.rollback()
    conn.read_only = None
    conn.isolation_level = None
    assert conn.isolation_level is None
    with pytest.raises(segue.ProgrammingError):
        conn.isolation_level = 9
    assert conn.execute("SHOW transaction_isolation").fetchone() == ("read committed",)


def test_cursor(conn: Any) -> None:
    cursor: Any = conn.cursor()
    assert (cursor.description, cursor.rowcount, cursor.lastrowid) == (None, -1, None)
    with pytest.raises(segue.ProgrammingError):
        cursor.fetchone()
    assert (
        cursor.execute("SELECT generate_series(1, 10) AS n, 'x'::varchar(5), 1::numeric(5,2)")
        is cursor
    )
    assert [column[0] for column in cursor.description] == ["n", "varchar", "numeric"]
    assert cursor.description[0].type_code == segue.NUMBER
    assert cursor.description[1].display_size == 5
    assert (cursor.description[2].precision, cursor.description[2].scale) == (5, 2)
    assert all(len(column) == 7 for column in cursor.description)
    assert pickle.loads(pickle.dumps(cursor.description)) == cursor.description
    assert cursor.rowcount == 10
    assert cursor.fetchone()[0] == 1
    assert cursor.rownumber == 1
    assert [row[0] for row in cursor.fetchmany(2)] == [2, 3]
    assert [row[0] for row in cursor.fetchmany()] == [4]
    cursor.arraysize = 2
    assert [row[0] for row in cursor.fetchmany()] == [5, 6]
    assert next(cursor)[0] == 7
    assert [row[0] for row in cursor] == [8, 9, 10]
    assert cursor.fetchone() is None and cursor.fetchall() == []
    cursor.scroll(0, "absolute")
    assert cursor.fetchone()[0] == 1
    with pytest.raises(IndexError):
        cursor.scroll(100)
    cursor.execute("SELECT 1 WHERE false")
    assert cursor.fetchall() == [] and cursor.rowcount == 0 and cursor.description is not None
    cursor.execute("CREATE TEMP TABLE c (a int)")
    assert cursor.rowcount == -1 and cursor.statusmessage == "CREATE TABLE"
    cursor.execute("INSERT INTO c VALUES (1), (2)")
    assert cursor.rowcount == 2 and cursor.description is None
    with pytest.raises(segue.ProgrammingError):
        cursor.fetchall()
    cursor.execute("SELECT 1; SELECT 'a', 2.5; SELECT 3")
    assert cursor.fetchall() == [(1,)]
    assert cursor.nextset() and str(cursor.fetchone()) == "('a', Decimal('2.5'))"
    assert cursor.nextset() and cursor.fetchone() == (3,)
    assert cursor.nextset() is None
    with pytest.raises(segue.NotSupportedError):
        cursor.callproc("x")
    with cursor:
        pass
    with pytest.raises(segue.InterfaceError):
        cursor.execute("SELECT 1")


@dataclasses.dataclass
class Point:
    x: int
    y: int


def test_row_factories(uri: str, auto: segue.Connection) -> None:
    query = "SELECT 1 AS x, 2 AS y"
    assert auto.cursor(row_factory=dict_row).execute(query).fetchall() == [{"x": 1, "y": 2}]
    named = auto.cursor(row_factory=namedtuple_row).execute(query).fetchone()
    assert (named.x, named.y) == (1, 2)
    assert auto.cursor(row_factory=class_row(Point)).execute(query).fetchone() == Point(1, 2)
    assert auto.cursor(row_factory=scalar_row).execute(query).fetchall() == [1]
    with segue.connect(uri, row_factory=dict_row) as conn:
        cursor = conn.execute(query)
        assert cursor.fetchone() == {"x": 1, "y": 2}
        cursor.row_factory = None
        assert cursor.execute(query).fetchone() == (1, 2)


@pytest.mark.parametrize("autocommit", [False, True])
def test_executemany(uri: str, autocommit: bool) -> None:
    with segue.connect(uri, autocommit=autocommit) as conn:
        cursor = conn.cursor()
        cursor.execute("DROP TABLE IF EXISTS many; CREATE TABLE many (a int PRIMARY KEY, b text)")
        cursor.executemany("INSERT INTO many VALUES (%s, %s)", ((i, "x" * i) for i in range(2000)))
        assert cursor.rowcount == 2000
        if not autocommit:
            conn.commit()
        rows = [(i,) for i in (5000, 7, 5001)]
        with pytest.raises(segue.errors.UniqueViolation):
            cursor.executemany("INSERT INTO many VALUES (%s, 'y')", rows)
        conn.rollback()
        with pytest.raises(segue.ProgrammingError):
            cursor.executemany("INSERT INTO many VALUES (%s, 'y')", [(6000,), ()])
        conn.rollback()
        assert conn.execute("SELECT count(*) FROM many").fetchone() == (2000,)
        cursor.executemany("SELECT %(n)s::int", [{"n": 1}, {"n": 2}], returning=True)
        assert cursor.fetchall() == [(1,)] and cursor.nextset() and cursor.fetchall() == [(2,)]
        cursor.executemany("SELECT %s", [])
        assert cursor.rowcount == 0


def test_stream(conn: segue.Connection) -> None:
    cursor = conn.cursor()
    total = 0
    for row in cursor.stream("SELECT n, repeat('x', 100) FROM generate_series(1, %s) n", (50000,)):
        total += row[0]
    assert total == 50000 * 50001 // 2
    rows = cursor.stream("SELECT generate_series(1, 100000)")
    assert next(rows) == (1,)
    rows.close()
    assert conn.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(segue.errors.DivisionByZero):
        list(cursor.stream("SELECT 1 / (50 - n) FROM generate_series(1, 100) n"))
    conn.rollback()
    assert list(cursor.stream("SELECT 1 WHERE false")) == []


def test_copy(conn: segue.Connection) -> None:
    cursor = conn.cursor()
    cursor.execute("CREATE TEMP TABLE cp (a int, b text, c timestamptz)")
    with cursor.copy("COPY cp FROM STDIN") as copy:
        copy.write(b"1\tone\t\\N\n")
        copy.write_row((2, "t\tw\\o\n", None))
        for number in range(3, 30000):
            copy.write_row((number, None, segue.Timestamp(2020, 1, 1)))
    assert cursor.rowcount == 29999
    with cursor.copy("COPY (SELECT a, b FROM cp ORDER BY a LIMIT 3) TO STDOUT") as copy:
        assert list(copy.rows()) == [("1", "one"), ("2", "t\tw\\o\n"), ("3", None)]
    with cursor.copy("COPY cp TO STDOUT (FORMAT binary)") as copy:
        assert copy.read().startswith(b"PGCOPY")
    conn.commit()
    with pytest.raises(segue.DataError), cursor.copy("COPY cp FROM STDIN") as copy:
        copy.write(b"nonsense\n")
    conn.rollback()
    with pytest.raises(ZeroDivisionError), cursor.copy("COPY cp FROM STDIN") as copy:
        copy.write(b"5\tfive\t\\N\n")
        raise ZeroDivisionError
    conn.rollback()
    with pytest.raises(segue.ProgrammingError), cursor.copy("SELECT 1"):
        pass
    assert conn.execute("SELECT count(*) FROM cp WHERE a = 5").fetchone() == (1,)


def test_pipeline(auto: segue.Connection) -> None:
    with auto.pipeline() as pipeline:
        cursors = [auto.execute("SELECT %s", (i,)) for i in range(500)]
        assert cursors[3].fetchone() == (3,)
        pipeline.sync()
        assert cursors[400].fetchone() == (400,)
        late = auto.execute("SELECT 'late'")
    assert late.fetchone() == ("late",)
    with pytest.raises(segue.errors.DivisionByZero), auto.pipeline():
        auto.execute("SELECT 1/0")
        good = auto.execute("SELECT 1")
    assert good.fetchone() == (1,)
    assert auto.execute("SELECT 2").fetchone() == (2,)


def test_notifies(uri: str, auto: segue.Connection) -> None:
    auto.execute("LISTEN news")
    with segue.connect(uri, autocommit=True) as other:
        other.execute("NOTIFY news, 'one'")
        other.execute("SELECT pg_notify('news', 'two')")
    found = list(auto.notifies(timeout=20, stop_after=2))
    assert [(n.channel, n.payload) for n in found] == [("news", "one"), ("news", "two")]
    assert list(auto.notifies(timeout=0.01)) == []


def test_cancel_from_another_thread(uri: str, auto: segue.Connection) -> None:
    with segue.connect(uri, autocommit=True) as watcher:
        pid = auto.info.backend_pid
        thread = threading.Thread(target=cancel_once_busy, args=(auto, watcher, pid))
        thread.start()
        with pytest.raises(segue.errors.QueryCanceled):
            auto.execute("SELECT pg_sleep(60)")
        thread.join()
    assert auto.execute("SELECT 1").fetchone() == (1,)


def wait_until_busy(watcher: segue.Connection, pid: int | None) -> None:
    deadline = time.monotonic() + 20
    query = (
        "SELECT state = 'active' AND query LIKE '%%pg_sleep%%' FROM pg_stat_activity WHERE pid = %s"
    )
    while time.monotonic() < deadline:
        if watcher.execute(query, (pid,)).fetchone() == (True,):
            return
        time.sleep(0.01)
    raise TimeoutError("the statement never ran")


def cancel_once_busy(conn: segue.Connection, watcher: segue.Connection, pid: int | None) -> None:
    wait_until_busy(watcher, pid)
    conn.cancel()


def test_ctrl_c_cancels_the_statement(uri: str, conn: segue.Connection) -> None:
    pid = conn.info.backend_pid

    def press() -> None:
        with segue.connect(uri, autocommit=True) as watcher:
            wait_until_busy(watcher, pid)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        conn.execute("SELECT pg_sleep(60)")
    assert time.monotonic() - start < 30
    thread.join()
    conn.rollback()
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_threads_share_a_connection(auto: segue.Connection) -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        for i in range(100):
            found = auto.execute("SELECT %s, %s", (number, i)).fetchone()
            if found != (number, i):
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_waiting_lets_other_threads_run(auto: segue.Connection) -> None:
    done = threading.Event()

    def sleep() -> None:
        auto.execute("SELECT pg_sleep(1)")
        done.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    count = 0
    while not done.is_set():
        count += 1
    thread.join()
    assert count > 1000


def test_connect_refuses_what_is_wrong(uri: str) -> None:
    with pytest.raises(segue.ProgrammingError):
        segue.connect("host=localhost no_such_option=1")
    with pytest.raises(segue.OperationalError):
        segue.connect("host=127.0.0.1 port=1 user=x dbname=x failover_timeout_ms=300")
    with segue.connect(uri, application_name="it's \\ me") as conn:
        assert conn.execute("SHOW application_name").fetchone() == ("it's \\ me",)
        assert conn.info.server_version >= 140000
        assert conn.info.parameter_status("server_encoding") == "UTF8"
        assert conn.status()["in_transaction"] is True


def test_closing(uri: str) -> None:
    conn = segue.connect(uri)
    cursor = conn.cursor()
    conn.close()
    conn.close()
    assert conn.closed
    for call in (conn.commit, conn.rollback, conn.cursor, lambda: cursor.execute("SELECT 1")):
        with pytest.raises(errors.ConnectionClosed) as caught:
            call()
        assert isinstance(caught.value, segue.OperationalError)
    assert "CLOSED" in repr(conn)


def test_what_is_known_of_a_connection(cluster: Cluster) -> None:
    class Own(segue.Connection):
        pass

    with Own.connect(cluster.uri, application_name="known", options="-c work_mem=3MB") as conn:
        assert type(conn) is Own
        info = conn.info
        assert (info.user, info.dbname, info.host) == ("app", "app", "127.0.0.1")
        assert info.port == cluster.primary.port
        assert info.options == "-c work_mem=3MB"
        assert "application_name=known" in info.dsn
        conn.execute("SET TIME ZONE 'Europe/Rome'")
        assert str(info.timezone) == "Europe/Rome"
        conn.execute("SET TIME ZONE '<x>-5:30'")
        assert info.timezone is datetime.timezone.utc
        conn.rollback()
        conn.set_read_only(True)
        conn.set_deferrable(True)
        assert (conn.read_only, conn.deferrable) == (True, True)
    with pytest.raises(errors.ConnectionClosed):
        _ = info.host
    directory = cluster.dsn_unix.split("host=")[1].split()[0].split(",")[0]
    with segue.connect(
        host=directory, port=cluster.primary.port, user="app", dbname="app", password="s3cret"
    ) as local:
        assert local.info.host == directory
        assert "s3cret" not in local.info.dsn


def test_a_table_that_changes_under_a_prepared_statement(auto: segue.Connection) -> None:
    auto.execute(
        "DROP TABLE IF EXISTS changing; CREATE TABLE changing (a int); "
        "INSERT INTO changing VALUES (1)"
    )
    assert auto.execute("SELECT * FROM changing").fetchone() == (1,)
    auto.execute("ALTER TABLE changing ADD b text DEFAULT 'new'")
    assert auto.execute("SELECT * FROM changing").fetchone() == (1, "new")
