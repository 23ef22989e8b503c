"""COPY in and out: pieces, rows, formats, and every way to stop in the middle."""

from __future__ import annotations

import asyncio
import datetime
import decimal
from collections.abc import Iterator
from typing import Any

import pytest

import segue
import segue.aio
import segue.types
from segue import _builtin, errors

ROWS = [
    (1, "plain"),
    (2, "tab\tnew\nline\\back\rslash"),
    (3, None),
    (4, ""),
    (5, "\\N"),
    (6, "Ærø€😀"),
]


@pytest.fixture
def cur(uri: str) -> Iterator[segue.Cursor]:
    with segue.connect(uri, autocommit=True) as conn:
        conn.execute("CREATE TEMP TABLE seen (id int, note text)")
        yield conn.cursor()


def rows(cur: segue.Cursor) -> list[tuple[object, ...]]:
    return cur.execute("SELECT id, note FROM seen ORDER BY id").fetchall()


def test_rows_in(cur: segue.Cursor) -> None:
    with cur.copy("COPY seen FROM STDIN") as copy:
        for row in ROWS:
            copy.write_row(row)
    assert cur.rowcount == len(ROWS)
    assert rows(cur) == ROWS


def test_rows_out(cur: segue.Cursor) -> None:
    cur.executemany("INSERT INTO seen VALUES (%s, %s)", ROWS)
    with cur.copy("COPY (SELECT * FROM seen ORDER BY id) TO STDOUT") as copy:
        got = list(copy.rows())
    assert got == [(str(id), note) for id, note in ROWS]


@pytest.mark.parametrize(
    "options",
    [
        "STDIN (FORMAT csv)",
        "STDIN WITH (HEADER, FORMAT 'csv')",
        "STDIN csv",
        "STDIN WITH BINARY",
        "STDIN (FORMAT BINARY)",
        "STDIN (DELIMITER ',')",
        "STDIN DELIMITERS ','",
        "STDIN NULL AS 'nothing'",
    ],
)
def test_rows_of_another_format_are_refused(cur: segue.Cursor, options: str) -> None:
    """A row would be written as text: wrong data, in silence, in CSV."""
    with (
        pytest.raises(segue.ProgrammingError, match="text format"),
        cur.copy(f"COPY seen FROM {options}") as copy,
    ):
        copy.write_row((1, "a"))
    assert rows(cur) == []
    cur.execute("SELECT 1")
    with (
        pytest.raises(segue.ProgrammingError, match="text format"),
        cur.copy(f"COPY seen TO {options.replace('STDIN', 'STDOUT')}") as copy,
    ):
        list(copy.rows())


def test_names_that_look_like_formats(cur: segue.Cursor) -> None:
    cur.execute('CREATE TEMP TABLE csv (csv int, "binary" text, "null" text)')
    with cur.copy('COPY csv (csv, "binary", "null") FROM STDIN WHERE csv > 1') as copy:
        copy.write_row((1, "a", "b"))
        copy.write_row((2, "a", "b"))
    with cur.copy(b"COPY csv TO STDOUT WITH (FORMAT text, ENCODING 'utf8')") as copy:
        assert list(copy.rows()) == [("2", "a", "b")]
    with cur.copy("COPY (SELECT 'from STDIN') TO STDOUT") as copy:
        assert copy.read_row() == ("from STDIN",)


def test_pieces_need_not_end_where_rows_do(cur: segue.Cursor) -> None:
    text = "1,a\n2,b\n3,c\n"
    with cur.copy("COPY seen FROM STDIN (FORMAT csv)") as copy:
        for letter in text:
            copy.write(letter)
    with cur.copy("COPY seen FROM STDIN (FORMAT csv)") as copy:
        copy.write(bytearray(b"4,d\n"))
        copy.write(memoryview(b"5,e\n"))
        copy.write("6,ä\n".encode())
    assert [row[1] for row in rows(cur)] == ["a", "b", "c", "d", "e", "ä"]


def test_binary_out_and_in(cur: segue.Cursor) -> None:
    cur.execute("INSERT INTO seen SELECT id, 'x' FROM generate_series(1, 1000) id")
    with cur.copy("COPY seen TO STDOUT (FORMAT binary)") as copy:
        data = b"".join(copy)
    assert data.startswith(b"PGCOPY\n\xff\r\n\0")
    cur.execute("TRUNCATE seen")
    with cur.copy("COPY seen FROM STDIN (FORMAT binary)") as copy:
        copy.write(data)
    assert len(rows(cur)) == 1000


def test_read_and_read_row(cur: segue.Cursor) -> None:
    cur.executemany("INSERT INTO seen VALUES (%s, %s)", [(1, "a"), (2, None)])
    with cur.copy("COPY (SELECT * FROM seen ORDER BY id) TO STDOUT") as copy:
        assert copy.read_row() == ("1", "a")
        assert copy.read() == b"2\t\\N\n"
        assert copy.read() == b""
        assert copy.read() == b""


