"""What tasks see when their server dies: slow statements. The loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiotools import LOOPS, run, until

import segue
from segue import aio, errors
from segue.testing import Cluster


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def _prepared(cluster: Cluster) -> None:
    async with await aio.connect(cluster.uri) as conn:
        await conn.execute("CREATE TABLE work (id int, note text)")


def test_twenty_transactions_outlive_their_server(segue_cluster: Cluster, loop: str) -> None:
    cluster = segue_cluster
    ready = 0

    async def work(i: int, gone: asyncio.Event, all_ready: asyncio.Event) -> None:
        nonlocal ready
        async with await aio.connect(cluster.uri) as conn, conn.transaction():
            await conn.execute("INSERT INTO work VALUES (%s, 'before')", (i,))
            async with conn.transaction():
                cur = await conn.execute("SELECT count(*) FROM work WHERE id = %s", (i,))
                assert await cur.fetchone() == (1,)
                ready += 1
                if ready == 20:
                    all_ready.set()
                # Half of them are at work when it dies.
                if i % 2:
                    await gone.wait()
                await conn.execute("SELECT pg_sleep(0.3)")
                await conn.execute("INSERT INTO work VALUES (%s, 'after')", (i,))

    async def main() -> None:
        await _prepared(cluster)
        gone, all_ready = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(work(i, gone, all_ready)) for i in range(20)]
        await all_ready.wait()
        ticks = asyncio.create_task(_longest_gap())
        new = await asyncio.to_thread(cluster.failover)
        gone.set()
        await asyncio.gather(*tasks)
        ticks.cancel()
        gaps = await asyncio.gather(ticks, return_exceptions=True)
        assert isinstance(gaps[0], asyncio.CancelledError)
        assert _gaps[-1] < 1.0
        rows = await asyncio.to_thread(new.sql, "SELECT id, note FROM work ORDER BY id, note DESC")
        assert [tuple(row) for row in rows] == [
            (str(i), note) for i in range(20) for note in ("before", "after")
        ]

    run(main(), loop)


_gaps: list[float] = []


async def _longest_gap() -> None:
    """Measure for how long at most the loop does nothing else."""
    longest, before = 0.0, time.monotonic()
    try:
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            longest, before = max(longest, now - before), now
    finally:
        _gaps.append(longest)


def test_a_stream_a_copy_and_a_pipeline_outlive_their_server(
    segue_cluster: Cluster, loop: str
) -> None:
    cluster = segue_cluster

    async def main() -> None:
        await _prepared(cluster)
        async with (
            await aio.connect(cluster.uri) as reads,
            await aio.connect(cluster.uri) as writes,
            await aio.connect(cluster.uri) as pipes,
        ):
            stream = reads.cursor().stream("SELECT i FROM generate_series(1, 200000) i")
            assert await anext(stream) == (1,)
            cur = writes.cursor()
            async with cur.copy("COPY work FROM STDIN") as copy, pipes.pipeline():
                await copy.write("1\tone\n")
                asked = [await pipes.execute("SELECT %s::int", (i,)) for i in range(10)]
                await asyncio.to_thread(cluster.failover)
                await copy.write("2\ttwo\n" * 100_000)
                assert [await c.fetchone() for c in asked] == [(i,) for i in range(10)]
            assert cur.rowcount == 100_001
            assert [row async for row in stream] == [(i,) for i in range(2, 200_001)]
        rows = await asyncio.to_thread(cluster.primary.sql, "SELECT count(*) FROM work")
        assert rows == [("100001",)]

    run(main(), loop)


def test_who_listens_goes_on_listening(segue_cluster: Cluster, loop: str) -> None:
    cluster = segue_cluster

    async def main() -> None:
        async with await aio.connect(cluster.uri, autocommit=True) as conn:
            await conn.execute("LISTEN news")
            news = conn.notifies()
            first = asyncio.ensure_future(anext(news))
            await asyncio.to_thread(cluster.failover)
            async with await aio.connect(cluster.uri, autocommit=True) as other:
                while not first.done():
                    await other.execute("NOTIFY news, 'from the new one'")
                    await asyncio.sleep(0.02)
            assert (await first).payload == "from the new one"
            await news.aclose()

    run(main(), loop)


def test_an_idle_connection_moves_with_its_next_statement(
    segue_cluster: Cluster, loop: str
) -> None:
    cluster = segue_cluster

    async def main() -> None:
        async with await aio.connect(cluster.uri, autocommit=True) as conn:
            assert await (await conn.execute("SELECT 1")).fetchone() == (1,)
            for _ in range(2):
                await asyncio.to_thread(cluster.failover)
                await asyncio.to_thread(cluster.start, cluster.standbys[0])
                await asyncio.to_thread(cluster.wait_for_standbys)
                assert await (await conn.execute("SELECT 1")).fetchone() == (1,)

    run(main(), loop)


def test_the_search_for_a_server_ends_with_its_task(segue_cluster: Cluster, loop: str) -> None:
    cluster = segue_cluster

    async def main() -> None:
        await _prepared(cluster)
        async with await aio.connect(cluster.uri, autocommit=True) as conn:
            await conn.execute("SELECT 1")
            await asyncio.to_thread(cluster.kill_primary)
            task = asyncio.create_task(conn.execute("INSERT INTO work VALUES (1)"))
            while not conn._link.is_helped:
                await asyncio.sleep(0.01)
            assert conn.info.transaction_status is segue.TransactionStatus.ACTIVE
            with pytest.raises(segue.InterfaceError):
                conn.status()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 1)
            # The thread ends soon after it: else the statement could still be executed.
            while conn._link.is_helped:
                await asyncio.sleep(0.01)
            second = asyncio.create_task(conn.execute("INSERT INTO work VALUES (2)"))
            await asyncio.to_thread(cluster.promote)
            await second
        rows = await asyncio.to_thread(cluster.primary.sql, "SELECT id FROM work")
        assert rows == [("2",)]

    run(main(), loop)


def test_no_server_in_time_is_an_error(segue_cluster: Cluster, loop: str) -> None:
    cluster = segue_cluster

    async def main() -> None:
        conn = await aio.connect(cluster.uri, autocommit=True, failover_timeout_ms=300)
        await asyncio.to_thread(cluster.kill_primary)
        with pytest.raises(errors.FailoverTimeout):
            await conn.execute("SELECT 1")
        await conn.close()

    run(main(), loop)


def test_a_divergence_is_told(segue_cluster: Cluster, loop: str) -> None:
    cluster = segue_cluster

    async def main() -> None:
        await _prepared(cluster)
        async with await aio.connect(cluster.uri) as conn:
            with pytest.raises(segue.ReplayDiverged) as caught:
                async with conn.transaction():
                    await conn.execute("SELECT random(), clock_timestamp()")
                    await asyncio.to_thread(cluster.failover)
                    await conn.execute("INSERT INTO work VALUES (1)")
            assert caught.value.is_retryable
            await conn.execute("INSERT INTO work VALUES (2)")
        await until(cluster.primary, "SELECT array_agg(id) = '{2}' FROM work")

    run(main(), loop)
