"""Tasks that are cancelled or time out: the connection stays usable."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable

import pytest
from aiotools import LOOPS, run, until, until_asleep

import segue
from segue import aio, errors
from segue.testing import Cluster


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def _stream(conn: aio.AsyncConnection) -> None:
    async for _ in conn.cursor().stream("SELECT pg_sleep(600)"):
        pass


async def _stream_under_way(conn: aio.AsyncConnection) -> None:
    query = "SELECT i, CASE WHEN i = 500 THEN pg_sleep(600) END FROM generate_series(1, 1000) i"
    async for _ in conn.cursor().stream(query):
        pass


async def _copy_out(conn: aio.AsyncConnection) -> None:
    async with conn.cursor().copy("COPY (SELECT pg_sleep(600)) TO STDOUT") as copy:
        await copy.read()


async def _pipeline(conn: aio.AsyncConnection) -> None:
    async with conn.pipeline():
        await conn.execute("SELECT 1")
        await conn.execute("SELECT pg_sleep(600)")


async def _block(conn: aio.AsyncConnection) -> None:
    async with conn.transaction():
        await conn.execute("SELECT pg_sleep(600)")


WORK: dict[str, Callable[[aio.AsyncConnection], Awaitable[object]]] = {
    "execute": lambda conn: conn.execute("SELECT pg_sleep(600)"),
    "parameters": lambda conn: conn.execute("SELECT pg_sleep(%s)", (600,)),
    "executemany": lambda conn: conn.cursor().executemany("SELECT pg_sleep(%s)", [(600,), (600,)]),
    "stream": _stream,
    "stream_under_way": _stream_under_way,
    "copy_out": _copy_out,
    "pipeline": _pipeline,
    "block": _block,
}


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("work", WORK)
def test_a_task_that_is_cancelled(cluster: Cluster, loop: str, work: str, autocommit: bool) -> None:
    name = f"cancel-{loop}-{work}-{autocommit}"

    async def main() -> None:
        async with await aio.connect(
            cluster.uri, autocommit=autocommit, application_name=name
        ) as conn:
            pid = conn.info.backend_pid
            for _ in range(2):
                task = asyncio.ensure_future(WORK[work](conn))
                await until_asleep(cluster.primary, name)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                if not autocommit:
                    await conn.rollback()
                # What comes next is not hit by a request that came late.
                for i in range(20):
                    cur = await conn.execute("SELECT %s::int", (i,))
                    assert await cur.fetchone() == (i,)
                await conn.rollback()
            assert conn.info.backend_pid == pid
            await until_asleep(cluster.primary, name, count=0)

    run(main(), loop)


def test_cancelling_is_not_waited_for(cluster: Cluster, loop: str) -> None:
    """A server that hangs answers no request to cancel: the task ends all the same."""

    async def main() -> None:
        conn = await aio.connect(cluster.uri, autocommit=True, application_name="hang")
        task = asyncio.create_task(conn.execute("SELECT pg_sleep(600)"))
        await until_asleep(cluster.primary, "hang")
        with cluster.paused(cluster.primary):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 1)
        assert await (await conn.execute("SELECT 1")).fetchone() == (1,)
        await conn.close()

    run(main(), loop)


def test_timeouts(cluster: Cluster, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.uri, application_name="timeout") as conn:
            await conn.execute("SELECT 1")
            for _ in range(5):
                with pytest.raises(asyncio.TimeoutError):
                    async with conn.transaction():
                        await asyncio.wait_for(conn.execute("SELECT pg_sleep(600)"), 0.02)
                assert conn.info.transaction_status is segue.TransactionStatus.INTRANS
            await conn.rollback()
            if sys.version_info >= (3, 11):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05), conn.transaction():
                        await conn.execute("SELECT pg_sleep(600)")
                assert conn.info.transaction_status is segue.TransactionStatus.IDLE
            assert await (await conn.execute("SELECT 1")).fetchone() == (1,)
        await until_asleep(cluster.primary, "timeout", count=0)

    run(main(), loop)


def test_one_that_waits_for_its_turn_is_cancelled(cluster: Cluster, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(
            cluster.uri, autocommit=True, application_name="turns"
        ) as conn:
            first = asyncio.create_task(conn.execute("SELECT pg_sleep(600)"))
            second = asyncio.create_task(conn.execute("SELECT 2"))
            third = asyncio.create_task(conn.execute("SELECT 3"))
            await until_asleep(cluster.primary, "turns")
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert await (await third).fetchone() == (3,)

    run(main(), loop)


def test_many_cancellations_at_any_moment(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri, autocommit=True) as conn:
            for i in range(150):
                task = asyncio.create_task(
                    conn.execute("SELECT %s::int FROM generate_series(1, %s)", (i, 1 + i * 20))
                )
                await asyncio.sleep(0.00002 * (i % 40))
                task.cancel()
                done = await asyncio.gather(task, return_exceptions=True)
                assert isinstance(done[0], (asyncio.CancelledError, aio.AsyncCursor))
                cur = await conn.execute("SELECT %s::int", (i,))
                assert await cur.fetchone() == (i,)

    run(main(), loop)


def test_what_is_cancelled_while_it_is_prepared_is_not_executed(uri: str, loop: str) -> None:
    """Whenever the request to cancel comes: if it slept, the next statement would come too late."""

    async def main() -> None:
        async with await aio.connect(uri, autocommit=True) as conn:
            for i in range(100):
                work = [
                    conn.execute(f"SELECT {i}, pg_sleep(600)"),
                    conn.cursor().stream(f"SELECT {i}, pg_sleep(600)").__anext__(),
                    conn.cursor().executemany(f"SELECT {i}, pg_sleep(%s)", [(600,)] * 3),
                ]
                for one in work:
                    task = asyncio.ensure_future(one)
                    await asyncio.sleep(0.0001 * (i % 30))
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                cur = await conn.execute("SELECT %s::int", (i,))
                assert await cur.fetchone() == (i,)

    run(main(), loop)


def test_cancel_from_another_task(cluster: Cluster, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(cluster.uri, application_name="other") as conn:
            task = asyncio.create_task(conn.execute("SELECT pg_sleep(600)"))
            await until_asleep(cluster.primary, "other")
            assert conn.info.transaction_status is segue.TransactionStatus.ACTIVE
            await conn.cancel()
            with pytest.raises(errors.QueryCanceled):
                await task
            await conn.rollback()

    run(main(), loop)


def test_connecting_is_cancelled(loop: str) -> None:
    async def main(port: int) -> None:
        task = asyncio.create_task(aio.connect(f"host=127.0.0.1 port={port} sslmode=disable"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 1)

    # It accepts connections, and never says a word.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        run(main(silent.getsockname()[1]), loop)


def test_a_commit_is_not_cancelled(segue_cluster: Cluster, loop: str) -> None:
    """The server would commit it all the same, not wait for the standby, and only warn."""
    cluster = segue_cluster

    async def main() -> None:
        async with await aio.connect(cluster.uri) as conn:
            await conn.execute("CREATE TABLE work (id int)")
            cluster.pause(cluster.standbys[0])
            task = asyncio.create_task(conn.commit())
            waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            await until(cluster.primary, waits)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(cluster.primary, waits)
            cluster.resume(cluster.standbys[0])
            cur = await conn.execute("SELECT count(*) FROM work")
            assert await cur.fetchone() == (0,)

    run(main(), loop)
