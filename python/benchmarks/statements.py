"""Measures statements, transactions and executemany of `segue` against psycopg 3 and asyncpg.

    python benchmarks/statements.py [--rounds 40] [--loop asyncio|uvloop] [--json]

All take turns on a server that this starts, its data in memory where there is room; what counts are
the medians of the ratios of their times within a round. Segue has a primary and a standby to watch,
and seals its commits; its peers have one server and no protection. Below 1 Segue is faster.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg

import segue
from segue import aio
from segue.testing import Cluster

ROWS = [(i, f"name {i}") for i in range(10_000)]
POINT = "SELECT id, name, price FROM item WHERE id = %s"
UPDATE = "UPDATE item SET price = price + 1 WHERE id = %s"


def point(conn: Any) -> Callable[[], Any]:
    """Fetch one row by its key, 200 times."""

    def work() -> None:
        for key in range(200):
            conn.execute(POINT, (key + 1,)).fetchone()

    return work


def transaction(conn: Any) -> Callable[[], Any]:
    """Run a transaction of three statements, 10 times."""

    def work() -> None:
        for key in range(10):
            with conn.transaction():
                conn.execute(UPDATE, (key + 1,))
                conn.execute(POINT, (key + 1,)).fetchone()
                conn.execute(UPDATE, (key + 2,))

    return work


def many(conn: Any) -> Callable[[], Any]:
    """Insert 10,000 rows in a transaction that is rolled back."""

    def work() -> None:
        with conn.transaction(force_rollback=True):
            conn.cursor().executemany("INSERT INTO target VALUES (%s, %s)", ROWS)

    return work


def run_task(loop: asyncio.AbstractEventLoop, task: Callable[[], Any]) -> Callable[[], Any]:
    """Have a coroutine function called like any other."""
    return lambda: loop.run_until_complete(task())


def aio_point(conns: list[Any]) -> Callable[[], Any]:
    """Fetch one row by its key, 200 times in all."""

    async def one(conn: Any) -> None:
        for key in range(200 // len(conns)):
            await (
                await conn.execute("SELECT id, name, price FROM item WHERE id = $1", (key + 1,))
            ).fetchone()

    async def work() -> None:
        await asyncio.gather(*(one(conn) for conn in conns))

    return work


def asyncpg_point(conns: list[Any]) -> Callable[[], Any]:
    """Fetch one row by its key, 200 times in all."""

    async def one(conn: Any) -> None:
        for key in range(200 // len(conns)):
            await conn.fetchrow("SELECT id, name, price FROM item WHERE id = $1", key + 1)

    async def work() -> None:
        await asyncio.gather(*(one(conn) for conn in conns))

    return work


def aio_many(conn: Any) -> Callable[[], Any]:
    """Insert 10,000 rows in a transaction that is rolled back."""

    async def work() -> None:
        async with conn.transaction(force_rollback=True):
            await conn.cursor().executemany("INSERT INTO target VALUES ($1, $2)", ROWS)

    return work


def asyncpg_many(conn: Any) -> Callable[[], Any]:
    """Insert 10,000 rows in a transaction that is rolled back."""

    async def work() -> None:
        block = conn.transaction()
        await block.start()
        await conn.executemany("INSERT INTO target VALUES ($1, $2)", ROWS)
        await block.rollback()

    return work


def compare(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """Have all take turns; the first is ours."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for number in range(rounds):
        # Nobody is always the one behind the same other.
        names = list(ways) if number % 2 else list(reversed(ways))
        for name in names:
            start = time.perf_counter()
            ways[name]()
            took[name].append((time.perf_counter() - start) * 1e3)
    ours, *peers = ways
    ratios = {peer: [a / b for a, b in zip(took[ours], took[peer], strict=True)] for peer in peers}
    return {
        "ms": {name: statistics.median(times) for name, times in took.items()},
        "ratio": {peer: statistics.median(all_) for peer, all_ in ratios.items()},
        "quartiles": {peer: statistics.quantiles(all_, n=4)[::2] for peer, all_ in ratios.items()},
    }


