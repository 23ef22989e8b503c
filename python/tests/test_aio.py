"""`segue.aio` on both kinds of event loops: what the driver for threads does, awaited."""

from __future__ import annotations

import asyncio
import enum
import gc
import os
import signal
import time
import warnings
from typing import Any

import pytest
from aiotools import LOOPS, run

import segue
from segue import aio, errors
from segue.rows import dict_row, scalar_row
from segue.testing import Cluster
from segue.types import TypeInfo, register_enum


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_statements_and_rows(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri, autocommit=True) as conn:
            cur = await conn.execute("SELECT i, 'x' || i AS x FROM generate_series(1, %s) i", (5,))
            assert cur.description is not None
            assert [column.name for column in cur.description] == ["i", "x"]
            assert cur.rowcount == 5
            assert cur.connection is conn
            assert await cur.fetchone() == (1, "x1")
            assert await cur.fetchmany(2) == [(2, "x2"), (3, "x3")]
            assert [row async for row in cur] == [(4, "x4"), (5, "x5")]
            assert await cur.fetchone() is None
            async with conn.cursor(row_factory=dict_row) as cur:
                await cur.execute("SELECT 1 AS one")
                assert await cur.fetchall() == [{"one": 1}]
            assert cur.closed
            with pytest.raises(segue.InterfaceError):
                await cur.execute("SELECT 1")
            cur = conn.cursor(row_factory=scalar_row)
            await cur.execute("VALUES (1), (NULL), (3)")
            assert [row async for row in cur] == [1, None, 3]
            with pytest.raises(TypeError):
                iter(cur)
            several = await conn.execute("SELECT 1; SELECT 2")
            assert [await c.fetchall() async for c in several.results()] == [[(1,)], [(2,)]]
            big = await conn.execute("SELECT repeat('x', 1000000) FROM generate_series(1, 20)")
            assert sum([len(row[0]) async for row in big]) == 20_000_000
            text = "y" * 10_000_000
            assert await (await conn.execute("SELECT length(%s)", (text,))).fetchone() == (
                len(text),
            )
        assert conn.closed

    run(main(), loop)


def test_errors_leave_a_usable_connection(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri, autocommit=True) as conn:
            for _ in range(2):
                with pytest.raises(errors.DivisionByZero):
                    await conn.execute("SELECT 1 / %s", (0,))
                with pytest.raises(segue.ProgrammingError, match="nothing was sent"):
                    await conn.execute("SELECT %s", (1, 2))
                cur = conn.cursor()
                with pytest.raises(errors.UndefinedTable):
                    await cur.execute("SELECT * FROM nothing_such")
                with pytest.raises(segue.ProgrammingError):
                    await cur.fetchone()
                assert await (await conn.execute("SELECT 1")).fetchone() == (1,)

    run(main(), loop)


def test_transactions(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri) as conn:
            status = segue.TransactionStatus
            await conn.execute("CREATE TEMP TABLE t (id int)")
            assert conn.info.transaction_status is status.INTRANS
            await conn.commit()
            assert conn.info.transaction_status is status.IDLE
            async with conn.transaction() as outer:
                assert outer.savepoint_name is None
                await conn.execute("INSERT INTO t VALUES (1)")
                with pytest.raises(errors.DivisionByZero):
                    async with conn.transaction() as inner:
                        assert inner.savepoint_name is not None
                        await conn.execute("INSERT INTO t VALUES (2)")
                        await conn.execute("SELECT 1/0")
                async with conn.transaction():
                    await conn.execute("INSERT INTO t VALUES (3)")
                    raise segue.Rollback
                async with conn.transaction(force_rollback=True):
                    await conn.execute("INSERT INTO t VALUES (4)")
                async with conn.transaction():
                    await conn.execute("INSERT INTO t VALUES (5)")
            assert conn.info.transaction_status is status.IDLE
            cur = await conn.execute("SELECT id FROM t ORDER BY id")
            assert await cur.fetchall() == [(1,), (5,)]
            with pytest.raises(segue.ProgrammingError):
                await conn.set_autocommit(True)
            await conn.rollback()
            await conn.set_autocommit(True)
            with pytest.raises(errors.DivisionByZero):
                async with conn.transaction():
                    await conn.execute("INSERT INTO t VALUES (6)")
                    await conn.execute("SELECT 1/0")
            with pytest.raises(errors.TransactionFailed):
                async with conn.transaction():
                    with pytest.raises(errors.DivisionByZero):
                        await conn.execute("SELECT 1/0")
            assert conn.info.transaction_status is status.IDLE
            await conn.set_isolation_level(segue.IsolationLevel.SERIALIZABLE)
            await conn.set_read_only(True)
            async with conn.transaction():
                cur = await conn.execute("SHOW transaction_isolation")
                assert await cur.fetchone() == ("serializable",)
                with pytest.raises(errors.ReadOnlySqlTransaction):
                    async with conn.transaction():
                        await conn.execute("CREATE TABLE never (id int)")

    run(main(), loop)


