"""DB-API 2.0 (PEP 249), clause by clause: what every module that claims it must do."""

from __future__ import annotations

import datetime
import time
import warnings
from collections.abc import Iterator

import pytest

import segue

BEERS = ["Boag's", "Carlton 100%", 'Cooper "Pale"', "Victoria\\Bitter", "XXXX", "Ærø"]


@pytest.fixture
def conn(uri: str) -> Iterator[segue.Connection]:
    conn = segue.connect(uri)
    conn.cursor().execute("CREATE TEMP TABLE booze (name varchar(20))")
    yield conn
    conn.close()


@pytest.fixture
def cur(conn: segue.Connection) -> segue.Cursor:
    return conn.cursor()


@pytest.fixture
def filled(cur: segue.Cursor) -> segue.Cursor:
    cur.executemany("INSERT INTO booze VALUES (%s)", [(beer,) for beer in BEERS])
    return cur


# The module.


def test_globals() -> None:
    assert segue.apilevel == "2.0"
    assert segue.threadsafety == 2
    assert segue.paramstyle == "pyformat"
    assert callable(segue.connect)


def test_exceptions() -> None:
    assert issubclass(segue.Warning, Exception)
    assert issubclass(segue.Error, Exception)
    assert not issubclass(segue.Error, segue.Warning)
    assert issubclass(segue.InterfaceError, segue.Error)
    assert issubclass(segue.DatabaseError, segue.Error)
    assert not issubclass(segue.InterfaceError, segue.DatabaseError)
    for name in ("Data", "Operational", "Integrity", "Internal", "Programming", "NotSupported"):
        assert issubclass(getattr(segue, f"{name}Error"), segue.DatabaseError)


def test_exceptions_are_attributes_of_connections(conn: segue.Connection) -> None:
    for name in (
        *("Warning", "Error", "InterfaceError", "DatabaseError", "DataError", "OperationalError"),
        *("IntegrityError", "InternalError", "ProgrammingError", "NotSupportedError"),
    ):
        assert getattr(conn, name) is getattr(segue, name)


# Connections.


def test_commit_makes_permanent_and_rollback_undoes(uri: str, cluster: object) -> None:
    with segue.connect(uri) as one, segue.connect(uri) as two:
        one.execute("DROP TABLE IF EXISTS dbapi_commit")
        one.execute("CREATE TABLE dbapi_commit (id int)")
        one.commit()
        one.execute("INSERT INTO dbapi_commit VALUES (1)")
        assert two.execute("SELECT count(*) FROM dbapi_commit").fetchone() == (0,)
        two.rollback()
        one.commit()
        assert two.execute("SELECT count(*) FROM dbapi_commit").fetchone() == (1,)
        one.execute("INSERT INTO dbapi_commit VALUES (2)")
        one.rollback()
        assert one.execute("SELECT count(*) FROM dbapi_commit").fetchone() == (1,)
        two.rollback()
        one.execute("DROP TABLE dbapi_commit")


def test_commit_and_rollback_without_work(conn: segue.Connection) -> None:
    conn.commit()
    conn.commit()
    conn.rollback()
    conn.rollback()


def test_closing_without_commit_rolls_back(uri: str) -> None:
    conn = segue.connect(uri)
    conn.execute("CREATE TABLE dbapi_lost (id int)")
    conn.close()
    with segue.connect(uri) as other:
        assert other.execute("SELECT to_regclass('dbapi_lost')").fetchone() == (None,)


def test_a_closed_connection_refuses(uri: str) -> None:
    conn = segue.connect(uri)
    cur = conn.cursor()
    conn.close()
    for call in (conn.cursor, conn.commit, conn.rollback, lambda: cur.execute("SELECT 1")):
        with pytest.raises(segue.Error):
            call()
    # Closing twice does no harm.
    conn.close()


def test_cursors_of_one_connection_are_not_isolated(conn: segue.Connection) -> None:
    one, two = conn.cursor(), conn.cursor()
    one.execute("INSERT INTO booze VALUES (%s)", ("Victoria Bitter",))
    two.execute("SELECT name FROM booze")
    assert two.fetchall() == [("Victoria Bitter",)]


