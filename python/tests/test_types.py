"""Values to the server and back, all types, by properties; and what has no Python form."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import ipaddress
import json
import math
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import segue
from segue.types import (
    Hstore,
    Json,
    Jsonb,
    Multirange,
    Range,
    TypeInfo,
    register_composite,
    register_dumper,
    register_enum,
    register_loader,
    register_range,
)

relaxed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def conn(cluster: Any) -> Iterator[segue.Connection]:
    connection = segue.connect(cluster.uri, autocommit=True)
    yield connection
    connection.close()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, decimal.Decimal) and isinstance(other, decimal.Decimal):
        return one == other or (one.is_nan() and other.is_nan())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def round_trip(conn: segue.Connection, value: Any, pg_type: str) -> None:
    """By parameter and back: in binary, and as text in a string of several statements."""
    found = conn.execute(f"SELECT %s::{pg_type}", (value,)).fetchone()
    assert same(found[0], value), (found[0], value)
    text = conn.execute(f"SELECT (%s::{pg_type})::text", (value,)).fetchone()[0]
    if text is None:
        return
    literal = text.replace("'", "''")
    cursor = conn.execute(f"SELECT E'{literal.replace(chr(92), chr(92) * 2)}'::{pg_type}; SELECT 1")
    assert same(cursor.fetchone()[0], value), (text, value)


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
ints = {"int2": (-(2**15), 2**15 - 1), "int4": (-(2**31), 2**31 - 1), "int8": (-(2**63), 2**63 - 1)}
naive = st.datetimes()
aware = st.datetimes(
    dt.datetime(1, 1, 3), dt.datetime(9999, 12, 29), timezones=st.just(dt.timezone.utc)
)
deltas = st.timedeltas(dt.timedelta(days=-300000), dt.timedelta(days=300000))
numerics = (
    st.decimals(allow_nan=True, allow_infinity=True)
    .filter(lambda d: not d.is_snan())
    .map(lambda d: d.quantize(decimal.Decimal(1)) if d.is_finite() and d.adjusted() < -1000 else d)
)
numerics = st.one_of(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=8, min_value=-(10**18), max_value=10**18
    ),
    st.integers(-(10**60), 10**60).map(decimal.Decimal),
    st.sampled_from(
        [decimal.Decimal(x) for x in ("NaN", "Infinity", "-Infinity", "1E+30", "1E-30")]
    ),
)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    **{name: st.integers(*bounds) for name, bounds in ints.items()},
    "float8": st.floats(),
    "float4": st.floats(width=32),
    "numeric": numerics,
    "text": text,
    "varchar": text,
    "bytea": st.binary(max_size=60),
    "bool": st.booleans(),
    "date": st.dates(),
    "time": st.times(),
    "timestamp": naive,
    "timestamptz": aware,
    "interval": deltas,
    "uuid": st.uuids(),
    "oid": st.integers(0, 2**32 - 1),
    "inet": st.ip_addresses(),
}


@pytest.mark.parametrize("pg_type", SCALARS)
def test_scalars(conn: segue.Connection, pg_type: str) -> None:
    @relaxed
    @given(value=st.none() | SCALARS[pg_type])
    def check(value: Any) -> None:
        if pg_type == "float4" and isinstance(value, float):
            found = conn.execute("SELECT %s::float4", (value,)).fetchone()[0]
            assert same(found, value)
            return
        round_trip(conn, value, pg_type)

    check()


ARRAYS = [name for name in SCALARS if name not in ("float4", "oid")]


@pytest.mark.parametrize("pg_type", ARRAYS)
def test_arrays(conn: segue.Connection, pg_type: str) -> None:
    element = st.none() | SCALARS[pg_type]
    nested = st.tuples(st.integers(1, 3), st.integers(1, 3)).flatmap(
        lambda shape: st.lists(
            st.lists(element, min_size=shape[1], max_size=shape[1]),
            min_size=shape[0],
            max_size=shape[0],
        )
    )

    @relaxed
    @given(value=st.lists(element, max_size=5) | nested)
    def check(value: Any) -> None:
        round_trip(conn, value, f"{pg_type}[]")

    check()


@pytest.mark.parametrize("pg_type", ["json", "jsonb"])
def test_json(conn: segue.Connection, pg_type: str) -> None:
    wrapper = Json if pg_type == "json" else Jsonb

    @relaxed
    @given(value=jsons)
    def check(value: Any) -> None:
        if pg_type == "jsonb" and "\\u0000" in json.dumps(value):
            return
        found = conn.execute(f"SELECT %s::{pg_type}", (wrapper(value),)).fetchone()[0]
        assert found == value
        several = conn.execute(f"SELECT %s::{pg_type}", (wrapper([value]),))
        assert several.fetchone()[0] == [value]

    check()


RANGES: dict[str, st.SearchStrategy[Any]] = {
    "int4range": st.integers(-(2**31), 2**31 - 2),
    "int8range": st.integers(-(2**63), 2**63 - 2),
    "numrange": st.decimals(-1000, 1000, places=3),
    "daterange": st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 30)),
    "tsrange": naive,
    "tstzrange": aware,
}


@pytest.mark.parametrize("pg_type", RANGES)
def test_ranges(conn: segue.Connection, pg_type: str) -> None:
    discrete = pg_type in ("int4range", "int8range", "daterange")
    bound = st.none() | RANGES[pg_type]

    def ordered(pair: tuple[Any, Any, str]) -> Range[Any]:
        lower, upper, bounds = pair
        if lower is not None and upper is not None and upper < lower:
            lower, upper = upper, lower
        if lower is not None and lower == upper:
            return Range(empty=True)
        return Range(lower, upper, "[)" if discrete else bounds)

    ranges = st.tuples(bound, bound, st.sampled_from(["[]", "[)", "(]", "()"])).map(ordered)

    @relaxed
    @given(value=ranges)
    def check(value: Range[Any]) -> None:
        round_trip(conn, value, pg_type)

    check()

    @relaxed
    @given(value=st.lists(ranges, max_size=3))
    def check_many(value: list[Range[Any]]) -> None:
        multi = pg_type.replace("range", "multirange")
        # What the server makes of it (sorted, merged) comes back as it is.
        found = conn.execute(f"SELECT %s::{multi}", (Multirange(value),)).fetchone()[0]
        assert isinstance(found, Multirange)
        round_trip(conn, found, multi)

    check_many()


def test_time_with_zone(conn: segue.Connection) -> None:
    for minutes in (0, 60, -330, 719):
        value = dt.time(1, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(minutes=minutes)))
        round_trip(conn, value, "timetz")


def test_networks(conn: segue.Connection) -> None:
    round_trip(conn, ipaddress.ip_network("10.0.0.0/8"), "cidr")
    round_trip(conn, ipaddress.ip_network("fe80::/64"), "cidr")
    round_trip(conn, ipaddress.ip_interface("10.1.2.3/8"), "inet")
    round_trip(conn, [ipaddress.ip_address("::1"), None], "inet[]")


@pytest.mark.parametrize(
    "expression",
    [
        "'infinity'::date",
        "'-infinity'::timestamp",
        "'infinity'::timestamptz",
        "'0001-01-01 BC'::date",
        "'10000-01-01'::timestamp",
        "'24:00'::time",
        "'4000000 years'::interval",
        "ARRAY['infinity'::date]",
    ],
)
def test_what_python_cannot_hold_says_so(conn: segue.Connection, expression: str) -> None:
    with pytest.raises(segue.DataError):
        conn.execute(f"SELECT {expression}").fetchone()
    with pytest.raises(segue.DataError):
        conn.execute(f"SELECT {expression}; SELECT 1").fetchone()
    # As text it is no trouble.
    assert conn.execute(f"SELECT ({expression})::text").fetchone()[0]


def test_the_session_s_time_zone(cluster: Any) -> None:
    with segue.connect(cluster.uri, autocommit=True) as conn:
        conn.execute("SET TimeZone = 'Europe/Rome'")
        value = conn.execute("SELECT '2024-07-01 12:00+00'::timestamptz").fetchone()[0]
        assert value.isoformat() == "2024-07-01T14:00:00+02:00"
        assert str(value.tzinfo) == "Europe/Rome"
        several = conn.execute("SELECT '2024-07-01 12:00+00'::timestamptz; SELECT 1")
        assert several.fetchone()[0] == value
        conn.execute("SET TimeZone = 'UTC'")
        value = conn.execute("SELECT '2024-07-01 12:00+00'::timestamptz").fetchone()[0]
        assert value.tzinfo is dt.timezone.utc


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "integer"),
        (2**31, "bigint"),
        (2**63, "numeric"),
        (1.5, "double precision"),
        (True, "boolean"),
        (b"x", "bytea"),
        ([1], "integer[]"),
        ([2**40, 1], "bigint[]"),
        ([1, 2.5], "double precision[]"),
        ({"a": 1}, "jsonb"),
        (uuid.UUID(int=1), "uuid"),
        (Range(decimal.Decimal(1), None), "numrange"),
        (dt.timedelta(1), "interval"),
    ],
)
def test_types_announced(conn: segue.Connection, value: Any, expected: str) -> None:
    assert conn.execute("SELECT pg_typeof(%s)::text", (value,)).fetchone()[0] == expected


def test_integers_fit_wherever_sql_takes_them(conn: segue.Connection) -> None:
    row = conn.execute(
        "SELECT %s::int2, current_date + %s = current_date + 1, repeat('a', %s), %s::numeric, "
        "(SELECT relname FROM pg_class WHERE oid = %s), substr('abc', %s)",
        (1, 1, 3, 5, 1259, 2),
    ).fetchone()
    assert row == (1, True, "aaa", 5, "pg_class", "bc")


def test_bad_values_are_refused_before_anything_is_sent(cluster: Any) -> None:
    with segue.connect(cluster.uri) as conn:
        conn.execute("CREATE TEMP TABLE still_open (a int)")
        for value, error in [
            ("a\0b", segue.DataError),
            ("\ud800", segue.DataError),
            ([[1], [1, 2]], segue.DataError),
            ([1, "a"], segue.DataError),
            (object(), segue.ProgrammingError),
        ]:
            with pytest.raises(error):
                conn.execute("SELECT %s", (value,))
        assert conn.execute("SELECT count(*) FROM still_open").fetchone() == (0,)


def test_unknown_types_are_text(conn: segue.Connection) -> None:
    row = conn.execute(
        "SELECT 'pg_class'::regclass, '1.50'::money, '(1,2)'::point, 'a:1'::tsvector, 5, "
        "ARRAY['(1,2)'::point], (SELECT relacl FROM pg_class WHERE relname = 'pg_class')"
    ).fetchone()
    assert row[:1] == ("pg_class",)
    assert row[2:6] == ("(1,2)", "'a':1", 5, ["(1,2)"])
    assert isinstance(row[6], list)


class Mood(enum.Enum):
    SAD = "sad"
    HAPPY = "happy"


def test_types_of_the_database_s_own(cluster: Any) -> None:
    with segue.connect(cluster.uri, autocommit=True) as conn:
        conn.execute(
            "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN percent AS int;"
            "CREATE TYPE pair AS (a int, b text, m mood, l numeric[]);"
            "CREATE TYPE moods AS RANGE (subtype = float8); CREATE DOMAIN shown AS pair"
        )
        row = conn.execute(
            "SELECT 'sad'::mood, ARRAY['sad', 'happy']::mood[], 5::percent, ARRAY[5::percent], "
            "(1, 'x', 'sad', '{1.5}')::pair, ARRAY[(1, NULL, NULL, NULL)::pair], moods(1, 2)"
        ).fetchone()
        assert row[:4] == ("sad", ["sad", "happy"], 5, [5])
        pair = row[4]
        assert pair == (1, "x", "sad", [decimal.Decimal("1.5")])
        assert (pair.a, pair.m) == (1, "sad")
        assert row[5] == [(1, None, None, None)]
        assert row[6] == Range(1.0, 2.0)

        register_enum(conn, "mood", Mood)
        found = conn.execute("SELECT %s, ARRAY['happy']::mood[]", (Mood.SAD,)).fetchone()
        assert found == (Mood.SAD, [Mood.HAPPY])
        assert conn.execute("SELECT %s", ([Mood.SAD, None],)).fetchone()[0] == '{"sad",NULL}'
        assert conn.execute("SELECT %s::mood[]", ([Mood.SAD],)).fetchone() == ([Mood.SAD],)

        register_composite(conn, "pair", lambda a, b, m, n: {"a": a, "b": b})
        assert conn.execute("SELECT (1, 'x', 'sad', '{1.5}')::pair").fetchone() == (
            {"a": 1, "b": "x"},
        )
        assert conn.execute("SELECT (%s::pair).b", ((1, 'q"\\,', None, None),)).fetchone() == (
            'q"\\,',
        )
        register_range(conn, "moods")
        assert conn.execute("SELECT %s::moods", (Range(1.5, None),)).fetchone() == (
            Range(1.5, None),
        )
        register_loader(conn, "point", lambda text: complex(*map(float, text[1:-1].split(","))))
        assert conn.execute("SELECT '(1,2)'::point").fetchone() == (1 + 2j,)
        register_dumper(complex, 600, lambda c: f"({c.real},{c.imag})")
        assert conn.execute("SELECT %s <-> '(0,0)'", (3 + 4j,)).fetchone() == (5.0,)
        assert TypeInfo.fetch(conn, "no_such_type") is None
        with pytest.raises(segue.ProgrammingError):
            register_range(conn, "no_such_type")


def test_records(conn: segue.Connection) -> None:
    row = conn.execute("SELECT ROW(1, 'a', NULL, ROW(2.5)), ARRAY[ROW(1)]").fetchone()
    assert row == ((1, "a", None, (decimal.Decimal("2.5"),)), [(1,)])


def test_hstore(cluster: Any) -> None:
    with segue.connect(cluster.uri, autocommit=True) as conn:
        try:
            conn.execute("CREATE EXTENSION IF NOT EXISTS hstore")
        except segue.Error as error:
            pytest.skip(f"the server has no hstore: {error}")
        for value in ({}, {"a": "1", 'b"\\': None, "c,=>": 'x"'}):
            round_trip(conn, Hstore(value), "hstore")
            assert conn.execute("SELECT %s::hstore", (Hstore(value),)).fetchone()[0] == value


def test_json_is_pluggable(cluster: Any) -> None:
    with segue.connect(cluster.uri, autocommit=True) as conn:
        conn.set_json(loads=lambda text: ("loaded", text), dumps=lambda value: '"dumped"')
        found = conn.execute("SELECT %s::jsonb", ({"a": 1},)).fetchone()[0]
        assert found == ("loaded", '"dumped"')
        own = Jsonb(5, dumps=lambda value: "[5]")
        assert conn.execute("SELECT %s", (own,)).fetchone()[0] == ("loaded", "[5]")


def test_char_in_quotes_is_a_byte_as_postgresql_writes_it(conn: segue.Connection) -> None:
    # The catalogue has them, and many ask it whether such a column is ''.
    query = """SELECT ''::"char", 'x'::"char", '\\377'::"char", ARRAY['', 'y']::"char"[]"""
    assert conn.execute(query).fetchone() == ("", "x", "\\377", ["", "y"])