def measure(
    kind: str, cluster: Cluster, loop: asyncio.AbstractEventLoop, rounds: int
) -> dict[str, dict[str, Any]]:
    """Measure everything over one kind of socket."""
    host = "127.0.0.1" if kind == "TCP" else str(cluster.primary.directory)
    port = cluster.primary.port
    uri = cluster.uri if kind == "TCP" else cluster.dsn_unix
    wait = loop.run_until_complete
    ours = segue.connect(uri, autocommit=True)
    theirs = psycopg.connect(f"host={host} port={port} user=app dbname=app", autocommit=True)
    theirs.prepare_threshold = 0
    ours_aio = [wait(aio.connect(uri, autocommit=True)) for _ in range(10)]
    peer = {"host": host, "port": port, "user": "app", "database": "app", "ssl": False}
    theirs_aio = [wait(asyncpg.connect(**peer)) for _ in range(10)]
    results = {
        "point query": compare({"segue": point(ours), "psycopg": point(theirs)}, rounds),
        "transaction of 3": compare(
            {"segue": transaction(ours), "psycopg": transaction(theirs)}, rounds
        ),
        "executemany of 10,000": compare(
            {
                "segue": many(ours),
                "psycopg": many(theirs),
                "asyncpg": run_task(loop, asyncpg_many(theirs_aio[0])),
            },
            max(3, rounds // 2),
        ),
        "aio: executemany of 10,000": compare(
            {
                "segue.aio": run_task(loop, aio_many(ours_aio[0])),
                "asyncpg": run_task(loop, asyncpg_many(theirs_aio[0])),
            },
            max(3, rounds // 2),
        ),
        "aio: point query": compare(
            {
                "segue.aio": run_task(loop, aio_point(ours_aio[:1])),
                "asyncpg": run_task(loop, asyncpg_point(theirs_aio[:1])),
            },
            rounds,
        ),
        "aio: point query, 10 ways": compare(
            {
                "segue.aio": run_task(loop, aio_point(ours_aio)),
                "asyncpg": run_task(loop, asyncpg_point(theirs_aio)),
            },
            rounds,
        ),
    }
    ours.close()
    theirs.close()
    for conn in ours_aio + theirs_aio:
        wait(conn.close())
    return results


def main(arguments: Any) -> None:
    """Measure everything over both kinds of sockets."""
    make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if arguments.loop == "uvloop":
        import uvloop

        make_loop = uvloop.new_event_loop
    loop = make_loop()
    results = {}
    # Servers on one processor, drivers on another: where the scheduler puts each backend would be
    # measured instead. Under `taskset -c 0` both share one.
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, processors[1:] or processors)
    with Cluster(standbys=1, replication="async") as cluster:
        with segue.connect(cluster.uri) as conn:
            conn.execute("CREATE TABLE item (id int PRIMARY KEY, name text, price int)")
            conn.execute("CREATE TABLE target (id int, name text)")
            conn.execute(
                "INSERT INTO item SELECT i, 'item ' || i, 0 FROM generate_series(1, 1000) i"
            )
        os.sched_setaffinity(0, processors[:1])
        for kind in ("TCP", "Unix"):
            results[kind] = measure(kind, cluster, loop, arguments.rounds)
            for name, result in [] if arguments.json else results[kind].items():
                ratios = "  ".join(
                    f"{ratio:.2f} of {peer} ({result['quartiles'][peer][0]:.2f} .. "
                    f"{result['quartiles'][peer][1]:.2f})"
                    for peer, ratio in result["ratio"].items()
                )
                times = "  ".join(f"{peer} {ms:.1f}" for peer, ms in result["ms"].items())
                print(f"{kind:5} {name:27} {ratios}   ms: {times}", flush=True)
    loop.close()
    if arguments.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--json", action="store_true")
    main(parser.parse_args())
