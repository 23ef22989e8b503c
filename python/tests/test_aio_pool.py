"""`segue.aio.Pool` with real servers, on both kinds of event loops. Its books: test_pool.py."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiotools import LOOPS, run, until_asleep

import segue
from segue import aio, errors
from segue.errors import PoolClosed, PoolFull, PoolTimeout
from segue.rows import dict_row
from segue.testing import Cluster


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@asynccontextmanager
async def pool_of(uri: str, *args: Any, **options: Any) -> AsyncIterator[aio.Pool]:
    async with aio.Pool(uri, *args, **options) as pool:
        await pool.wait()
        yield pool


async def eventually(condition: Callable[[], object], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.01)


async def value_of(conn: aio.AsyncConnection, query: str) -> Any:
    row = await (await conn.execute(query)).fetchone()
    assert row is not None
    return row[0]


def test_a_block_commits_or_rolls_back(segue_cluster: Cluster, loop: str) -> None:
    async def main() -> None:
        async with pool_of(segue_cluster.uri, min_size=1) as pool:
            async with pool.connection() as conn:
                await conn.execute("CREATE TABLE work (id int)")
                await conn.execute("INSERT INTO work VALUES (1)")
            with pytest.raises(ZeroDivisionError):
                async with pool.connection() as again:
                    assert again is conn
                    await again.execute("INSERT INTO work VALUES (2)")
                    raise ZeroDivisionError
            with pytest.raises(errors.TransactionFailed):
                async with pool.connection() as conn:
                    with pytest.raises(errors.DivisionByZero):
                        await conn.execute("SELECT 1/0")
            async with pool.connection() as conn:
                assert conn is again
                cur = await conn.execute("SELECT id FROM work")
                assert await cur.fetchall() == [(1,)]
            stats = pool.stats()
            assert (stats.size, stats.idle, stats.requests, stats.in_use) == (1, 1, 4, 0)
            assert stats.as_dict()["connections_made"] == 1

    run(main(), loop)


def test_it_takes_what_connect_takes(uri: str, loop: str) -> None:
    class Cursor(aio.AsyncCursor):
        pass

    async def main() -> None:
        async with (
            pool_of(
                uri,
                min_size=1,
                autocommit=True,
                row_factory=dict_row,
                cursor_factory=Cursor,
                writes=False,
                application_name="pooled",
                name="mine",
            ) as pool,
            pool.connection() as conn,
        ):
            assert pool.name == "mine"
            assert conn.autocommit
            cur = await conn.execute("SELECT current_setting('application_name') AS name")
            assert isinstance(cur, Cursor)
            assert await cur.fetchone() == {"name": "pooled"}
            assert pool.client.number == conn.client.number
            assert repr(pool) == "<segue.aio.Pool 'mine' [1 of 10]>"

    run(main(), loop)


def test_fifty_tasks_through_five(uri: str, loop: str) -> None:
    async def work(pool: aio.Pool, number: int) -> int:
        total = 0
        for _ in range(20):
            async with pool.connection() as conn:
                total += await value_of(conn, f"SELECT {number}")
        return total

    async def main() -> None:
        async with aio.Pool(uri, min_size=0, max_size=5) as pool:
            found = await asyncio.gather(*(work(pool, number) for number in range(50)))
            assert found == [20 * number for number in range(50)]
            stats = pool.stats()
            assert stats.requests == 1000
            # A machine that is busy may still be making the last one.
            assert stats.connections_made + stats.making == 5
            assert stats.in_use == stats.waiting == 0
            assert 0 < stats.wait_longest <= stats.wait_total
            assert stats.requests_queued >= 45

    run(main(), loop)


def test_it_grows_and_shrinks(uri: str, loop: str) -> None:
    async def main() -> None:
        async with pool_of(uri, min_size=1, max_size=4, max_idle=0.3) as pool:
            taken = await asyncio.gather(*(pool.getconn() for _ in range(4)))
            assert len(set(map(id, taken))) == 4
            assert pool.stats().size == 4
            with pytest.raises(PoolTimeout, match="4 of 4"):
                await pool.getconn(timeout=0.05)
            for conn in taken:
                await pool.putconn(conn)
            await eventually(lambda: pool.stats().size == 1)
            stats = pool.stats()
            assert (stats.closed_idle, stats.requests_timed_out, stats.waiting) == (3, 1, 0)
            await eventually(lambda: sum(conn.closed for conn in taken) == 3)
            await pool.resize(3)
            await eventually(lambda: pool.stats().idle == 3)
            assert (pool.min_size, pool.max_size) == (3, 4)

    run(main(), loop)


def test_tasks_are_served_in_turn(uri: str, loop: str) -> None:
    order: list[int] = []

    async def work(pool: aio.Pool, number: int) -> None:
        async with pool.connection() as conn:
            order.append(number)
            await conn.execute("SELECT 1")

    async def main() -> None:
        async with pool_of(uri, min_size=1, max_size=1, max_waiting=8) as pool:
            held = await pool.getconn()
            tasks = [asyncio.create_task(work(pool, number)) for number in range(8)]
            await eventually(lambda: pool.stats().waiting == 8)
            with pytest.raises(PoolFull):
                await pool.getconn()
            assert pool.stats().requests_refused == 1
            await pool.putconn(held)
            await asyncio.gather(*tasks)
        assert order == list(range(8))

    run(main(), loop)


def test_who_is_cancelled_while_waiting_costs_nobody_anything(uri: str, loop: str) -> None:
    order: list[int] = []

    async def work(pool: aio.Pool, number: int) -> None:
        async with pool.connection():
            order.append(number)

    async def main() -> None:
        async with pool_of(uri, min_size=1, max_size=1) as pool:
            held = await pool.getconn()
            tasks = [asyncio.create_task(work(pool, number)) for number in range(6)]
            await eventually(lambda: pool.stats().waiting == 6)
            tasks[2].cancel()
            await eventually(lambda: pool.stats().waiting == 5)
            # This one is cancelled when it has been given the connection, and has not run yet.
            await pool.putconn(held)
            assert pool.stats().waiting == 4
            tasks[0].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [number for number, found in enumerate(results) if found is not None] == [0, 2]
            assert order == [1, 3, 4, 5]
            stats = pool.stats()
            assert (stats.idle, stats.in_use, stats.waiting, stats.size) == (1, 0, 0, 1)

    run(main(), loop)


@pytest.mark.parametrize("seed", range(3))
def test_cancelled_at_any_moment(uri: str, loop: str, seed: int) -> None:
    """Whenever tasks are cancelled, or time out: the pool has all its connections afterwards."""
    rng = random.Random(seed)

    async def work(pool: aio.Pool) -> None:
        async with pool.connection(timeout=rng.choice([0.001, 30])) as conn:
            await conn.execute("SELECT 1")
            await conn.execute(f"SELECT pg_sleep({rng.random() * 0.01})")

    async def main() -> None:
        async with pool_of(uri, min_size=0, max_size=3) as pool:
            for _ in range(10):
                tasks = [asyncio.create_task(work(pool)) for _ in range(20)]
                for task in rng.sample(tasks, 10):
                    await asyncio.sleep(rng.random() * 0.003)
                    task.cancel()
                for found in await asyncio.gather(*tasks, return_exceptions=True):
                    assert found is None or isinstance(found, asyncio.CancelledError | PoolTimeout)
            await eventually(lambda: pool.stats().in_use == 0)
            stats = pool.stats()
            assert stats.waiting == stats.closed_bad == 0
            assert stats.connections_made <= 3
            # No transaction was left open, and no request to cancel hits a stranger.
            taken = await asyncio.gather(*(pool.getconn() for _ in range(3)))
            for conn in taken:
                assert conn.info.transaction_status is segue.TransactionStatus.IDLE
                assert await value_of(conn, "SELECT 7 FROM pg_sleep(0.01)") == 7
                await conn.commit()
                await pool.putconn(conn)

    run(main(), loop)


def test_a_task_that_is_cancelled_ends_at_once(cluster: Cluster, loop: str) -> None:
    """Its connection comes back when the server has cancelled the statement, and is clean."""

    async def main() -> None:
        async with pool_of(
            cluster.uri, min_size=1, max_size=1, application_name="cancelled"
        ) as pool:

            async def work() -> None:
                async with pool.connection() as conn:
                    await conn.execute("SELECT pg_sleep(600)")

            task = asyncio.create_task(work())
            await until_asleep(cluster.primary, "cancelled")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with pool.connection() as conn:
                assert await value_of(conn, "SELECT 1") == 1
            stats = pool.stats()
            assert (stats.connections_made, stats.closed_bad) == (1, 0)

    run(main(), loop)


def test_what_a_timeout_inside_the_block_leaves_is_waited_for(uri: str, loop: str) -> None:
    async def main() -> None:
        async with pool_of(uri, min_size=1, max_size=1, autocommit=True) as pool:
            async with pool.connection() as conn:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(conn.execute("SELECT pg_sleep(600)"), 0.1)
            async with pool.connection() as again:
                assert again is conn
                assert await value_of(again, "SELECT 1") == 1

    run(main(), loop)


def test_old_connections_are_replaced(uri: str, loop: str) -> None:
    async def main() -> None:
        async with pool_of(uri, min_size=2, max_lifetime=0.3) as pool:
            async with pool.connection() as conn:
                pass
            await eventually(lambda: pool.stats().closed_lifetime >= 2 and conn.closed)
            await eventually(lambda: pool.stats().idle == 2)
            held = await pool.getconn()
            await asyncio.sleep(0.4)
            assert await value_of(held, "SELECT 1") == 1
            await held.commit()
            await pool.putconn(held)
            await eventually(lambda: held.closed)

    run(main(), loop)


def test_drain_replaces_all(uri: str, loop: str) -> None:
    async def main() -> None:
        async with pool_of(uri, min_size=2) as pool:
            held = await pool.getconn()
            await pool.drain()
            assert await value_of(held, "SELECT 1") == 1
            await held.commit()
            await eventually(lambda: pool.stats().idle == 1)
            async with pool.connection() as conn:
                assert conn is not held
            await pool.putconn(held)
            await eventually(lambda: held.closed and pool.stats().idle == 2)
            stats = pool.stats()
            assert (stats.closed_drained, stats.connections_made) == (2, 4)

    run(main(), loop)


def test_an_open_transaction_is_rolled_back(
    segue_cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with pool_of(segue_cluster.uri, min_size=1, max_size=1) as pool:
            async with pool.connection() as conn:
                await conn.execute("CREATE TABLE work (id int)")
            conn = await pool.getconn()
            await conn.execute("INSERT INTO work VALUES (1)")
            await pool.putconn(conn)
            conn = await pool.getconn()
            with pytest.raises(errors.UndefinedTable):
                await conn.execute("SELECT 1 FROM nowhere")
            await pool.putconn(conn)
            async with pool.connection() as again:
                assert again is conn
                assert await (await again.execute("SELECT id FROM work")).fetchall() == []

    run(main())
    records = [r for r in caplog.records if r.name == "segue.pool"]
    assert [r.levelno for r in records] == [logging.WARNING] * 2
    assert "transaction open" in records[0].message


def test_misuse_is_told(uri: str, loop: str) -> None:
    async def main() -> None:
        async with pool_of(uri, min_size=1) as pool:
            async with await aio.connect(uri) as stranger:
                with pytest.raises(segue.InterfaceError, match="given out"):
                    await pool.putconn(stranger)
            conn = await pool.getconn()
            await pool.putconn(conn)
            with pytest.raises(segue.InterfaceError, match="given out"):
                await pool.putconn(conn)
            # Who gives it back by hand may do so within the block.
            async with pool.connection() as conn:
                await pool.putconn(conn)
            block = pool.connection()
            async with block:
                with pytest.raises(segue.InterfaceError, match="entered"):
                    await block.__aenter__()
            stats = pool.stats()
            assert (stats.in_use, stats.idle) == (0, 1)

            def elsewhere() -> None:
                for use in pool.getconn, pool.open, pool.drain, pool.wait, pool.close:
                    with pytest.raises(segue.InterfaceError, match="another event loop"):
                        run(_await(use), loop)

            await asyncio.to_thread(elsewhere)

    run(main(), loop)
    with pytest.raises(segue.InterfaceError, match="event loop"):
        aio.Pool(uri, open=True)
    with pytest.raises(ValueError):
        aio.Pool(uri, min_size=3, max_size=2)


async def _await(use: Callable[[], Awaitable[object]]) -> None:
    await use()


def test_a_closed_connection_is_replaced(uri: str, loop: str) -> None:
    async def main() -> None:
        async with pool_of(uri, min_size=1, max_size=1) as pool:
            async with pool.connection() as conn:
                await conn.close()
            async with pool.connection() as other:
                assert other is not conn
                assert await value_of(other, "SELECT 1") == 1
            assert pool.stats().closed_bad == 1

    run(main(), loop)


def test_a_connection_with_a_block_open_is_replaced(uri: str, loop: str) -> None:
    async def main() -> None:
        async with pool_of(uri, min_size=1, max_size=1) as pool:
            conn = await pool.getconn()
            block = conn.transaction()
            await block.__aenter__()
            await pool.putconn(conn)
            assert conn.closed
            async with pool.connection() as other:
                assert await value_of(other, "SELECT 1") == 1
            assert pool.stats().closed_bad == 1

    run(main(), loop)


def test_configure_check_and_reset(uri: str, loop: str) -> None:
    calls: list[str] = []
    bad: list[aio.AsyncConnection] = []

    async def configure(conn: aio.AsyncConnection) -> None:
        calls.append("configure")
        await conn.execute("SET search_path = 'somewhere'")

    async def check(conn: aio.AsyncConnection) -> None:
        calls.append("check")
        await aio.Pool.check_connection(conn)
        if conn in bad:
            raise ZeroDivisionError

    async def reset(conn: aio.AsyncConnection) -> None:
        calls.append("reset")
        await conn.execute("SET search_path = 'somewhere'")

    async def main() -> None:
        async with pool_of(
            uri, min_size=1, max_size=1, configure=configure, check=check, reset=reset
        ) as pool:
            async with pool.connection() as conn:
                assert conn.info.transaction_status == segue.TransactionStatus.IDLE
                assert await value_of(conn, "SHOW search_path") == "somewhere"
                await conn.execute("SET search_path = 'elsewhere'")
            assert calls == ["configure", "check", "reset"]
            async with pool.connection() as conn:
                assert await value_of(conn, "SHOW search_path") == "somewhere"
            bad.append(conn)
            async with pool.connection() as other:
                assert other is not conn
            assert conn.closed
            assert pool.stats().closed_bad == 1

    run(main(), loop)


def test_functions_that_are_not_coroutines(uri: str) -> None:
    seen: list[aio.AsyncConnection] = []

    async def main() -> None:
        async with pool_of(
            uri,
            min_size=1,
            configure=seen.append,
            reset=lambda conn: conn.execute("RESET ALL"),
        ) as pool:
            async with pool.connection() as conn:
                await conn.execute("SET search_path = 'elsewhere'")
            async with pool.connection() as conn:
                assert await value_of(conn, "SHOW search_path") != "elsewhere"
            assert seen == [conn]

    run(main())


def test_a_reset_that_fails_costs_the_connection_only(uri: str, loop: str) -> None:
    async def reset(conn: aio.AsyncConnection) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with pool_of(uri, min_size=1, max_size=1, reset=reset) as pool:
            for _ in range(3):
                async with pool.connection() as conn:
                    assert await value_of(conn, "SELECT 1") == 1
                assert conn.closed
            await eventually(lambda: pool.stats().idle == 1)
            assert pool.stats().connections_made == 4

    run(main(), loop)


def test_a_check_that_is_cancelled_costs_the_connection_only(uri: str, loop: str) -> None:
    checking = asyncio.Event()

    async def check(conn: aio.AsyncConnection) -> None:
        if not checking.is_set():
            checking.set()
            await asyncio.sleep(600)

    async def main() -> None:
        async with pool_of(uri, min_size=1, max_size=1, check=check) as pool:
            task = asyncio.create_task(pool.getconn())
            await checking.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with pool.connection() as conn:
                assert await value_of(conn, "SELECT 1") == 1
            assert pool.stats().closed_bad == 1

    run(main(), loop)


def test_what_does_not_pass_is_told(cluster: Cluster, loop: str) -> None:
    async def configure(conn: aio.AsyncConnection) -> None:
        raise ZeroDivisionError("configure")

    async def main() -> None:
        uri = cluster.uri.replace("/app", "/nowhere")
        for pool, error in (
            (aio.Pool(cluster.uri, min_size=1, configure=configure), ZeroDivisionError),
            (aio.Pool(uri, min_size=1), segue.Error),
        ):
            async with pool:
                with pytest.raises(error, match=r"configure|nowhere"):
                    await pool.wait()
                with pytest.raises(error, match=r"configure|nowhere"):
                    await pool.getconn()
        with pytest.raises(errors.ConfigurationError):
            await aio.Pool("host=localhost nonsense=1")

    run(main(), loop)


def test_opening_and_closing(uri: str, loop: str) -> None:
    async def main() -> None:
        pool = aio.Pool(uri, min_size=1, max_size=1)
        assert pool.closed
        for use in pool.getconn, pool.wait, pool.drain:
            with pytest.raises(PoolClosed, match="not open"):
                await use()
        await pool.open(wait=True)
        assert await pool is pool
        assert not pool.closed
        held = await pool.getconn()
        waiter = asyncio.create_task(pool.getconn())
        await eventually(lambda: pool.stats().waiting == 1)
        await pool.close()
        await pool.close()
        with pytest.raises(PoolClosed, match="meanwhile"):
            await waiter
        assert await value_of(held, "SELECT 1") == 1
        await pool.putconn(held)
        assert held.closed
        for use in pool.getconn, pool.wait, pool.open, pool.drain:
            with pytest.raises(PoolClosed):
                await use()
        assert pool.closed
        assert "closed" in repr(pool)
        never = aio.Pool(uri)
        await never.close()
        with pytest.raises(PoolClosed):
            await never.getconn()

    run(main(), loop)


def test_closing_ends_attempts_to_connect(loop: str) -> None:
    """A pool whose servers do not answer is closed in no time."""

    async def main(port: int) -> None:
        async with aio.Pool(f"host=127.0.0.1 port={port} dbname=x user=x sslmode=disable") as pool:
            await eventually(lambda: pool.stats().making)
            started = time.monotonic()
        assert time.monotonic() - started < 4

    with socket.create_server(("127.0.0.1", 0)) as silent:
        run(main(silent.getsockname()[1]), loop)


def test_a_forgotten_pool_warns(uri: str, loop: str) -> None:
    async def main() -> None:
        tasks = len(asyncio.all_tasks())
        pool = aio.Pool(uri, min_size=2)
        await pool.open(wait=True)
        with pytest.warns(ResourceWarning, match="not closed"):
            del pool
            # Its worker ends by itself.
            await eventually(lambda: len(asyncio.all_tasks()) == tasks)

    run(main(), loop)


def test_a_loop_that_ends_with_its_pool_open(uri: str) -> None:
    async def main() -> aio.Pool:
        pool = aio.Pool(uri, min_size=1)
        await pool.open(wait=True)
        return pool

    pool = asyncio.run(main())
    with pytest.warns(ResourceWarning, match="not closed"):
        del pool
        gc.collect()


def test_a_server_that_is_not_there_yet(segue_cluster: Cluster) -> None:
    """Whoever asks waits for the server too, and a timeout says why there was no connection."""

    async def main() -> None:
        async with aio.Pool(segue_cluster.uri, min_size=1, failover_timeout_ms=300) as pool:
            with pytest.raises(PoolTimeout, match="attempt to connect failed") as caught:
                await pool.getconn(timeout=3)
            assert isinstance(caught.value.__cause__, segue.OperationalError)
            await asyncio.to_thread(segue_cluster.promote)
            async with pool.connection(timeout=30) as conn:
                assert await value_of(conn, "SELECT 1") == 1
            assert pool.stats().connections_failed >= 1

    segue_cluster.kill_primary()
    run(main())


@pytest.mark.parametrize("check", [None, aio.Pool.check_connection])
def test_a_failover_is_no_error(
    segue_cluster: Cluster,
    loop: str,
    check: Callable[[aio.AsyncConnection], object] | None,
) -> None:
    """Fifty tasks, five connections, one failover: each insert is there exactly once."""
    done: list[int] = []
    numbers = iter(range(10**9))

    async def work(pool: aio.Pool, stop: asyncio.Event) -> None:
        while not stop.is_set():
            number = next(numbers)
            async with pool.connection() as conn:
                await conn.execute("INSERT INTO work VALUES (%s)", (number,))
            done.append(number)

    async def main() -> None:
        async with pool_of(segue_cluster.uri, min_size=2, max_size=5, check=check) as pool:
            async with pool.connection() as conn:
                await conn.execute("CREATE TABLE work (id int)")
            stop = asyncio.Event()
            tasks = [asyncio.create_task(work(pool, stop)) for _ in range(50)]
            failed = asyncio.gather(*tasks)
            await eventually(lambda: len(done) > 100 or failed.done())
            await asyncio.to_thread(segue_cluster.failover)
            so_far = len(done)
            await eventually(lambda: len(done) > so_far + 200 or failed.done())
            stop.set()
            await failed
            stats = pool.stats()
            assert (stats.requests_timed_out, stats.closed_bad) == (0, 0)
            assert stats.connections_failed == 0
            assert pool.client.stats().links_lost >= 2

    run(main(), loop, timeout=120)
    rows = segue_cluster.primary.sql("SELECT id FROM work ORDER BY id")
    assert [int(row[0] or 0) for row in rows] == sorted(done)