def test_much_data(cur: segue.Cursor) -> None:
    with cur.copy("COPY seen FROM STDIN") as copy:
        for id in range(20_000):
            copy.write_row((id, "x" * 200))
    assert cur.rowcount == 20_000
    with cur.copy("COPY seen TO STDOUT") as copy:
        assert sum(len(piece) for piece in copy) > 20_000 * 200


def test_values_are_written_as_the_server_reads_them(cur: segue.Cursor) -> None:
    values = (
        True,
        decimal.Decimal("1.50"),
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc),
        b"\x00\xff\\",
        [1, None, 3],
        ["a b", '"', "\\", None],
    )
    cur.execute(
        "CREATE TEMP TABLE kinds "
        "(a bool, b numeric, c date, d timestamptz, e bytea, f int[], g text[])"
    )
    with cur.copy("COPY kinds FROM STDIN") as copy:
        copy.write_row(values)
    assert cur.execute("SELECT * FROM kinds").fetchone() == values


def test_an_exception_in_the_block_takes_it_all_back(cur: segue.Cursor) -> None:
    with pytest.raises(ZeroDivisionError), cur.copy("COPY seen FROM STDIN") as copy:
        copy.write_row((1, "a"))
        raise ZeroDivisionError
    assert rows(cur) == []


def test_bad_data_is_the_servers_error(cur: segue.Cursor) -> None:
    with pytest.raises(errors.InvalidTextRepresentation), cur.copy("COPY seen FROM STDIN") as copy:
        copy.write("not a number\tx\n")
    assert rows(cur) == []
    with pytest.raises(errors.BadCopyFileFormat), cur.copy("COPY seen FROM STDIN") as copy:
        copy.write("1\n")
    assert rows(cur) == []


def test_bad_data_ends_a_long_copy(cur: segue.Cursor) -> None:
    with pytest.raises(segue.DataError), cur.copy("COPY seen FROM STDIN") as copy:
        copy.write("not a number\tx\n")
        for id in range(200_000):
            copy.write_row((id, "x" * 100))
    assert rows(cur) == []


def test_leaving_early(cur: segue.Cursor) -> None:
    with cur.copy("COPY (SELECT * FROM generate_series(1, 100000)) TO STDOUT") as copy:
        assert copy.read() == b"1\n"
    assert cur.execute("SELECT 1").fetchone() == (1,)


def test_a_copy_of_nothing(cur: segue.Cursor) -> None:
    with cur.copy("COPY seen FROM STDIN"):
        pass
    assert rows(cur) == []
    with cur.copy("COPY seen TO STDOUT") as copy:
        assert list(copy) == []


def test_misuse(cur: segue.Cursor) -> None:
    with cur.copy("COPY seen FROM STDIN") as copy, pytest.raises(segue.ProgrammingError):
        copy.read()
    with cur.copy("COPY seen TO STDOUT") as copy, pytest.raises(segue.ProgrammingError):
        copy.write(b"1")
    with pytest.raises(segue.InterfaceError):
        copy.write(b"1")
    with pytest.raises(segue.ProgrammingError), cur.copy("SELECT 1"):
        pass
    with pytest.raises(segue.ProgrammingError), cur.copy("COPY no_such FROM STDIN"):
        pass
    with pytest.raises(segue.Error):
        cur.execute("COPY seen FROM STDIN")
    assert cur.execute("SELECT 1").fetchone() == (1,)


def test_copy_in_a_transaction(cur: segue.Cursor) -> None:
    with pytest.raises(ZeroDivisionError), cur.connection.transaction():
        with cur.copy("COPY seen FROM STDIN") as copy:
            copy.write_row((1, "a"))
        assert rows(cur) == [(1, "a")]
        raise ZeroDivisionError
    assert rows(cur) == []


# Parameters, which are written into the text.


def test_parameters(cur: segue.Cursor) -> None:
    cur.executemany("INSERT INTO seen VALUES (%s, %s)", ROWS)
    query = "COPY (SELECT note, %s, 1 %% 2 FROM seen WHERE note = %s) TO STDOUT"
    with cur.copy(query, (datetime.date(2026, 1, 2), "plain")) as copy:
        assert list(copy.rows()) == [("plain", "2026-01-02", "1")]
    query = "COPY (SELECT %(a)s || %(a)s) TO STDOUT (DELIMITER %(d)s)"
    with cur.copy(query, {"a": "it's \\ %s $1", "d": "|"}) as copy:
        assert copy.read() == b"it's \\\\ %s $1it's \\\\ %s $1\n"
    with cur.copy("COPY seen FROM STDIN (NULL %s)", ["-"]) as copy:
        copy.write("99\t-\n")
    assert (99, None) in rows(cur)
    # Without parameters a percent sign is what it is.
    with cur.copy("COPY (SELECT '%s' WHERE 5 % 2 = 1) TO STDOUT") as copy:
        assert copy.read() == b"%s\n"


