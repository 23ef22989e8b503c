"""Cursors beyond the DB-API: row factories, streams, positional parameters, many results."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import segue
from segue import errors
from segue.rows import args_row, class_row, dict_row, kwargs_row, namedtuple_row, scalar_row


@pytest.fixture
def conn(uri: str) -> Iterator[segue.Connection]:
    with segue.connect(uri, autocommit=True) as conn:
        yield conn


@dataclass
class Beer:
    name: str
    price: float = 0.0


def test_row_factories(conn: segue.Connection) -> None:
    statement = "SELECT 'XXXX' AS name, 2.5::float8 AS price"
    factories = {
        dict_row: {"name": "XXXX", "price": 2.5},
        class_row(Beer): Beer("XXXX", 2.5),
        args_row(Beer): Beer("XXXX", 2.5),
        kwargs_row(Beer): Beer("XXXX", 2.5),
        scalar_row: "XXXX",
        None: ("XXXX", 2.5),
    }
    for factory, expected in factories.items():
        cur = conn.cursor(row_factory=factory)
        assert cur.execute(statement).fetchone() == expected
        assert cur.execute(statement).fetchall() == [expected]
        assert list(cur.execute(statement)) == [expected]
        assert list(cur.stream(statement)) == [expected]
    row = conn.cursor(row_factory=namedtuple_row).execute(statement).fetchone()
    assert (row.name, row.price) == ("XXXX", 2.5)
    odd = conn.cursor(row_factory=namedtuple_row).execute('SELECT 1 AS "a b", 2 AS "class", 3')
    assert odd.fetchone() == (1, 2, 3)


def test_the_connections_row_factory(uri: str) -> None:
    with segue.connect(uri, row_factory=dict_row) as conn:
        assert conn.execute("SELECT 1 AS one").fetchone() == {"one": 1}
        assert conn.cursor(row_factory=None).execute("SELECT 1 AS one").fetchone() == (1,)


def test_an_error_in_a_row_factory_is_the_applications(conn: segue.Connection) -> None:
    cur = conn.cursor(row_factory=class_row(Beer))
    with pytest.raises(TypeError):
        cur.execute("SELECT 1 AS no_such_field").fetchone()
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_stream_is_read_as_it_comes(conn: segue.Connection) -> None:
    stream = conn.cursor().stream(
        "SELECT id, repeat('x', 1000) FROM generate_series(1, %s) id", (50_000,)
    )
    assert next(stream)[0] == 1
    stream.close()
    assert conn.execute("SELECT 1").fetchone() == (1,)
    assert sum(1 for _ in conn.cursor().stream("SELECT generate_series(1, 10000)")) == 10_000


def test_a_stream_without_rows_has_columns(conn: segue.Connection) -> None:
    cur = conn.cursor()
    assert list(cur.stream("SELECT 1 AS one, 'x' AS two WHERE false")) == []
    assert cur.description is not None
    assert [column.name for column in cur.description] == ["one", "two"]


def test_an_error_in_the_middle_of_a_stream(conn: segue.Connection) -> None:
    seen = 0
    with pytest.raises(errors.DivisionByZero):
        for _ in conn.cursor().stream("SELECT 1/(5000 - id) FROM generate_series(1, 10000) id"):
            seen += 1
    assert seen <= 4999
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_another_statement_while_a_stream_is_open(conn: segue.Connection) -> None:
    stream = conn.cursor().stream("SELECT generate_series(1, 100000)")
    assert next(stream) == (1,)
    # To refuse is right as well, as long as the connection is none the worse for it.
    with contextlib.suppress(segue.Error):
        assert conn.execute("SELECT 1").fetchone() == (1,)
    stream.close()
    assert conn.execute("SELECT 2").fetchone() == (2,)


def test_executemany_returning(conn: segue.Connection) -> None:
    conn.execute("CREATE TEMP TABLE seen (id serial, note text)")
    cur = conn.cursor()
    notes = [(note,) for note in "abc"]
    cur.executemany("INSERT INTO seen (note) VALUES (%s) RETURNING id", notes, returning=True)
    got = [result.fetchone() for result in cur.results()]
    assert got == [(1,), (2,), (3,)]


def test_executemany_is_all_or_nothing_in_a_transaction(conn: segue.Connection) -> None:
    conn.execute("CREATE TEMP TABLE seen (id int UNIQUE)")
    with pytest.raises(errors.UniqueViolation), conn.transaction():
        conn.cursor().executemany("INSERT INTO seen VALUES (%s)", [(1,), (2,), (1,), (3,)])
    assert conn.execute("SELECT count(*) FROM seen").fetchone() == (0,)


def test_an_error_in_the_rows_of_executemany_is_the_applications(conn: segue.Connection) -> None:
    conn.execute("CREATE TEMP TABLE seen (id int)")

    def rows() -> Iterator[tuple[int]]:
        yield (1,)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), conn.transaction():
        conn.cursor().executemany("INSERT INTO seen VALUES (%s)", rows())
    assert conn.execute("SELECT count(*) FROM seen").fetchone() == (0,)


def test_a_servers_error_has_all_its_fields(conn: segue.Connection) -> None:
    conn.execute("CREATE TEMP TABLE seen (id int CONSTRAINT the_key PRIMARY KEY)")
    conn.execute("INSERT INTO seen VALUES (%s)", (77,))
    with pytest.raises(errors.UniqueViolation) as info:
        conn.execute("INSERT INTO seen VALUES (%s)", (77,))
    error = info.value
    assert error.sqlstate == error.diag.sqlstate == "23505"
    assert error.diag.severity == "ERROR"
    assert error.diag.table_name == "seen"
    assert error.diag.constraint_name == "the_key"
    assert error.diag.message_detail is not None
    assert error.diag.message_primary == str(error)
    assert error.diag.source_line is not None
    assert "77" not in str(error)
    with pytest.raises(errors.UndefinedColumn) as other:
        conn.execute("SELECT no_such")
    assert other.value.diag.statement_position == 8


def test_raise_with_a_code_of_ones_own(conn: segue.Connection) -> None:
    with pytest.raises(segue.IntegrityError) as info:
        conn.execute("DO $$ BEGIN RAISE 'no' USING ERRCODE = '23XYZ'; END $$")
    assert info.value.sqlstate == "23XYZ"


@pytest.mark.parametrize("value", ["a\0b", b"bytes in a str\0".decode()])
def test_what_postgresql_cannot_hold_is_refused(conn: segue.Connection, value: str) -> None:
    with pytest.raises(segue.DataError):
        conn.execute("SELECT %s::text", (value,))
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_lone_surrogates_are_refused(conn: segue.Connection) -> None:
    with pytest.raises((segue.Error, UnicodeEncodeError)):
        conn.execute("SELECT %s::text", ("\ud800",))
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_statement_with_a_zero_byte_is_refused(conn: segue.Connection) -> None:
    with pytest.raises(segue.Error):
        conn.execute("SELECT 1\0")
    assert conn.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("statement", ["", " ", "-- nothing", ";"])
def test_statements_of_nothing(conn: segue.Connection, statement: str) -> None:
    cur = conn.execute(statement)
    assert cur.description is None


def test_many_parameters_and_columns(conn: segue.Connection) -> None:
    numbers = list(range(1000))
    marks = ", ".join(["%s::int"] * len(numbers))
    assert conn.execute(f"SELECT {marks}", numbers).fetchone() == tuple(numbers)


def test_too_many_parameters_are_refused(conn: segue.Connection) -> None:
    marks = ", ".join(["%s"] * 70_000)
    with pytest.raises(segue.Error):
        conn.execute(f"SELECT 1 WHERE 1 IN ({marks})", [1] * 70_000)
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_large_value(conn: segue.Connection) -> None:
    data = b"\xff\x00" * 8_000_000
    row = conn.execute("SELECT %s::bytea", (data,)).fetchone()
    assert row is not None
    assert row[0] == data


def test_a_table_that_changes_under_a_prepared_statement(conn: segue.Connection) -> None:
    conn.execute("CREATE TEMP TABLE seen AS SELECT 1 AS id")
    for _ in range(6):
        assert conn.execute("SELECT * FROM seen WHERE id = %s", (1,)).fetchone() == (1,)
    conn.execute("ALTER TABLE seen ADD note text DEFAULT 'new'")
    assert conn.execute("SELECT * FROM seen WHERE id = %s", (1,)).fetchone() == (1, "new")


def test_cursors_do_not_outstay_their_welcome(conn: segue.Connection) -> None:
    cur = conn.execute("SELECT generate_series(1, 1000)")
    gone = weakref.ref(cur)
    del cur
    gc.collect()
    assert gone() is None


def test_representations_say_what_there_is_to_say(conn: segue.Connection, uri: str) -> None:
    assert "IDLE" in repr(conn)
    cur = conn.execute("SELECT 1")
    assert "SELECT 1" in repr(cur)
    cur.close()
    assert "closed" in repr(cur)
    other = segue.connect(uri)
    other.close()
    assert "CLOSED" in repr(other)


@pytest.mark.parametrize(
    "conninfo",
    ["postgresql://localhost/?no_such_option=1", "host=localhost port=seven", "nonsense", "host='"],
)
def test_a_wrong_connection_string_is_a_programming_error(conninfo: str) -> None:
    with pytest.raises(segue.ProgrammingError):
        segue.connect(conninfo)


def test_a_secret_never_shows() -> None:
    for text in ("postgresql://me:hunter2@localhost:seven/db", "password=hunter2 port=seven"):
        with pytest.raises(segue.Error) as info:
            segue.connect(text)
        assert "hunter2" not in str(info.value) + repr(info.value)


def test_no_server_there() -> None:
    conninfo = "host=127.0.0.1 port=1 sslmode=disable"
    with pytest.raises(segue.OperationalError, match="refused") as info:
        segue.connect(conninfo, failover_timeout_ms=600_000)
    assert not isinstance(info.value, errors.FailoverTimeout)
    assert info.value.sqlstate == "08001"
    assert isinstance(info.value, segue.OperationalError)
    assert info.value.outcome is segue.Outcome.NOT_COMMITTED