def test_blocks_and_pipelines_are_those_of_sync(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri, autocommit=True) as conn:
            for end in conn.commit, conn.rollback:
                with pytest.raises(segue.ProgrammingError, match="block"):
                    async with conn.transaction():
                        await conn.execute("SELECT 1")
                        await end()
                assert conn.info.transaction_status is segue.TransactionStatus.IDLE
            outer, inner = conn.transaction(), conn.transaction()
            with pytest.raises(segue.ProgrammingError, match="reverse"):
                async with outer:
                    await inner.__aenter__()
            await inner.__aexit__(None, None, None)
            await conn.rollback()
            with pytest.raises(segue.ProgrammingError, match="once"):
                await inner.__aenter__()
            with pytest.raises(errors.DivisionByZero):
                async with conn.transaction(), conn.pipeline():
                    await conn.execute("SELECT 1")
                    await conn.execute("SELECT 1/0")
                    await conn.execute("SELECT 2")
                    await conn.execute("SELECT 3")
            assert conn.info.transaction_status is segue.TransactionStatus.IDLE
            assert conn.info.user == "app"
            with pytest.raises(segue.ProgrammingError, match="text format"):
                async with conn.cursor().copy("COPY (SELECT 1) TO STDOUT (FORMAT csv)") as copy:
                    await copy.read_row()
        with pytest.raises(errors.ConnectionClosed):
            conn.cursor()

    run(main(), loop)


def test_executemany(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri, autocommit=True) as conn:
            await conn.execute("CREATE TEMP TABLE many (id int PRIMARY KEY, note text)")
            cur = conn.cursor()
            rows = [(i, "n" * (i % 100)) for i in range(20_000)]
            await cur.executemany("INSERT INTO many VALUES (%s, %s)", rows)
            assert cur.rowcount == 20_000
            with pytest.raises(errors.UniqueViolation):
                await cur.executemany(
                    "INSERT INTO many VALUES (%s, %s)", [(-1, ""), (5, ""), (-2, "")]
                )
            cur = await conn.execute("SELECT count(*), min(id) FROM many")
            assert await cur.fetchone() == (20_000, 0)
            await cur.executemany("SELECT %s::int", [(1,), (2,)], returning=True)
            assert [await c.fetchone() async for c in cur.results()] == [(1,), (2,)]

    run(main(), loop)


def test_streams(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri, autocommit=True) as conn:
            cur = conn.cursor()
            query = "SELECT i FROM generate_series(1, %s) i"
            assert [row async for row in cur.stream(query, (100_000,))] == [
                (i,) for i in range(1, 100_001)
            ]
            stream = cur.stream(query, (1_000_000,))
            assert await anext(stream) == (1,)
            assert await (await conn.execute("SELECT 'between'")).fetchone() == ("between",)
            assert await anext(stream) == (2,)
            await stream.aclose()
            with pytest.raises(errors.DivisionByZero):
                async for _ in cur.stream("SELECT 1 / (500 - i) FROM generate_series(1, 1000) i"):
                    pass
            assert await (await conn.execute("SELECT 1")).fetchone() == (1,)

    run(main(), loop)


def test_a_stream_that_nobody_reads_is_not_read(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri, autocommit=True, application_name="unread") as conn:
            stream = conn.cursor().stream(
                "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"
            )
            await anext(stream)
            async with await aio.connect(uri, autocommit=True) as other:
                # It waits for its client, who does other things.
                while await (
                    await other.execute(
                        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'unread' "
                        "AND wait_event = 'ClientWrite'"
                    )
                ).fetchone() != (1,):
                    await asyncio.sleep(0.01)
            assert len([row async for row in stream]) == 99_999

    run(main(), loop)