# Cursors.


def test_description(cur: segue.Cursor) -> None:
    def described(statement: str) -> list[tuple[object, ...]] | None:
        cur.execute(statement)
        return cur.description

    assert cur.description is None
    assert described("INSERT INTO booze VALUES ('a')") is None
    columns = described("SELECT name, 1 AS one FROM booze")
    assert columns is not None
    assert [len(column) for column in columns] == [7, 7]
    assert [column[0] for column in columns] == ["name", "one"]
    assert columns[0][1] == segue.STRING
    assert columns[1][1] == segue.NUMBER
    assert described("SELECT name FROM booze WHERE false") is not None
    assert described("CREATE TEMP TABLE other (id int)") is None


def test_rowcount(cur: segue.Cursor) -> None:
    assert cur.rowcount == -1
    cur.execute("CREATE TEMP TABLE other (id int)")
    # Not of a statement that counts rows; the standard's -1, or libpq's 0.
    assert cur.rowcount in (-1, 0)
    cur.execute("INSERT INTO booze VALUES ('a'), ('b')")
    assert cur.rowcount == 2
    cur.execute("UPDATE booze SET name = 'c' WHERE name = 'a'")
    assert cur.rowcount == 1
    cur.execute("SELECT name FROM booze")
    assert cur.rowcount == 2
    cur.execute("DELETE FROM booze WHERE false")
    assert cur.rowcount == 0
    cur.executemany("INSERT INTO booze VALUES (%s)", [("d",), ("e",), ("f",)])
    assert cur.rowcount == 3


def test_callproc_is_not_supported(cur: segue.Cursor) -> None:
    with pytest.raises(segue.NotSupportedError):
        cur.callproc("lower", ("FOO",))


def test_a_closed_cursor_refuses(conn: segue.Connection) -> None:
    cur = conn.cursor()
    cur.close()
    for call in (cur.fetchone, cur.fetchmany, cur.fetchall, lambda: cur.execute("SELECT 1")):
        with pytest.raises(segue.Error):
            call()
    cur.close()


def test_execute_without_parameters(cur: segue.Cursor) -> None:
    cur.execute("INSERT INTO booze VALUES ('100%')")
    cur.execute("SELECT name FROM booze WHERE name LIKE '%0%'")
    assert cur.fetchall() == [("100%",)]


@pytest.mark.parametrize("beer", BEERS)
def test_execute_with_parameters(cur: segue.Cursor, beer: str) -> None:
    cur.execute("INSERT INTO booze VALUES (%s)", (beer,))
    assert cur.rowcount in (-1, 1)
    cur.execute("INSERT INTO booze VALUES (%(beer)s)", {"beer": beer, "unused": 1})
    cur.execute("INSERT INTO booze VALUES (%s || %s)", [beer, "%%"])
    cur.execute("SELECT name FROM booze WHERE name = %s OR name LIKE '%%\\%%'", (beer,))
    assert cur.fetchall()[:2] == [(beer,), (beer,)]


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("SELECT %s", ()),
        ("SELECT %s", (1, 2)),
        ("SELECT 1", (1,)),
        ("SELECT %(a)s", {}),
        ("SELECT %(a)s", (1,)),
        ("SELECT %s", {"a": 1}),
        ("SELECT %s, %(a)s", (1,)),
        ("SELECT %d", (1,)),
        ("SELECT 100%", (1,)),
    ],
)
def test_parameters_that_do_not_fit_are_refused_before_anything_is_sent(
    conn: segue.Connection, statement: str, parameters: object
) -> None:
    conn.commit()
    with pytest.raises(segue.ProgrammingError):
        conn.execute(statement, parameters)
    assert conn.info.transaction_status == segue.TransactionStatus.IDLE


def test_parameters_of_no_known_type_are_refused_before_anything_is_sent(
    conn: segue.Connection,
) -> None:
    conn.commit()
    with pytest.raises(segue.Error):
        conn.execute("SELECT %s", (object(),))
    assert conn.info.transaction_status == segue.TransactionStatus.IDLE


