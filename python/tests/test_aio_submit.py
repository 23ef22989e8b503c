"""Transactions handed over whole by event loops, of both kinds."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiotools import LOOPS, run
from submittools import create, ids

import segue
from segue import aio, errors, events
from segue.testing import Cluster


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def table(cluster: Cluster) -> str:
    name = f"a{uuid.uuid4().hex[:12]}"
    create(cluster, name)
    return name


def client_of(cluster: Cluster, **options: Any) -> aio.Client:
    """One of its own: everything of one configuration is one client."""
    return aio.Client(cluster.uri, application_name=uuid.uuid4().hex, **options)


async def eventually(condition: Callable[[], object], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.01)


def test_a_transaction_is_done(cluster: Cluster, table: str, loop: str) -> None:
    async def main() -> None:
        async with client_of(cluster) as client:
            insert = f"INSERT INTO {table} VALUES (%s)"
            ticket = await client.submit([(insert, (1,)), segue.Statement(insert, (2,), 1)])
            assert isinstance(ticket, aio.Ticket)
            done = segue.Executed((1, 1), False)
            assert await ticket == done
            assert await ticket.wait() == await ticket.wait(5) == ticket.poll() == done
            found = client.ticket(ticket.id)
            assert found is not None
            assert await found == done
            assert client.ticket_for_key("nobody's") is None
            assert client.submissions().committed == 1
            assert str(ticket.id) in repr(ticket)

    run(main(), loop)
    assert ids(cluster, table) == [1, 2]


def test_a_dead_letter(cluster: Cluster, table: str, loop: str) -> None:
    async def main() -> None:
        async with client_of(cluster) as client:
            insert = f"INSERT INTO {table} VALUES (%s)"
            await (await client.submit([(insert, (1,))]))
            ticket = await client.submit([(insert, (1,))], key=f"dead {table}")
            with pytest.raises(errors.UniqueViolation) as info:
                await ticket
            assert info.value.outcome is segue.Outcome.NOT_COMMITTED
            [letter] = client.dead_letters()
            assert letter.id == ticket.id
            with pytest.raises(errors.UniqueViolation):
                await (await client.retry_dead_letter(letter))
            cluster.sql(cluster.primary, f"DELETE FROM {table}")
            again = await client.retry_dead_letter(letter.id)
            assert await again == segue.Executed((1,), False)
            # The first ticket is told of it as well.
            assert await ticket == segue.Executed((1,), False)
            second = await client.submit([(insert, (1,))])
            assert (await asyncio.gather(second, return_exceptions=True))[0].__class__ is (
                errors.UniqueViolation
            )
            await client.purge_dead_letter(second.id)
            assert client.dead_letters() == []
            with pytest.raises(errors.ProgrammingError):
                await client.purge_dead_letter(second.id)
            with pytest.raises(errors.ProgrammingError):
                await client.submit([("SELECT %s", ())])

    run(main(), loop)


def test_callbacks_are_called_by_the_loop(cluster: Cluster, loop: str) -> None:
    async def main() -> None:
        async with client_of(cluster) as client:
            called: list[tuple[aio.Ticket, segue.Executed | None, int]] = []

            def note(ticket: aio.Ticket) -> None:
                called.append((ticket, ticket.poll(), threading.get_ident()))

            ticket = await client.submit("SELECT pg_sleep(0.1)")
            ticket.add_done_callback(note)
            await ticket
            ticket.add_done_callback(note)
            assert len(called) <= 1
            await eventually(lambda: len(called) == 2)
            here = (ticket, segue.Executed((1,), False), threading.get_ident())
            assert called == [here, here]
            with pytest.raises(TypeError):
                ticket.add_done_callback(None)  # type: ignore[arg-type]

    run(main(), loop)


def test_waits_end(cluster: Cluster, loop: str) -> None:
    """By a timeout or a cancellation; the ticket is none the worse for it."""

    async def main() -> None:
        async with client_of(cluster) as client:
            ticket = await client.submit("SELECT pg_sleep(1)", key=f"slow {loop} {time.time()}")
            assert await ticket.wait(0) is None
            assert await ticket.wait(-1) is None
            assert await ticket.wait(0.05) is None
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ticket.wait(), 0.05)
            task = asyncio.create_task(ticket.wait())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # Asking again and again takes up nothing: it is one ticket that waits.
            assert client.ticket(ticket.id) is ticket
            assert client.ticket_for_key(ticket.key or "") is ticket
            assert ticket.poll() is None
            waits = [ticket.wait() for _ in range(3)]
            assert await asyncio.gather(*waits) == [segue.Executed((1,), False)] * 3

    run(main(), loop)


def test_the_loop_goes_on(cluster: Cluster, tmp_path: Path, loop: str) -> None:
    """While a queue is full, and while the journal is written."""

    async def main() -> None:
        options = {"journal": "file", "journal_dir": tmp_path / "j", "journal_sync": "always"}
        async with client_of(cluster, submit_queue_max=1, **options) as client:
            first = await client.submit("SELECT pg_sleep(1)")
            with pytest.raises(errors.LimitExceeded):
                await client.submit("SELECT 1", block=False)
            waiting = asyncio.create_task(client.submit("SELECT 1"))
            ticks = 0
            while not waiting.done():
                await asyncio.sleep(0.001)
                ticks += 1
            assert ticks > 20
            assert await first is not None
            assert await (await waiting) is not None

    run(main(), loop)


@pytest.mark.parametrize("mode", ["memory", "file"])
def test_a_submit_that_is_cancelled(
    cluster: Cluster, table: str, tmp_path: Path, mode: str
) -> None:
    """While it waits for room nothing of it is handed over, now or later."""

    async def main() -> None:
        options = {"journal": "file", "journal_dir": tmp_path / "j"} if mode == "file" else {}
        async with client_of(cluster, submit_queue_max=1, **options) as client:
            first = await client.submit("SELECT pg_sleep(0.5)")
            insert = (f"INSERT INTO {table} VALUES (%s)", (1,))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.submit([insert], key=f"{table} c"), 0.2)
            await first
            # Another that went the same way has its turn behind it.
            await (await client.submit("SELECT 1"))
            await asyncio.sleep(0.2)
            assert client.submissions().submitted == 2

    run(main())
    assert ids(cluster, table) == []


@pytest.mark.parametrize("mode", ["memory", "file"])
def test_a_thousand_at_once(
    cluster: Cluster, table: str, tmp_path: Path, loop: str, mode: str
) -> None:
    """Each lane in the order of the calls, though none waits for the one before it."""

    async def main() -> None:
        options = {"journal": "file", "journal_dir": tmp_path / "j"} if mode == "file" else {}
        async with client_of(cluster, **options) as client:

            async def one(number: int) -> segue.Executed:
                lane = f"lane {number % 4}" if number % 2 else None
                insert = (f"INSERT INTO {table} VALUES (%s)", (number,))
                return await (await client.submit([insert], lane=lane))

            done = await asyncio.gather(*map(one, range(1000)))
            assert done == [segue.Executed((1,), False)] * 1000
            status = client.submissions()
            assert (status.submitted, status.committed) == (1000, 1000)

    run(main(), loop)
    there = ids(cluster, table)
    assert sorted(there) == list(range(1000))
    for lane in (1, 3):
        of_lane = [id for id in there if id % 4 == lane]
        assert of_lane == sorted(of_lane)


def test_a_failover_while_handing_over(segue_cluster: Cluster, loop: str) -> None:
    create(segue_cluster, "work")
    tickets: list[aio.Ticket] = []

    async def main() -> None:
        async with client_of(segue_cluster) as client:
            over = False

            async def hand_over() -> None:
                while not over or len(tickets) < 200:
                    insert = ("INSERT INTO work VALUES (%s)", (len(tickets),))
                    tickets.append(await client.submit([insert]))
                    await asyncio.sleep(0.001)

            task = asyncio.create_task(hand_over())
            await eventually(lambda: client.submissions().committed > 20)
            await asyncio.to_thread(segue_cluster.failover)
            committed = client.submissions().committed
            await eventually(lambda: client.submissions().committed > committed)
            over = True
            await task
            await asyncio.gather(*tickets)

    run(main(), loop, timeout=120)
    assert sorted(ids(segue_cluster, "work")) == list(range(len(tickets)))


@pytest.mark.segue_cluster(standbys=0)
def test_no_server_at_first_and_a_restart(segue_cluster: Cluster, tmp_path: Path) -> None:
    create(segue_cluster, "work")
    segue_cluster.stop(0)
    options = {"journal": "file", "journal_dir": tmp_path / "j"}

    async def before() -> uuid.UUID:
        async with aio.Client(segue_cluster.uri, **options) as client:
            ticket = await client.submit([("INSERT INTO work VALUES (%s)", (1,))], key="one")
            waiting = asyncio.create_task(ticket.wait())
            await asyncio.sleep(0)
            assert ticket.poll() is None
            await client.close()
            with pytest.raises(errors.ConnectionClosed) as info:
                await waiting
            assert info.value.outcome is segue.Outcome.UNKNOWN
            assert "goes on" in str(info.value)
            return ticket.id

    async def after(id: uuid.UUID) -> None:
        async with aio.Client(segue_cluster.uri, **options) as client:
            ticket = client.ticket_for_key("one")
            assert ticket is not None
            assert ticket.id == id
            assert await ticket == segue.Executed((1,), False)
            assert client.submissions().recovered == 1

    id = run(before())
    segue_cluster.start(0, as_it_was=True)
    run(after(id))
    assert ids(segue_cluster, "work") == [1]


# The client.


def test_a_client(cluster: Cluster, loop: str) -> None:
    async def main() -> None:
        client = client_of(cluster)
        with pytest.raises(errors.InterfaceError, match="not open"):
            client.status()
        with pytest.raises(errors.InterfaceError, match="not open"):
            await client.submit("SELECT 1")
        assert await client is client
        await client.open()
        async with await client.connect(autocommit=True) as conn:
            assert conn.client.number == client.number
            heard: list[tuple[events.Notice, int]] = []
            subscription = client.on_event(
                lambda event: heard.append((event, threading.get_ident())), events.Notice
            )
            await conn.execute("DO $$ BEGIN RAISE NOTICE 'heard'; END $$")
            await eventually(lambda: heard)
            assert heard[0][0].diag.message_primary == "heard"
            assert heard[0][1] == threading.get_ident()
            subscription.close()
        assert client.status().primary is not None
        assert client.stats().sessions_opened == 1
        await client.close()
        await client.close()
        assert client.closed
        for call in (client.open, lambda: client.submit("SELECT 1"), client.connect):
            with pytest.raises(errors.InterfaceError, match="closed"):
                await call()

    run(main(), loop)


def test_a_client_that_several_open(cluster: Cluster) -> None:
    async def main() -> None:
        client = client_of(cluster)
        await asyncio.gather(*(client.open() for _ in range(5)))
        await (await client.submit("SELECT 1"))
        await client.close()
        again = client_of(cluster)
        task = asyncio.create_task(again.open())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert again.closed
        with pytest.raises(errors.ConfigurationError):
            await aio.Client("host=localhost nonsense=1")

    run(main())


def test_a_ticket_of_a_closed_client(cluster: Cluster) -> None:
    """Something else keeps the submissions going; the loop hears of them no more."""

    async def main() -> None:
        async with client_of(cluster) as client, await client.connect() as conn:
            ticket = await client.submit("SELECT pg_sleep(0.5)")
            waiting = asyncio.create_task(ticket.wait())
            await asyncio.sleep(0)
            await client.close()
            with pytest.raises(errors.InterfaceError, match="closed"):
                await waiting
            with pytest.raises(errors.InterfaceError, match="closed"):
                ticket.add_done_callback(print)
            await eventually(lambda: ticket.poll() is not None)
            assert await ticket is not None
            assert not conn.closed

    run(main())


def test_another_loop_is_refused(cluster: Cluster) -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    client = client_of(cluster)
    first.run_until_complete(client.open())
    ticket = first.run_until_complete(client.submit("SELECT 1"))
    for call in (client.open(), client.submit("SELECT 1"), ticket.wait()):
        with pytest.raises(errors.InterfaceError, match="another event loop"):
            second.run_until_complete(call)
    first.run_until_complete(client.close())
    first.close()
    second.close()


def test_a_client_that_is_forgotten(cluster: Cluster) -> None:
    async def main() -> None:
        client = client_of(cluster)
        await client.open()
        with pytest.warns(ResourceWarning, match="was not closed"):
            del client
            gc.collect()

    run(main())