def test_copy(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri, autocommit=True) as conn:
            await conn.execute("CREATE TEMP TABLE c (id int, note text)")
            cur = conn.cursor()
            async with cur.copy("COPY c FROM STDIN") as copy:
                for i in range(50_000):
                    await copy.write_row((i, None if i % 2 else f"tab\t{i}"))
                await copy.write("50000\t")
                await copy.write(b"last\n")
                with pytest.raises(segue.ProgrammingError):
                    await copy.read()
            assert cur.rowcount == 50_001
            with pytest.raises(segue.InterfaceError):
                await copy.write("too late")
            with pytest.raises(ZeroDivisionError):
                async with cur.copy("COPY c FROM STDIN") as copy:
                    await copy.write("1\tx\n")
                    raise ZeroDivisionError
            with pytest.raises(errors.BadCopyFileFormat):
                async with cur.copy("COPY c FROM STDIN") as copy:
                    await copy.write("1\tx\ty\n")
            async with cur.copy("COPY (SELECT * FROM c ORDER BY id) TO STDOUT") as copy:
                assert await copy.read_row() == ("0", "tab\t0")
                rows = [row async for row in copy.rows()]
            assert len(rows) == 50_000
            assert rows[-1] == ("50000", "last")
            async with cur.copy("COPY c TO STDOUT") as copy:
                await copy.read()
            async with cur.copy("COPY c TO STDOUT (FORMAT csv)") as copy:
                assert len(b"".join([piece async for piece in copy]).splitlines()) == 50_001
            with pytest.raises(segue.ProgrammingError):
                async with cur.copy("SELECT 1"):
                    pass
            assert await (await conn.execute("SELECT 1")).fetchone() == (1,)

    run(main(), loop)


def test_pipelines(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri, autocommit=True) as conn:
            await conn.execute("CREATE TEMP TABLE p (id int)")
            async with conn.pipeline() as pipeline:
                cursors = [await conn.execute("SELECT %s::int", (i,)) for i in range(100)]
                assert await cursors[50].fetchone() == (50,)
                await pipeline.sync()
                assert [await c.fetchone() for c in cursors[:3]] == [(0,), (1,), (2,)]
                text = "z" * 100_000
                for _ in range(100):
                    await conn.execute("SELECT %s::text", (text,))
            with pytest.raises(errors.DivisionByZero):
                async with conn.pipeline():
                    await conn.execute("INSERT INTO p VALUES (1)")
                    await conn.execute("SELECT 1 / 0")
                    await conn.execute("INSERT INTO p VALUES (2)")
            cur = await conn.execute("SELECT id FROM p ORDER BY id")
            assert await cur.fetchall() == [(1,), (2,)]

    run(main(), loop)


def test_a_pipeline_larger_than_the_journal_goes_on(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri, journal_bytes_max=1024) as conn:
            await conn.execute("CREATE TEMP TABLE larger (id int, note text)")
            async with conn.pipeline():
                for id in range(200):
                    await conn.execute("INSERT INTO larger VALUES (%s, %s)", (id, "x" * 500))
            await conn.commit()
            cur = await conn.execute("SELECT count(*) FROM larger")
            assert await cur.fetchone() == (200,)

    run(main(), loop)


def test_notifications_come_while_other_tasks_use_the_connection(uri: str, loop: str) -> None:
    async def main() -> None:
        async with (
            await aio.connect(uri, autocommit=True) as conn,
            await aio.connect(uri, autocommit=True) as other,
        ):
            await conn.execute("LISTEN aio_news")
            seen: list[segue.Notify] = []

            async def listen() -> None:
                async for notify in conn.notifies(stop_after=20):
                    seen.append(notify)

            task = asyncio.create_task(listen())
            for i in range(10):
                await other.execute("SELECT pg_notify('aio_news', %s)", (str(i),))
                await conn.execute("SELECT pg_notify('aio_news', %s)", (f"own {i}",))
            await task
            assert {notify.payload for notify in seen} == {
                payload for i in range(10) for payload in (str(i), f"own {i}")
            }
            assert {notify.pid for notify in seen} == {
                conn.info.backend_pid,
                other.info.backend_pid,
            }
            assert [n async for n in conn.notifies(timeout=0.05)] == []
            assert [n async for n in conn.notifies(timeout=0)] == []
            task = asyncio.create_task(listen())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await (await conn.execute("SELECT 1")).fetchone() == (1,)

    run(main(), loop)


