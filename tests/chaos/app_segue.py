"""The workload through Segue's Python faces: two threads, one reader, and two tasks of asyncio.

Nothing is ever tried again: an application on Segue need not, and every error is to be seen.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

import segue
import segue.aio

from . import app
from .app import Worker
from .clientlog import COMMITTED, NOT_COMMITTED, UNKNOWN, Log

OUTCOMES = {
    segue.Outcome.COMMITTED: COMMITTED,
    segue.Outcome.NOT_COMMITTED: NOT_COMMITTED,
    segue.Outcome.UNKNOWN: UNKNOWN,
}


def failed(worker: Worker, id_: int, error: segue.Error) -> None:
    """Logs an error and what it says of the transaction."""
    worker.expected = None
    state = error.sqlstate or "-----"
    worker.end(id_, OUTCOMES[error.outcome], state, f"{type(error).__name__}: {error}")


def transfer(worker: Worker, conn: segue.Connection) -> None:
    """Between shared accounts, locked in order."""
    src, dst = worker.two_accounts()
    amount = worker.amount()
    id_ = worker.begin("transfer")
    try:
        with conn.transaction():
            for account, change in sorted([(src, -amount), (dst, amount)]):
                conn.execute(app.TRANSFER, (account, change))
            conn.execute(app.INSERT, (id_, "transfer", src, dst, amount))
    except segue.Error as error:
        failed(worker, id_, error)
    else:
        worker.end(id_, COMMITTED)


def own(worker: Worker, conn: segue.Connection) -> None:
    """Between the worker's own accounts, whose balances it knows."""
    src, dst = app.own_accounts(worker.number)
    amount = worker.amount() - 50
    id_ = worker.begin("own")
    try:
        with conn.transaction():
            worker.check_own(conn.execute(app.OWN, (src, dst)).fetchall())
            conn.execute(app.TRANSFER, (src, -amount))
            conn.execute(app.TRANSFER, (dst, amount))
            row = conn.execute(f"{app.INSERT} RETURNING id", (id_, "own", src, dst, amount))
            returned = row.fetchone()
    except segue.Error as error:
        failed(worker, id_, error)
        return
    worker.end(id_, COMMITTED)
    if returned != (id_,):
        worker.log.write("F", f"{id_} returned {returned}")
    if worker.expected is not None:
        worker.expected[src] -= amount
        worker.expected[dst] += amount


def savepoint(worker: Worker, conn: segue.Connection) -> None:
    """A payment, and one inside a savepoint that is rolled back."""
    decoy = worker.next_id()
    worker.log.write("D", decoy)
    id_ = worker.begin("savepoint")
    try:
        with conn.transaction():
            conn.execute(app.INSERT, (id_, "savepoint", None, None, 0))
            with conn.transaction():
                conn.execute(app.INSERT, (decoy, "decoy", None, None, 0))
                raise segue.Rollback
    except segue.Error as error:
        failed(worker, id_, error)
    else:
        worker.end(id_, COMMITTED)


def insert(worker: Worker, conn: segue.Connection) -> None:
    """One statement in autocommit, whose row is read back."""
    amount = worker.amount()
    id_ = worker.begin("insert")
    try:
        values = (id_, "insert", None, None, amount)
        row = conn.execute(f"{app.INSERT} RETURNING id, amount", values).fetchone()
    except segue.Error as error:
        failed(worker, id_, error)
        return
    worker.end(id_, COMMITTED)
    if row != (id_, amount):
        worker.log.write("F", f"{id_}, {amount} returned {row}")


def pipeline(worker: Worker, conn: segue.Connection) -> None:
    """Statements that do not wait for each other, each committed by itself."""
    ids = [worker.begin("pipeline") for _ in range(app.PIPELINE)]
    cursors = []
    with conn.pipeline():
        for id_ in ids:
            try:
                cursors.append(conn.execute(app.INSERT, (id_, "pipeline", None, None, 1)))
            except segue.Error as error:
                failed(worker, id_, error)
        for id_, cursor in zip(ids, cursors, strict=False):
            try:
                count = cursor.rowcount
            except segue.Error as error:
                failed(worker, id_, error)
            else:
                worker.end(id_, COMMITTED)
                if count != 1:
                    worker.log.write("F", f"{id_}: {count} rows inserted")


KINDS: dict[str, Callable[[Worker, segue.Connection], None]] = {
    "transfer": transfer,
    "own": own,
    "savepoint": savepoint,
    "insert": insert,
    "pipeline": pipeline,
}