@pytest.mark.parametrize(
    ("query", "params", "told"),
    [
        ("COPY (SELECT %s) TO STDOUT", (), "takes 1 parameters, 0"),
        ("COPY (SELECT %s) TO STDOUT", (1, 2), "takes 1 parameters, 2"),
        ("COPY (SELECT %(a)s) TO STDOUT", {}, "no parameter a"),
        ("COPY (SELECT %(a)s) TO STDOUT", (1,), "mapping"),
        ("COPY (SELECT %s) TO STDOUT", {"a": 1}, "mapping"),
        ("COPY (SELECT 1 % 2) TO STDOUT", (), "only %s"),
        ("COPY (SELECT 1) TO STDOUT %", (), "only %s"),
        ("COPY (SELECT %s) TO STDOUT", "a", "sequence or a mapping"),
        ("COPY (SELECT %s) TO STDOUT", (object(),), "cannot be converted"),
    ],
)
def test_parameters_that_do_not_fit(cur: segue.Cursor, query: str, params: Any, told: str) -> None:
    with pytest.raises(segue.ProgrammingError, match=told):
        cur.copy(query, params)
    assert rows(cur) == []


# Types.

VALUES = (
    7,
    datetime.date(2026, 1, 2),
    decimal.Decimal("12.50"),
    [1, None, 3],
    b"\x00\\\xff",
    {"a": "tab\t"},
    "tab\t\\",
    True,
    datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
    None,
)
TYPES: list[str | int | segue.types.TypeInfo] = [
    *("integer", "date", "numeric", "int4[]", "bytea", "jsonb", 25, "boolean", "timestamptz"),
    "uuid",
]
SELECT = """COPY (SELECT 7, '2026-01-02'::date, 12.50, '{1,NULL,3}'::int4[], '\\x005cff'::bytea,
    '{"a": "tab\\t"}'::jsonb, E'tab\\t\\\\', true,
    '2026-01-02 03:04:05+00'::timestamptz, NULL::uuid) TO STDOUT"""


def test_rows_with_types(cur: segue.Cursor) -> None:
    with cur.copy(SELECT) as copy:
        copy.set_types(TYPES)
        assert list(copy.rows()) == [VALUES]
    with cur.copy(SELECT) as copy:
        copy.set_types(TYPES)
        assert copy.read_row() == VALUES
        assert copy.read_row() is None


def test_rows_with_types_for_asyncio(uri: str) -> None:
    async def main() -> None:
        async with await segue.aio.connect(uri) as conn, conn.cursor().copy(SELECT) as copy:
            copy.set_types(TYPES)
            assert [row async for row in copy.rows()] == [VALUES]

    asyncio.run(main())


def test_types_that_do_not_fit(cur: segue.Cursor) -> None:
    with cur.copy("COPY (SELECT 1) TO STDOUT") as copy:
        with pytest.raises(segue.ProgrammingError, match="no built-in type 'mood'"):
            copy.set_types(["mood"])
        copy.set_types(["int4", "int4"])
        with pytest.raises(segue.DataError, match="1 columns"):
            copy.read_row()
    with cur.copy("COPY (SELECT 'x') TO STDOUT") as copy:
        copy.set_types(["int4"])
        with pytest.raises(segue.DataError):
            copy.read_row()


def test_types_of_the_database_s_own(cur: segue.Cursor) -> None:
    cur.execute("CREATE TYPE pg_temp.pair AS (a int, b text)")
    info = segue.types.TypeInfo.fetch(cur.connection, "pair")
    assert info is not None
    segue.types.register_composite(cur.connection, info)
    with cur.copy("COPY (SELECT ROW(1, 'x')::pair) TO STDOUT") as copy:
        copy.set_types([info])
        [(pair,)] = copy.rows()
    assert (pair.a, pair.b) == (1, "x")


def test_the_names_of_types(cur: segue.Cursor) -> None:
    """They are the server's, and so are their numbers."""
    for name, (oid, array) in _builtin.TYPES.items():
        cur.execute("SELECT %s::regtype::oid, typarray FROM pg_type WHERE oid = %s", (name, oid))
        assert cur.fetchone() == (oid, array)
    for alias in _builtin.ALIASES:
        cur.execute("SELECT %s::regtype::oid, (%s || '[]')::regtype::oid", (alias, alias))
        assert cur.fetchone() == (_builtin.oid_of(alias), _builtin.oid_of(f"{alias}[]"))
