"""Measures how fast transactions are handed over, and done, from one thread and from asyncio.

    python benchmarks/submit.py [--count 5000] [--rounds 5] [--journal-dir DIR]

Each transaction is an INSERT of one row. Figures are transactions in a second: until all have been
handed over (kept, as the journal understands it), and until all are committed; the medians of the
rounds. The server, a primary and a standby, has its data in memory where there is room; the journal
is on the disk of `--journal-dir`. Beside them the disk's own rate of appending 128 bytes and
fdatasync, one after the other, which is what `journal_sync=always` costs whoever waits alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import segue
from segue import aio
from segue.testing import Cluster

INSERT = "INSERT INTO sale VALUES (%s, %s)"


def one_thread(client: segue.Client, count: int) -> tuple[float, float]:
    """Hand over one after the other."""
    start = time.perf_counter()
    tickets = [client.submit([(INSERT, (n, "article"))]) for n in range(count)]
    handed = time.perf_counter()
    for ticket in tickets:
        ticket.wait()
    return count / (handed - start), count / (time.perf_counter() - start)


async def tasks(client: aio.Client, count: int) -> tuple[float, float]:
    """Hand over from a thousand tasks."""
    numbers = iter(range(count))
    tickets: list[aio.Ticket] = []

    async def hand_over() -> None:
        for n in numbers:
            tickets.append(await client.submit([(INSERT, (n, "article"))]))

    start = time.perf_counter()
    await asyncio.gather(*(hand_over() for _ in range(1000)))
    handed = time.perf_counter()
    await asyncio.gather(*tickets)
    return count / (handed - start), count / (time.perf_counter() - start)


def raw(directory: Path, seconds: float = 1.0) -> float:
    """Append and fdatasync, one after the other."""
    with tempfile.TemporaryFile(dir=directory) as file:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            os.write(file.fileno(), b"x" * 128)
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.perf_counter() - start)


def main() -> None:
    """Measure all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--journal-dir", type=Path, default=Path.cwd())
    args = parser.parse_args()
    with Cluster() as cluster, tempfile.TemporaryDirectory(dir=args.journal_dir) as directory:
        with segue.connect(cluster.uri, autocommit=True) as conn:
            conn.execute("CREATE TABLE sale (number int, article text)")
        print(f"append and fdatasync: {raw(args.journal_dir):.0f} a second")
        print(f"{'journal':24} {'handed over':>12} {'committed':>12}")
        for sync in ("", "none", "batch", "always"):
            # The journal's bound is for what has not ended, and nothing is to wait for room here.
            options: dict[str, Any] = {"journal_bytes_max": 256 << 20}
            if sync:
                options |= {"journal": "file", "journal_sync": sync}
                options["journal_dir"] = Path(directory) / sync
            name = f"file, {sync}" if sync else "memory"

            async def from_tasks(options: dict[str, Any] = options) -> tuple[float, float]:
                async with aio.Client(cluster.uri, **options) as client:
                    return await tasks(client, args.count)

            rates: dict[str, list[tuple[float, float]]] = {"thread": [], "asyncio": []}
            for _ in range(args.rounds):
                with segue.Client(cluster.uri, **options) as client:
                    rates["thread"].append(one_thread(client, args.count))
                rates["asyncio"].append(asyncio.run(from_tasks()))
            for kind, values in rates.items():
                handed, done = (statistics.median(column) for column in zip(*values, strict=True))
                print(f"{name + ', ' + kind:24} {handed:12.0f} {done:12.0f}")


if __name__ == "__main__":
    main()