def test_tasks_share_a_connection(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri, autocommit=True) as conn:
            order: list[int] = []

            async def work(i: int) -> None:
                cur = await conn.execute("SELECT %s::int FROM pg_sleep(%s)", (i, 0.001 * (i % 3)))
                order.append(i)
                assert await cur.fetchone() == (i,)

            await asyncio.gather(*(work(i) for i in range(50)))
            assert order == list(range(50))

    run(main(), loop)


def test_a_connection_belongs_to_its_loop(uri: str) -> None:
    async def connect() -> aio.AsyncConnection:
        return await aio.connect(uri)

    async def use(conn: aio.AsyncConnection) -> None:
        with pytest.raises(segue.InterfaceError, match="another event loop"):
            await conn.execute("SELECT 1")
        await conn.close()

    run(use(run(connect())))


def test_closing(uri: str, loop: str) -> None:
    async def main() -> None:
        conn = await aio.connect(uri)
        running = asyncio.create_task(conn.execute("SELECT pg_sleep(600)"))
        waiting = asyncio.create_task(conn.execute("SELECT 1"))
        await asyncio.sleep(0)
        await conn.close()
        await conn.close()
        for task in (running, waiting):
            with pytest.raises(errors.ConnectionClosed):
                await task
        for call in (conn.commit, conn.rollback):
            with pytest.raises(errors.ConnectionClosed):
                await call()
        with pytest.raises(errors.ConnectionClosed):
            await conn.notifies().__anext__()
        with pytest.raises(errors.ConnectionClosed):
            conn.cursor()
        assert conn.info.transaction_status is segue.TransactionStatus.UNKNOWN
        assert "CLOSED" in repr(conn)

    run(main(), loop)


@pytest.mark.parametrize("idle", [True, False])
def test_a_connection_that_is_forgotten_says_so_and_is_gone(
    cluster: Cluster, loop: str, idle: bool
) -> None:
    name = f"forgotten-{loop}-{idle}"

    async def main() -> None:
        conn: Any = await aio.connect(cluster.uri, autocommit=True, application_name=name)
        if not idle:
            await conn.execute("SELECT 1")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del conn
            gc.collect()
        assert [w.category for w in caught] == [ResourceWarning]
        # The warning keeps what it is about.
        caught.clear()
        gc.collect()
        await asyncio.to_thread(
            cluster.primary.wait_for,
            f"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = '{name}'",
        )

    run(main(), loop)


def test_connecting_fails_as_it_does_in_sync(uri: str, loop: str) -> None:
    async def main() -> None:
        with pytest.raises(errors.ConfigurationError):
            await aio.connect(uri, nothing_such=1)
        with pytest.raises(segue.OperationalError):
            await aio.connect("host=127.0.0.1 port=1", failover_timeout_ms=100)

    run(main(), loop)


class Mood(enum.Enum):
    good = 1
    bad = 2


def test_types_of_the_database(uri: str, loop: str) -> None:
    async def main() -> None:
        async with await aio.connect(uri, application_name=f"types-{loop}") as conn:
            await conn.execute("CREATE TYPE mood_of_tasks AS ENUM ('good', 'bad')")
            assert await TypeInfo.fetch(conn, "nothing_such") is None
            with pytest.raises(segue.ProgrammingError, match="fetch"):
                register_enum(conn, "mood_of_tasks", Mood)
            info = await TypeInfo.fetch(conn, "mood_of_tasks")
            assert info is not None
            register_enum(conn, info, Mood)
            cur = await conn.execute(
                "SELECT %s, %s::mood_of_tasks[]", (Mood.good, [Mood.bad, Mood.good])
            )
            assert await cur.fetchone() == (Mood.good, [Mood.bad, Mood.good])
            conn.set_json(loads=lambda text: "loaded " + text)
            cur = await conn.execute("SELECT '[1]'::json")
            assert await cur.fetchone() == ("loaded [1]",)
            await conn.rollback()

    run(main(), loop)


def test_a_child_makes_connections_of_its_own(uri: str) -> None:
    """The parent's threads are not the child's, which would wait for them for ever."""

    async def main() -> None:
        async with await aio.connect(uri, autocommit=True) as conn:
            cur = await conn.execute("SELECT 1")
            assert await cur.fetchone() == (1,)

    run(main())
    with warnings.catch_warnings():
        # Python warns of the threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            run(main())
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    assert ended[1] == 0