def test_executemany(cur: segue.Cursor) -> None:
    cur.executemany("INSERT INTO booze VALUES (%s)", [("a",), ("b",)])
    cur.executemany("INSERT INTO booze VALUES (%(x)s)", iter([{"x": "c"}, {"x": "d"}]))
    cur.executemany("INSERT INTO booze VALUES (%s)", [])
    cur.execute("SELECT name FROM booze ORDER BY name")
    assert cur.fetchall() == [("a",), ("b",), ("c",), ("d",)]


def test_fetchone(filled: segue.Cursor) -> None:
    filled.execute("SELECT name FROM booze ORDER BY name LIMIT 1")
    assert filled.fetchone() == ("Boag's",)
    assert filled.fetchone() is None
    filled.execute("SELECT name FROM booze WHERE false")
    assert filled.fetchone() is None


def test_fetching_without_a_result_is_an_error(cur: segue.Cursor) -> None:
    for call in (cur.fetchone, cur.fetchmany, cur.fetchall):
        with pytest.raises(segue.Error):
            call()
    for statement in ("CREATE TEMP TABLE other (id int)", "INSERT INTO booze VALUES ('a')"):
        cur.execute(statement)
        for call in (cur.fetchone, cur.fetchmany, cur.fetchall):
            with pytest.raises(segue.Error):
                call()
        cur.execute("DROP TABLE IF EXISTS other")


def test_fetchmany(filled: segue.Cursor) -> None:
    filled.execute('SELECT name FROM booze ORDER BY name COLLATE "C"')
    assert filled.arraysize == 1
    assert len(filled.fetchmany()) == 1
    assert len(filled.fetchmany(4)) == 4
    assert len(filled.fetchmany(4)) == 1
    assert filled.fetchmany(4) == []
    filled.arraysize = 4
    filled.execute('SELECT name FROM booze ORDER BY name COLLATE "C"')
    assert [len(filled.fetchmany()) for _ in range(3)] == [4, 2, 0]
    filled.execute("SELECT name FROM booze WHERE false")
    assert filled.fetchmany() == []
    filled.execute('SELECT name FROM booze ORDER BY name COLLATE "C"')
    rows = filled.fetchmany(100)
    assert [row[0] for row in rows] == sorted(BEERS)


def test_fetchall(filled: segue.Cursor) -> None:
    filled.execute("SELECT name FROM booze")
    assert sorted(row[0] for row in filled.fetchall()) == sorted(BEERS)
    assert filled.fetchall() == []
    filled.execute("SELECT name FROM booze WHERE false")
    assert filled.fetchall() == []


def test_mixed_fetches(filled: segue.Cursor) -> None:
    filled.execute('SELECT name FROM booze ORDER BY name COLLATE "C"')
    rows = [filled.fetchone(), *filled.fetchmany(2), filled.fetchone(), *filled.fetchall()]
    assert [row[0] for row in rows if row] == sorted(BEERS)


def test_iteration(filled: segue.Cursor) -> None:
    filled.execute('SELECT name FROM booze ORDER BY name COLLATE "C"')
    assert next(filled) == ("Boag's",)
    assert len(list(filled)) == len(BEERS) - 1
    with pytest.raises(StopIteration):
        next(filled)


def test_nextset(cur: segue.Cursor) -> None:
    cur.execute("SELECT 1; SELECT 'two', 2; SELECT 3 WHERE false")
    assert cur.fetchall() == [(1,)]
    assert cur.nextset()
    assert cur.description is not None
    assert len(cur.description) == 2
    assert cur.fetchall() == [("two", 2)]
    assert cur.nextset()
    assert cur.fetchall() == []
    assert not cur.nextset()


def test_sizes_may_be_said_and_do_nothing(cur: segue.Cursor) -> None:
    cur.setinputsizes((25,))
    cur.setoutputsize(1000)
    cur.setoutputsize(2000, 0)
    cur.execute("INSERT INTO booze VALUES (%s)", ("a" * 20,))
    cur.execute("SELECT name FROM booze")
    assert cur.fetchall() == [("a" * 20,)]


