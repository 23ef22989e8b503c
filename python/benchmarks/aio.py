"""Measures `segue.aio` against asyncpg, side by side on a server that it starts.

    python benchmarks/aio.py [--seconds 1.0] [--rounds 5] [--loop asyncio|uvloop] [--json]

Both drivers take turns, several times, and the best round of each counts: what disturbs a round
only ever makes it slower. Segue's connections are protected, asyncpg's are not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from segue import aio
from segue.testing import Cluster

QUERY = "SELECT id, name, price FROM item WHERE id = $1"
WAYS = 10

Work = Callable[[Any], Awaitable[None]]


async def segue_point(conn: Any) -> None:
    """Fetch one row by its key."""
    cur = await conn.execute(QUERY, (17,))
    await cur.fetchone()


async def asyncpg_point(conn: Any) -> None:
    """Fetch one row by its key."""
    await conn.fetchrow(QUERY, 17)


async def segue_transaction(conn: Any) -> None:
    """Run a transaction of three statements."""
    async with conn.transaction():
        await conn.execute("UPDATE item SET price = price + 1 WHERE id = $1", (18,))
        await (await conn.execute(QUERY, (18,))).fetchone()
        await conn.execute("UPDATE item SET price = price - 1 WHERE id = $1", (18,))


async def asyncpg_transaction(conn: Any) -> None:
    """Run a transaction of three statements."""
    async with conn.transaction():
        await conn.execute("UPDATE item SET price = price + 1 WHERE id = $1", 18)
        await conn.fetchrow(QUERY, 18)
        await conn.execute("UPDATE item SET price = price - 1 WHERE id = $1", 18)


ROWS = [(i, f"name {i}") for i in range(10_000)]


async def segue_many(conn: Any) -> None:
    """Insert 10,000 rows."""
    async with conn.transaction(force_rollback=True):
        await conn.cursor().executemany("INSERT INTO target VALUES ($1, $2)", ROWS)


async def asyncpg_many(conn: Any) -> None:
    """Insert 10,000 rows."""
    transaction = conn.transaction()
    await transaction.start()
    await conn.executemany("INSERT INTO target VALUES ($1, $2)", ROWS)
    await transaction.rollback()


MIXED = (
    "SELECT i, i * 1.5::float8 AS f, 'name ' || i AS t, i % 2 = 0 AS b, "
    "timestamp '2024-01-01' + i * interval '1 s' AS ts, (i * 10000000000)::bigint AS big "
    "FROM generate_series(1, 100000) i"
)


async def segue_rows(conn: Any) -> None:
    """Fetch 100,000 rows of six columns."""
    await (await conn.execute(MIXED)).fetchall()


async def asyncpg_rows(conn: Any) -> None:
    """Fetch 100,000 rows of six columns."""
    await conn.fetch(MIXED)


TASKS: dict[str, tuple[Work, Work, int]] = {
    "point query": (segue_point, asyncpg_point, 1),
    f"point query, {WAYS} ways": (segue_point, asyncpg_point, WAYS),
    "transaction of 3": (segue_transaction, asyncpg_transaction, 1),
    "executemany of 10,000": (segue_many, asyncpg_many, 1),
    "100,000 rows x 6": (segue_rows, asyncpg_rows, 1),
}


async def measure(conns: list[Any], work: Work, seconds: float) -> float:
    """Repeat the work on each connection for so long; microseconds for one."""
    end = time.perf_counter() + seconds
    done = 0

    async def worker(conn: Any) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await work(conn)
            done += 1

    start = time.perf_counter()
    await asyncio.gather(*(worker(conn) for conn in conns))
    return (time.perf_counter() - start) / done * 1e6


async def compare(name: str, uri: str, peer: dict[str, Any], arguments: Any) -> dict[str, Any]:
    """Measure one task with both drivers."""
    ours, theirs, ways = TASKS[name]
    segues = [await aio.connect(uri, autocommit=True) for _ in range(ways)]
    peers = [await asyncpg.connect(**peer) for _ in range(ways)]
    best = {"segue": float("inf"), "asyncpg": float("inf")}
    for _ in range(arguments.rounds):
        for driver, conns, work in (("segue", segues, ours), ("asyncpg", peers, theirs)):
            await work(conns[0])
            best[driver] = min(best[driver], await measure(conns, work, arguments.seconds))
    for conn in segues + peers:
        await conn.close()
    return {"task": name, **best, "throughput": best["asyncpg"] / best["segue"]}


async def main(arguments: Any) -> None:
    """Measure everything over both kinds of sockets."""
    results = []
    with Cluster(standbys=1, replication="async") as cluster:
        async with await aio.connect(cluster.uri) as conn:
            await conn.execute("CREATE TABLE item (id int PRIMARY KEY, name text, price int)")
            await conn.execute("CREATE TABLE target (id int, name text)")
            await conn.execute(
                "INSERT INTO item SELECT i, 'item ' || i, 0 FROM generate_series(1, 1000) i"
            )
        for kind, uri in (("TCP", cluster.uri), ("Unix", cluster.dsn_unix)):
            primary = cluster.primary
            peer = {
                "host": "127.0.0.1" if kind == "TCP" else str(primary.directory),
                "port": primary.port,
                "user": "app",
                "database": "app",
                "ssl": False,
            }
            for name in TASKS:
                result = {"socket": kind, **await compare(name, uri, peer, arguments)}
                results.append(result)
                if not arguments.json:
                    print(
                        f"{kind:5} {name:24} segue {result['segue']:10.1f} us   "
                        f"asyncpg {result['asyncpg']:10.1f} us   "
                        f"{result['throughput']:5.2f}x asyncpg's throughput",
                        flush=True,
                    )
    if arguments.json:
        print(json.dumps({"loop": arguments.loop, "results": results}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    make = asyncio.new_event_loop
    if given.loop == "uvloop":
        import uvloop

        make = uvloop.new_event_loop
    make().run_until_complete(main(given))
