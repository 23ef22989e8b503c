"""Large results, whose rows are made while they arrive, and values that are made in short ways."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import gc
import ipaddress
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

import segue
from segue import aio, errors

ROWS = 20_000


@pytest.fixture
def conn(uri: str) -> Iterator[segue.Connection]:
    with segue.connect(uri, autocommit=True) as conn:
        yield conn


Fetch = Callable[[str], "list[tuple[Any, ...]]"]


@pytest.fixture(params=["threads", "asyncio"])
def fetch(request: pytest.FixtureRequest, uri: str) -> Iterator[Fetch]:
    """Fetch all rows, in both ways."""
    if request.param == "threads":
        with segue.connect(uri, autocommit=True) as conn:
            yield lambda query: conn.execute(query).fetchall()
        return

    async def main(query: str) -> list[tuple[Any, ...]]:
        async with await aio.connect(uri, autocommit=True) as conn:
            return await (await conn.execute(query)).fetchall()

    yield lambda query: asyncio.run(main(query))


def test_rows_are_whole_and_in_order(fetch: Fetch) -> None:
    rows = fetch(
        "SELECT i, nullif(repeat('x', i % 50), ''), (i / 100.0)::numeric(12, 2), "
        f"date '2020-01-01' + i % 3000 FROM generate_series(1, {ROWS}) i"
    )
    day = datetime.date(2020, 1, 1)
    assert rows == [
        (i, "x" * (i % 50) or None, Decimal(i) / 100, day + datetime.timedelta(i % 3000))
        for i in range(1, ROWS + 1)
    ]


@pytest.mark.parametrize("bad", [1, 700, 2000, ROWS - 1, ROWS])
def test_a_value_that_has_no_python_object(conn: segue.Connection, bad: int) -> None:
    """The rows before and behind it can be had, and the error comes with the row."""
    cur = conn.execute(
        f"SELECT i, CASE i WHEN {bad} THEN 'infinity' ELSE date '2020-01-01' END "
        f"FROM generate_series(1, {ROWS}) i"
    )
    assert cur.rowcount == ROWS
    assert [i for i, _ in cur.fetchmany(bad - 1)] == list(range(1, bad))
    with pytest.raises(errors.DataError, match="infinity"):
        cur.fetchone()
    assert [i for i, _ in cur.fetchall()] == list(range(bad + 1, ROWS + 1))
    if bad > 1:
        cur.scroll(0, "absolute")
        assert cur.fetchone() == (1, datetime.date(2020, 1, 1))


def test_an_error_of_the_server_amid_the_rows(fetch: Fetch) -> None:
    with pytest.raises(errors.DivisionByZero):
        fetch(f"SELECT i, 1 / ({ROWS} - i) FROM generate_series(1, {ROWS}) i")


def test_types_that_are_made_in_python(fetch: Fetch) -> None:
    rows = fetch(
        "SELECT i, inet '10.0.0.0' + i, jsonb_build_object('i', i) FROM generate_series(1, 5000) i"
    )
    ten = ipaddress.ip_address("10.0.0.0")
    assert rows == [(i, ten + i, {"i": i}) for i in range(1, 5001)]


def test_several_large_results(conn: segue.Connection) -> None:
    cur = conn.execute(
        "SELECT i FROM generate_series(1, 3000) i; SELECT i, i FROM generate_series(1, 4000) i"
    )
    assert cur.fetchall() == [(i,) for i in range(1, 3001)]
    assert cur.nextset()
    assert cur.fetchall() == [(i, i) for i in range(1, 4001)]


def test_other_threads_run_meanwhile(conn: segue.Connection) -> None:
    """Another thread that never lets go of the GIL by itself gets its turns, and so do we."""
    turns = 0
    done = threading.Event()

    def work() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        before = turns
        rows = conn.execute(f"SELECT i, 'x' FROM generate_series(1, {ROWS}) i").fetchall()
        assert turns > before
    finally:
        done.set()
        worker.join()
    assert rows[-1] == (ROWS, "x")


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(conn: segue.Connection, enabled: bool) -> None:
    try:
        (gc.enable if enabled else gc.disable)()
        conn.execute(f"SELECT i FROM generate_series(1, {ROWS}) i").fetchall()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


NUMBERS = [
    *("0", "0.00", "1", "-1", "12.34", "-0.0001", "10000", "100000000", "0.00012000"),
    *("999999999999999999", "1000000000000000000", "123456789012345678.9", "1E+30", "1E-30"),
    *("99999999999999.9999", "0.99999999999999999999", "0.000000000000000000001", "-12345678.12"),
]


@pytest.mark.parametrize(
    "context",
    [
        decimal.Context(),
        decimal.Context(prec=3),
        decimal.Context(prec=28, Emax=5, Emin=-1),
        decimal.Context(prec=28, clamp=1),
        decimal.Context(prec=3, traps=[decimal.Inexact, decimal.Rounded, decimal.FloatOperation]),
    ],
)
def test_numbers_are_exact_in_any_decimal_context(
    conn: segue.Connection, context: decimal.Context
) -> None:
    array = ",".join(NUMBERS)
    query = f"SELECT x FROM unnest('{{{array}}}'::numeric[]) x"
    with decimal.localcontext(context) as local:
        local.clear_flags()
        found = conn.execute(f"SELECT x, x::text FROM ({query}) q").fetchall()
        assert not any(local.flags.values())
    assert [text for _, text in found] == [f"{Decimal(number):f}" for number in NUMBERS]
    for number, text in found:
        assert number.as_tuple() == Decimal(text).as_tuple()


def test_a_uuid_is_a_plain_one(conn: segue.Connection) -> None:
    value = uuid.uuid4()
    for expected in (value, uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)):
        row = conn.execute("SELECT %s::uuid", (expected,)).fetchone()
        assert row is not None
        found = row[0]
        assert type(found) is uuid.UUID
        assert (found, hash(found), str(found)) == (expected, hash(expected), str(expected))
        assert found.is_safe is uuid.SafeUUID.unknown
        assert pickle.loads(pickle.dumps(found)) == expected
        with pytest.raises(TypeError):
            found.int = 1  # type: ignore[misc]


class Refused(Exception):
    pass


@pytest.mark.parametrize("face", ["threads", "asyncio"])
@pytest.mark.parametrize("bad", ["parameter", "source", "server"])
def test_many_sets_of_which_one_is_bad(uri: str, face: str, bad: str) -> None:
    """Those before it are on their way by then: nothing of them stays."""

    def sets() -> Iterator[tuple[Any, str]]:
        for i in range(6000):
            if i == 4500 and bad == "parameter":
                yield object(), "x"
            if i == 4500 and bad == "source":
                raise Refused
            yield (0 if i == 4500 and bad == "server" else i), "x" * 20

    expected = {
        "parameter": segue.ProgrammingError,
        "source": Refused,
        "server": errors.UniqueViolation,
    }[bad]
    insert = "INSERT INTO many_sets VALUES (%s, %s)"
    count = "SELECT count(*) FROM many_sets"
    with segue.connect(uri, autocommit=True) as conn:
        conn.execute("CREATE TABLE many_sets (i int PRIMARY KEY, x text)")
        try:
            if face == "threads":
                with pytest.raises(expected):
                    conn.cursor().executemany(insert, sets())
                assert conn.execute(count).fetchone() == (0,)
            else:

                async def main() -> None:
                    async with await aio.connect(uri, autocommit=True) as conn:
                        with pytest.raises(expected):
                            await conn.cursor().executemany(insert, sets())
                        assert await (await conn.execute(count)).fetchone() == (0,)
                        good = [(i, "x") for i in range(6000)]
                        cur = conn.cursor()
                        await cur.executemany(insert, good)
                        assert cur.rowcount == 6000
                        assert await (await conn.execute(count)).fetchone() == (6000,)

                asyncio.run(main())
        finally:
            conn.execute("DROP TABLE many_sets")