def connect(worker: Worker, *, writes: bool) -> segue.Connection | None:
    """A connection; where nobody is there at all, connecting fails at once and is tried again."""
    while not worker.stops:
        try:
            return segue.connect(worker.arguments.conninfo, autocommit=True, writes=writes)
        except segue.Error as error:
            worker.log.write("V", "connect_error", 0, 0, 0, 0, error.sqlstate, error)
            time.sleep(0.2)
    return None


def write(worker: Worker) -> None:
    """A worker that pays."""
    conn = connect(worker, writes=True)
    while conn is not None and not worker.stops:
        KINDS[worker.kind()](worker, conn)
        app.rest(worker)


def read(worker: Worker) -> None:
    """A worker that looks whether the sum of all balances is what it must be."""
    conn = connect(worker, writes=False)
    while conn is not None and not worker.stops:
        if worker.random.random() < 0.8:
            id_ = worker.begin("read")
            try:
                row = conn.execute(app.SUM).fetchone()
            except segue.Error as error:
                failed(worker, id_, error)
            else:
                worker.end(id_, COMMITTED)
                worker.check_total(row[0] if row else None)
        else:
            id_ = worker.begin("stream")
            seen = 0
            try:
                for (number,) in conn.cursor().stream(app.STREAM):
                    seen += 1
                    if number != seen:
                        worker.log.write("F", f"row {seen} of a stream is {number}")
            except segue.Error as error:
                failed(worker, id_, error)
            else:
                worker.end(id_, COMMITTED)
                if seen != app.STREAM_ROWS:
                    worker.log.write("F", f"a stream had {seen} rows")
        app.rest(worker)


async def task(worker: Worker) -> None:
    """A worker that pays by asyncio, and gives its connection back between two payments."""
    conn: segue.aio.AsyncConnection | None = None
    while not worker.stops:
        if conn is None:
            try:
                conn = await segue.aio.connect(worker.arguments.conninfo, autocommit=True)
            except segue.Error as error:
                worker.log.write("V", "connect_error", 0, 0, 0, 0, error.sqlstate, error)
                await asyncio.sleep(0.2)
                continue
        amount = worker.amount()
        if worker.random.random() < 0.5:
            id_ = worker.begin("insert")
            try:
                values = (id_, "insert", None, None, amount)
                await conn.execute(app.INSERT, values)
            except segue.Error as error:
                failed(worker, id_, error)
            else:
                worker.end(id_, COMMITTED)
        else:
            src, dst = worker.two_accounts()
            id_ = worker.begin("transfer")
            try:
                async with conn.transaction():
                    for account, change in sorted([(src, -amount), (dst, amount)]):
                        await conn.execute(app.TRANSFER, (account, change))
                    await conn.execute(app.INSERT, (id_, "transfer", src, dst, amount))
            except segue.Error as error:
                failed(worker, id_, error)
            else:
                worker.end(id_, COMMITTED)
        await asyncio.sleep(worker.pause)
    if conn is not None:
        await conn.close()


def tasks(workers: list[Worker]) -> None:
    """Runs workers in one event loop."""

    async def run(worker: Worker) -> None:
        await task(worker)
        worker.log.write("Q")

    async def main() -> None:
        await asyncio.gather(*(run(worker) for worker in workers))

    asyncio.run(main())


def subscribe(client: segue.Client, log: Log) -> None:
    """Writes the client's events into the log of its first worker."""

    def note(event: segue.events.Event) -> None:
        session = getattr(event, "session", 0)
        first, last = getattr(event, "first", 0), getattr(event, "last", 0)
        pause = round(getattr(event, "pause", 0) * 1e6)
        # As C names it: SessionMoved is session_moved.
        if isinstance(event, segue.events.SubmissionsLost):
            for _, key in event.submissions:
                log.write("L", key)
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", event.kind).lower()
        log.write("V", name, session, first, last, pause, event.message)

    client.on_event(note)


def main() -> None:
    """Threads by themselves, tasks with a loop: as the face says."""
    arguments = app.arguments()
    if arguments.face.endswith("aio"):
        workers = [Worker(arguments, index) for index in range(2)]
        with segue.Client(arguments.conninfo) as client:
            subscribe(client, workers[0].log)
            tasks(workers)
        return
    workers = [Worker(arguments, index) for index in range(3)]
    with segue.Client(arguments.conninfo) as client:
        subscribe(client, workers[0].log)
        app.in_threads(workers, lambda worker: read(worker) if worker is workers[-1] else write(worker))


if __name__ == "__main__":
    main()
