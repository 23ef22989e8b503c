"""Statements put together from parts, asked of a real server."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import ipaddress
import math
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import segue
import segue.aio
from segue import _segue, sql
from segue.types import Jsonb, Multirange, Range

UTC = datetime.timezone.utc


@pytest.fixture
def conn(uri: str) -> Iterator[segue.Connection]:
    with segue.connect(uri) as conn:
        yield conn


class Color(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        2**31,
        -(2**31),
        -(2**63),
        -(2**63) - 1,
        2**70,
        1.5,
        -2.5e-300,
        math.inf,
        -math.inf,
        decimal.Decimal("-12.50"),
        decimal.Decimal("NaN"),
        "",
        "it's",
        "back\\slash and 'quotes'",
        "\\",
        "%s {} $1 -- /* ü",
        b"",
        bytes(range(256)),
        datetime.date(1, 1, 1),
        datetime.date(9999, 12, 31),
        datetime.time(1, 2, 3, 4),
        datetime.datetime(2026, 2, 3, 4, 5, 6, 7),
        datetime.datetime(2026, 2, 3, 4, 5, 6, 7, UTC),
        datetime.timedelta(days=-3, seconds=4, microseconds=5),
        uuid.UUID(int=7),
        ipaddress.ip_interface("10.0.0.1/8"),
        ipaddress.ip_network("10.0.0.0/8"),
        [1, None, -3],
        [[1, 2], [3, 4]],
        ["a'b", "c\\d", '"', None, "NULL", ""],
        [decimal.Decimal("1.5")],
        [datetime.date(2026, 1, 1)],
        {"a": [1, "it's \\ \""]},
        Range(datetime.date(2026, 1, 1), None),
        Multirange([Range(decimal.Decimal(1), decimal.Decimal(3)), Range(decimal.Decimal(5))]),
    ],
    ids=repr,
)
def test_a_literal_is_what_the_parameter_is(conn: segue.Connection, value: Any) -> None:
    """Of the same value, and of the same type, or of none where the parameter has none."""
    query = sql.SQL("SELECT {0}, pg_typeof({0})::text").format(value)
    found = conn.execute(query).fetchone()
    assert found is not None
    literal, kind = found
    form = _segue.text_form(value)
    if form is not None and form[1] == 0:
        # Such as a str: read as a literal would be, and so is an array of them.
        cast = "text[]" if isinstance(value, list) else "text"
        query = sql.SQL("SELECT {}::{}").format(value, sql.SQL(cast))
        assert conn.execute(query).fetchone() == (value,)
        return
    sent = value
    if form is not None:
        [(sent, of_sent)] = conn.execute("SELECT $1, pg_typeof($1)::text", (value,)).fetchall()
        assert kind == of_sent
    if isinstance(sent, (float, decimal.Decimal)) and math.isnan(sent):
        assert math.isnan(literal)
    else:
        assert literal == sent


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text(conn: segue.Connection, text: str) -> None:
    for setting in ("on", "off"):
        conn.execute(f"SET standard_conforming_strings = {setting}")
        assert conn.execute(sql.SQL("SELECT {}").format(text)).fetchone() == (text,)
        if text and len(text.encode()) < 64:
            named = sql.SQL("SELECT 1 AS {}").format(sql.Identifier(text))
            cur = conn.execute(named)
            assert cur.description is not None
            assert cur.description[0].name == text


def test_a_statement(conn: segue.Connection) -> None:
    table = sql.Identifier("pg_temp", 'odd "name"; --')
    names = ["id", "Owner"]
    conn.execute(
        sql.SQL("CREATE TEMP TABLE {} (id int DEFAULT {}, {} text)").format(
            sql.Identifier('odd "name"; --'), 7, sql.Identifier("Owner")
        )
    )
    insert = sql.SQL("INSERT INTO {table} ({fields}) VALUES ({places})").format(
        table=table,
        fields=sql.SQL(", ").join(map(sql.Identifier, names)),
        places=sql.SQL(", ").join(sql.Placeholder(name) for name in names),
    )
    conn.execute(insert, {"id": 1, "Owner": "Ada"})
    conn.cursor().executemany(
        sql.SQL("INSERT INTO {} VALUES ({})").format(
            table, sql.Composed([sql.Placeholder()] * 2).join(", ")
        ),
        [(2, "Grace"), (3, "Barbara")],
    )
    with conn.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(table)) as copy:
        copy.write_row((4, "Edsger"))
    query = sql.SQL("SELECT {} FROM {} ORDER BY 1").format(sql.Identifier("Owner"), table)
    assert conn.execute(query).fetchall() == [("Ada",), ("Barbara",), ("Edsger",), ("Grace",)]
    rows = conn.cursor().stream(query + sql.SQL(" LIMIT {}").format(1))
    assert list(rows) == [("Ada",)]


def test_the_asyncio_face_takes_it(uri: str) -> None:
    async def main() -> None:
        async with await segue.aio.connect(uri) as conn:
            cur = await conn.execute(sql.SQL("SELECT {} + {}").format(1, sql.Placeholder()), (2,))
            assert await cur.fetchone() == (3,)

    asyncio.run(main())


def test_submissions_take_it(uri: str) -> None:
    with segue.Client(uri) as client:
        ticket = client.submit([(sql.SQL("SELECT {} WHERE %s > 0").format("it's"), (1,))])
        done = ticket.wait(60)
    assert done is not None
    assert done.rows == (1,)


def test_texts() -> None:
    assert sql.SQL("a {} b {} {{}}").format(1, sql.NULL).as_string() == "a 1 b NULL {}"
    assert sql.SQL("{1} {0}").format(sql.SQL("a"), sql.SQL("b")).as_string(None) == "b a"
    assert sql.SQL("{x}{x}").format(x=-1).as_bytes() == b" -1 -1"
    assert (sql.SQL("a") + sql.SQL("b") + sql.Identifier("c")).as_string() == 'ab"c"'
    assert (sql.SQL("a") + (sql.SQL("b") + sql.SQL("c"))).as_string() == "abc"
    assert (sql.SQL("a") * 3).join(", ").as_string() == "a, a, a"
    assert (sql.Placeholder() * 2).join(sql.SQL(",")).as_string() == "%s,%s"
    assert sql.Placeholder("n", format="b").as_string() == "%(n)b"
    assert sql.DEFAULT.as_string() == "DEFAULT"
    assert sql.quote("a'b") == "'a''b'"
    assert sql.quote(Jsonb([1])) == "'[1]'::jsonb"
    assert sql.Literal(datetime.date(2026, 1, 2)).as_string() == "'2026-01-02'::date"
    assert sql.Literal(Color.RED).as_string() == "'RED'"
    assert [it.as_string() for it in sql.Composed([1, sql.SQL("x")])] == ["1", "x"]


def test_they_compare_and_show() -> None:
    assert sql.SQL("a") == sql.SQL("a") != sql.SQL("b")
    assert sql.SQL("a") != sql.Identifier("a")
    assert sql.Placeholder("a") != sql.Placeholder("a", "b")
    assert len({sql.Identifier("a"), sql.Identifier("a"), sql.Literal([1])}) == 2
    assert repr(sql.SQL("a {}").format(sql.Identifier("b", "c"))) == (
        "Composed([SQL('a '), Identifier('b', 'c')])"
    )
    assert repr(sql.Placeholder("x", "b")) == "Placeholder('x', format='b')"


def test_mistakes(conn: segue.Connection) -> None:
    for wrong in (
        lambda: sql.SQL(b"x"),  # type: ignore[arg-type]
        lambda: sql.Identifier(),
        lambda: sql.Identifier(1),  # type: ignore[arg-type]
        lambda: sql.Placeholder(1),  # type: ignore[arg-type]
        lambda: sql.Composed([]).join(1),  # type: ignore[arg-type]
        lambda: sql.SQL("a") + "b",  # type: ignore[operator]
        lambda: sql.Composed([]) + "b",  # type: ignore[operator]
    ):
        with pytest.raises(TypeError):
            wrong()
    for text in ("{:d}", "{!r}", "{} {0}", "{0} {}"):
        with pytest.raises(ValueError, match="place"):
            sql.SQL(text).format(1, 2)
    for bad in ({"name": "a)"}, {"format": "x"}):
        with pytest.raises(ValueError, match=r"param|placeholder"):
            sql.Placeholder(**bad)
    with pytest.raises(IndexError):
        sql.SQL("{} {}").format(1)
    with pytest.raises(KeyError):
        sql.SQL("{x}").format(1)
    for name in ("", "a\0b"):
        with pytest.raises(segue.ProgrammingError, match="name"):
            sql.Identifier(name).as_string()
    with pytest.raises(segue.DataError, match="NUL"):
        sql.Literal("a\0").as_string()
    with pytest.raises(segue.ProgrammingError, match="cannot be converted"):
        conn.execute(sql.SQL("SELECT {}").format(object()))