def test_null_is_none(cur: segue.Cursor) -> None:
    cur.execute("INSERT INTO booze VALUES (NULL)")
    cur.execute("INSERT INTO booze VALUES (%s)", (None,))
    cur.execute("SELECT name FROM booze")
    assert cur.fetchall() == [(None,), (None,)]


def test_optional_attributes(cur: segue.Cursor, conn: segue.Connection) -> None:
    assert cur.connection is conn
    assert cur.lastrowid is None
    cur.execute("SELECT generate_series(1, 3)")
    assert cur.rownumber == 0
    cur.fetchone()
    assert cur.rownumber == 1
    cur.scroll(1)
    assert cur.fetchone() == (3,)
    cur.scroll(0, mode="absolute")
    assert cur.fetchone() == (1,)
    with pytest.raises((segue.Error, IndexError)):
        cur.scroll(100)


# Type objects and constructors.


def test_dates_and_times(cur: segue.Cursor) -> None:
    noon = 1_700_000_000
    local = time.localtime(noon)
    assert segue.Date(2002, 12, 25) == datetime.date(2002, 12, 25)
    assert segue.Time(13, 45, 30) == datetime.time(13, 45, 30)
    assert segue.Timestamp(2002, 12, 25, 13, 45, 30) == datetime.datetime(2002, 12, 25, 13, 45, 30)
    assert segue.DateFromTicks(noon) == segue.Date(*local[:3])
    assert segue.TimeFromTicks(noon) == segue.Time(*local[3:6])
    stamp = segue.TimestampFromTicks(noon)
    assert stamp.replace(tzinfo=None) == segue.Timestamp(*local[:6])
    values = (segue.Date(2002, 12, 25), segue.Time(13, 45, 30), segue.Timestamp(2002, 12, 25, 1, 2))
    cur.execute("SELECT %s::date, %s::time, %s::timestamp", values)
    assert cur.fetchone() == values


def test_binary(cur: segue.Cursor) -> None:
    data = bytes(range(256))
    cur.execute("SELECT %s::bytea", (segue.Binary(data),))
    row = cur.fetchone()
    assert row is not None
    assert bytes(row[0]) == data
    assert segue.Binary(b"") is not None


def test_type_objects(cur: segue.Cursor) -> None:
    cur.execute(
        "SELECT 'a'::text, 'b'::varchar, 1::int2, 1::int8, 1.5::numeric, 1::float4, "
        "'\\x00'::bytea, now(), current_date, current_time, 1::oid"
    )
    assert cur.description is not None
    codes = [column[1] for column in cur.description]
    expected = [segue.STRING] * 2 + [segue.NUMBER] * 4 + [segue.BINARY] + [segue.DATETIME] * 3
    assert codes[:10] == expected
    assert codes[10] == segue.ROWID
    kinds = [segue.STRING, segue.BINARY, segue.NUMBER, segue.DATETIME, segue.ROWID]
    for code in codes[:10]:
        assert sum(code == kind for kind in kinds) == 1
    assert segue.STRING != segue.NUMBER
    assert segue.STRING == segue.STRING


# Errors are of the right class.


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELEC 1", segue.ProgrammingError),
        ("SELECT * FROM no_such_table", segue.ProgrammingError),
        ("SELECT 1/0", segue.DataError),
        ("SELECT 'a'::int", segue.DataError),
        ("INSERT INTO booze VALUES (repeat('a', 21))", segue.DataError),
        ("CREATE TEMP TABLE u (x int UNIQUE); INSERT INTO u VALUES (1), (1)", segue.IntegrityError),
        ("SET TRANSACTION SNAPSHOT 'x'", segue.Error),
    ],
)
def test_a_servers_errors(cur: segue.Cursor, statement: str, error: type[segue.Error]) -> None:
    with pytest.raises(error):
        cur.execute(statement)
    # The transaction is what PostgreSQL says: failed, until it is rolled back.
    with pytest.raises(segue.InternalError):
        cur.execute("SELECT 1")
    cur.connection.rollback()
    cur.execute("SELECT 1")


def test_nothing_warns(uri: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with segue.connect(uri) as conn, conn.cursor() as cur:
            assert cur.execute("SELECT 1").fetchone() == (1,)
