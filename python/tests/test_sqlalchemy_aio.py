"""SQLAlchemy's asyncio engines on segue.aio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from aiotools import LOOPS, run, until, until_asleep
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import segue
from segue.sqlalchemy import engine_url
from segue.testing import Cluster, Server


class Base(DeclarativeBase):
    pass


class Job(Base):
    __tablename__ = "job"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(unique=True)


@pytest.fixture(params=list(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def engine_for(cluster: Cluster, **options: Any) -> AsyncIterator[AsyncEngine]:
    """With an empty table `job`."""
    engine = create_async_engine(engine_url(cluster.uri), **options)
    try:
        async with engine.begin() as conn:
            await conn.run_sync(Base.metadata.drop_all)
            await conn.run_sync(Base.metadata.create_all)
        yield engine
    finally:
        await engine.dispose()


def notes(server: Server) -> list[str | None]:
    return [row[0] for row in server.sql("SELECT note FROM job ORDER BY id")]


def test_a_session_outlives_its_server(segue_cluster: Cluster, loop: str) -> None:
    async def main() -> Server:
        async with engine_for(segue_cluster, pool_size=1, max_overflow=0) as engine:
            async with AsyncSession(engine) as session, session.begin():
                session.add(Job(note="before"))
                await session.flush()
                before = await (await session.connection()).get_raw_connection()
                driver = before.driver_connection
                new = await asyncio.to_thread(segue_cluster.failover)
                session.add(Job(note="after"))
                query = sa.select(Job.note).order_by(Job.id)
                assert (await session.scalars(query)).all() == ["before", "after"]
            async with engine.connect() as conn:
                assert (await conn.get_raw_connection()).driver_connection is driver
            return new

    assert notes(run(main(), loop)) == ["before", "after"]


def test_a_commit_in_flight_is_done_once(segue_cluster: Cluster, loop: str) -> None:
    async def main() -> Server:
        async with engine_for(segue_cluster) as engine, AsyncSession(engine) as session:
            session.add(Job(note="once"))
            await session.flush()
            # A commit waits for the standby, which is paused, and so is in flight for sure.
            segue_cluster.pause(segue_cluster.standbys[0])
            commit = asyncio.ensure_future(session.commit())
            await until(
                segue_cluster.primary,
                "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
            )
            segue_cluster.kill_primary()
            segue_cluster.resume(segue_cluster.standbys[0])
            new = await asyncio.to_thread(segue_cluster.promote)
            await commit
            return new

    assert notes(run(main(), loop)) == ["once"]


def test_a_stream_goes_on_after_a_failover(segue_cluster: Cluster, loop: str) -> None:
    async def main() -> None:
        query = sa.text("SELECT g, repeat('x', 2000) FROM generate_series(1, 20000) g")
        async with engine_for(segue_cluster) as engine, engine.connect() as conn:
            result = await conn.stream(query)
            first = await result.fetchone()
            assert first is not None
            await asyncio.to_thread(segue_cluster.failover)
            seen = [first[0]] + [row[0] async for row in result]
            assert seen == list(range(1, 20001))

    run(main(), loop)


def test_streams_and_other_statements(cluster: Cluster, loop: str) -> None:
    async def main() -> None:
        async with engine_for(cluster) as engine, engine.connect() as conn:
            query = sa.text("SELECT g FROM generate_series(1, 1000) g")
            result = await conn.stream(query, execution_options={"max_row_buffer": 10})
            assert await result.fetchmany(3) == [(1,), (2,), (3,)]
            assert await conn.scalar(sa.text("SELECT 42")) == 42
            assert len(await result.all()) == 997
            empty = await conn.stream(sa.text("SELECT 1 AS a, 'x' AS b WHERE false"))
            assert (list(empty.keys()), await empty.all()) == (["a", "b"], [])
            broken_off = await conn.stream(query)
            assert await broken_off.fetchone() == (1,)
            await broken_off.close()
            failing = sa.text("SELECT 10 / (500 - g) FROM generate_series(1, 1000) g")
            with pytest.raises(sa.exc.DataError):
                await (await conn.stream(failing)).all()
            await conn.rollback()
            assert await conn.scalar(sa.text("SELECT 1")) == 1

    run(main(), loop)


def test_many_objects_errors_and_levels(cluster: Cluster, loop: str) -> None:
    async def main() -> None:
        async with engine_for(cluster) as engine:
            async with AsyncSession(engine) as session:
                jobs = [Job(note=f"n{n}") for n in range(1500)]
                session.add_all(jobs)
                await session.commit()
                session.add(Job(note="n1"))
                with pytest.raises(sa.exc.IntegrityError) as caught:
                    await session.flush()
                assert isinstance(caught.value.orig, segue.errors.UniqueViolation)
                await session.rollback()
                count = sa.select(sa.func.count()).select_from(Job)
                assert await session.scalar(count) == 1500
            async with engine.connect() as conn:
                await conn.execution_options(
                    isolation_level="SERIALIZABLE", postgresql_readonly=True
                )
                assert await conn.scalar(sa.text("SHOW transaction_isolation")) == "serializable"
                assert await conn.scalar(sa.text("SHOW transaction_read_only")) == "on"
            async with engine.connect() as conn:
                await conn.execution_options(isolation_level="AUTOCOMMIT")
                await conn.execute(sa.delete(Job))
            async with engine.connect() as conn:
                assert await conn.scalar(sa.text("SHOW transaction_isolation")) == "read committed"
                assert await conn.scalar(count) == 0

    run(main(), loop)


def test_a_task_that_is_cancelled_leaves_the_pool_usable(cluster: Cluster, loop: str) -> None:
    async def main() -> None:
        named = {"application_name": "alchemy-sleeps"}
        async with engine_for(cluster, pool_size=1, max_overflow=0, connect_args=named) as engine:

            async def sleep() -> None:
                async with engine.connect() as conn:
                    await conn.execute(sa.text("SELECT pg_sleep(60)"))

            task = asyncio.ensure_future(sleep())
            # By name: what other tests have left asleep on the server is not meant.
            await until_asleep(cluster.primary, "alchemy-sleeps")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with engine.connect() as conn:
                assert await conn.scalar(sa.text("SELECT 1")) == 1

    run(main(), loop)
