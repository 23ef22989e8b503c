"""The same workload as applications write it today: psycopg 3, its pool, and a loop that tries again.

The loop is the usual one: whatever the error, once more after a moment. It cannot know whether a COMMIT
that was cut off has been done.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from . import app
from .app import Worker
from .clientlog import COMMITTED, NOT_COMMITTED

GIVE_UP_S = 60.0
"""As long as Segue's failover_timeout_ms."""

TRANSFER = app.TRANSFER.replace("$2", "%s").replace("$1", "%s")
INSERT = "INSERT INTO payment (id, kind, src, dst, amount) VALUES (%s, %s, %s, %s, %s)"
OWN = app.OWN.replace("$1", "%s").replace("$2", "%s")

Work = Callable[[psycopg.Connection], None]


def until_it_works(worker: Worker, pool: ConnectionPool, ids: list[int], work: Work) -> bool:
    """The naive loop. Tells whether the application believes that it is done."""
    deadline = time.monotonic() + GIVE_UP_S
    while True:
        try:
            with pool.connection(timeout=10) as conn:
                work(conn)
        except (psycopg.Error, PoolTimeout) as error:
            state = getattr(error, "sqlstate", None) or "-----"
            text = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                for id_ in ids:
                    worker.end(id_, NOT_COMMITTED, state, text)
                return False
            # One error for the application, however many payments were in the pipeline.
            worker.log.write("R", ids[0], state, text)
            time.sleep(0.1)
        else:
            for id_ in ids:
                worker.end(id_, COMMITTED)
            return True


def transfer(worker: Worker, pool: ConnectionPool) -> None:
    """Between shared accounts, locked in order."""
    src, dst = worker.two_accounts()
    amount = worker.amount()
    id_ = worker.begin("transfer")

    def work(conn: psycopg.Connection) -> None:
        with conn.transaction():
            for account, change in sorted([(src, -amount), (dst, amount)]):
                conn.execute(TRANSFER, (change, account))
            conn.execute(INSERT, (id_, "transfer", src, dst, amount))

    until_it_works(worker, pool, [id_], work)


def own(worker: Worker, pool: ConnectionPool) -> None:
    """Between the worker's own accounts, whose balances it knows."""
    src, dst = app.own_accounts(worker.number)
    amount = worker.amount() - 50
    id_ = worker.begin("own")
    rows: list[tuple[int, int]] = []

    def work(conn: psycopg.Connection) -> None:
        nonlocal rows
        with conn.transaction():
            rows = [(row[0], row[1]) for row in conn.execute(OWN, (src, dst)).fetchall()]
            conn.execute(TRANSFER, (-amount, src))
            conn.execute(TRANSFER, (amount, dst))
            conn.execute(INSERT, (id_, "own", src, dst, amount))

    if until_it_works(worker, pool, [id_], work):
        worker.check_own(rows)
        if worker.expected is not None:
            worker.expected[src] -= amount
            worker.expected[dst] += amount
    else:
        worker.expected = None


def savepoint(worker: Worker, pool: ConnectionPool) -> None:
    """A payment, and one inside a savepoint that is rolled back."""
    decoy = worker.next_id()
    worker.log.write("D", decoy)
    id_ = worker.begin("savepoint")

    def work(conn: psycopg.Connection) -> None:
        with conn.transaction():
            conn.execute(INSERT, (id_, "savepoint", None, None, 0))
            with conn.transaction(force_rollback=True):
                conn.execute(INSERT, (decoy, "decoy", None, None, 0))

    until_it_works(worker, pool, [id_], work)


def insert(worker: Worker, pool: ConnectionPool) -> None:
    """One statement in autocommit."""
    amount = worker.amount()
    id_ = worker.begin("insert")

    def work(conn: psycopg.Connection) -> None:
        conn.execute(INSERT, (id_, "insert", None, None, amount))

    until_it_works(worker, pool, [id_], work)


def pipeline(worker: Worker, pool: ConnectionPool) -> None:
    """Statements that do not wait for each other."""
    ids = [worker.begin("pipeline") for _ in range(app.PIPELINE)]

    def work(conn: psycopg.Connection) -> None:
        with conn.pipeline():
            for id_ in ids:
                conn.execute(INSERT, (id_, "pipeline", None, None, 1))

    until_it_works(worker, pool, ids, work)


KINDS: dict[str, Callable[[Worker, ConnectionPool], None]] = {
    "transfer": transfer,
    "own": own,
    "savepoint": savepoint,
    "insert": insert,
    "pipeline": pipeline,
}


def main() -> None:
    """Three threads that share a pool."""
    arguments = app.arguments()
    workers = [Worker(arguments, index) for index in range(3)]
    pool = ConnectionPool(
        arguments.conninfo,
        min_size=3,
        max_size=6,
        kwargs={"autocommit": True},
        check=ConnectionPool.check_connection,
        reconnect_timeout=5,
        open=True,
    )

    def write(worker: Worker) -> None:
        while not worker.stops:
            KINDS[worker.kind()](worker, pool)
            app.rest(worker)

    app.in_threads(workers, write)
    pool.close()


if __name__ == "__main__":
    main()
