"""Measures fetching 100,000 rows x 6 columns against psycopg 3 (binary) and asyncpg.

    python benchmarks/rows.py [--rounds 15] [--json]

All take turns on a server that this starts; what counts are the medians of the ratios within a
round, so that a machine that is busy with other things disturbs both sides. `raw` reads the same
reply from a bare socket and throws it away: that is the server's own time, below which no driver
can get. The CPU column says how much of a driver's time is its own thread's work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import struct
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg

import segue
from segue import aio
from segue.testing import Cluster

TABLES = {
    "plain": "SELECT i::int8 AS a, i % 100 AS b, 'text ' || i AS c, i * 1.5::float8 AS d, "
    "timestamp '2020-01-01' + i * interval '1 min' AS e, i % 2 = 0 AS f",
    "rich": "SELECT i::int8 AS a, (i * 1.25)::numeric(12, 2) AS b, 'text ' || i AS c, "
    "gen_random_uuid() AS d, timestamptz '2020-01-01' + i * interval '1 min' AS e, "
    "date '2020-01-01' + i % 1000 AS f",
}
READY = b"Z\0\0\0\x05I"


def message(kind: bytes, body: bytes) -> bytes:
    """Make one message of the protocol."""
    return kind + struct.pack("!i", len(body) + 4) + body


class Raw:
    """A client that throws everything away."""

    def __init__(self, host: str, port: int, query: str) -> None:
        if host.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(f"{host}/.s.PGSQL.{port}")
        else:
            self.socket = socket.create_connection((host, port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(1 << 20)
        startup = struct.pack("!i", 3 << 16) + b"user\0app\0database\0app\0\0"
        self.socket.sendall(struct.pack("!i", len(startup) + 4) + startup)
        self.pass_over()
        parse = message(b"P", b"s\0" + query.encode() + b"\0\0\0")
        self.socket.sendall(parse + message(b"S", b""))
        self.pass_over()

    def pass_over(self) -> None:
        """Read up to the end of a reply."""
        end = b""
        while end != READY:
            got = self.socket.recv_into(self.buffer)
            if got == 0:
                raise ConnectionError("the server closed the connection")
            end = (end + bytes(self.buffer[max(0, got - 6) : got]))[-6:]

    def run(self) -> None:
        """Execute the statement, with a result in binary."""
        bind = message(b"B", b"\0s\0" + struct.pack("!hhhh", 0, 0, 1, 1))
        execute = message(b"E", b"\0" + struct.pack("!i", 0))
        self.socket.sendall(bind + execute + message(b"S", b""))
        self.pass_over()


def compare(kind: str, cluster: Cluster, table: str, rounds: int) -> dict[str, Any]:
    """Measure one table over one kind of socket."""
    host = "127.0.0.1" if kind == "TCP" else str(cluster.primary.directory)
    port = cluster.primary.port
    uri = cluster.uri if kind == "TCP" else cluster.dsn_unix
    query = f"SELECT * FROM {table}"
    loop = asyncio.new_event_loop()
    wait = loop.run_until_complete
    ours = segue.connect(uri, autocommit=True)
    ours_aio = wait(aio.connect(uri, autocommit=True))
    theirs = psycopg.connect(f"host={host} port={port} user=app dbname=app", autocommit=True)
    theirs_aio = wait(asyncpg.connect(host=host, port=port, user="app", database="app", ssl=False))
    raw = Raw(host, port, query)

    async def fetch() -> Any:
        return await (await ours_aio.execute(query)).fetchall()

    ways: dict[str, Callable[[], Any]] = {
        "raw": raw.run,
        "segue": lambda: ours.execute(query).fetchall(),
        "psycopg": lambda: theirs.cursor(binary=True).execute(query).fetchall(),
        "segue.aio": lambda: wait(fetch()),
        "asyncpg": lambda: wait(theirs_aio.fetch(query)),
    }
    assert ways["segue"]() == ways["psycopg"]() == ways["segue.aio"]()
    took: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start, start_cpu = time.perf_counter(), time.thread_time()
            rows = way()
            cpu[name].append((time.thread_time() - start_cpu) * 1e3)
            took[name].append((time.perf_counter() - start) * 1e3)
            del rows
    ours.close()
    theirs.close()
    raw.socket.close()
    wait(ours_aio.close())
    wait(theirs_aio.close())
    loop.close()

    def ratio(slower: str, faster: str) -> float:
        return statistics.median(a / b for a, b in zip(took[slower], took[faster], strict=True))

    return {
        "socket": kind,
        "table": table,
        "ms": {name: statistics.median(times) for name, times in took.items()},
        "cpu_ms": {name: statistics.median(times) for name, times in cpu.items()},
        "psycopg / segue": ratio("psycopg", "segue"),
        "asyncpg / segue.aio": ratio("asyncpg", "segue.aio"),
        "segue / raw": ratio("segue", "raw"),
        "psycopg / raw": ratio("psycopg", "raw"),
    }


def main(arguments: Any) -> None:
    """Measure everything over both kinds of sockets."""
    results = []
    with Cluster(standbys=0) as cluster:
        with segue.connect(cluster.uri, autocommit=True) as conn:
            for name, select in TABLES.items():
                conn.execute(f"CREATE TABLE {name} AS {select} FROM generate_series(1, 100000) i")
            conn.execute("VACUUM ANALYZE")
        for kind in ("TCP", "Unix"):
            for table in TABLES:
                result = compare(kind, cluster, table, arguments.rounds)
                results.append(result)
                if not arguments.json:
                    times = "  ".join(
                        f"{name} {result['ms'][name]:.0f} ({result['cpu_ms'][name]:.0f})"
                        for name in result["ms"]
                    )
                    ratios = "  ".join(
                        f"{name} {result[name]:.2f}" for name in result if "/" in name
                    )
                    print(f"{kind:5} {table:6} ms (CPU): {times}\n{'':13}{ratios}", flush=True)
    if arguments.json:
        print(json.dumps({"results": results}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    main(parser.parse_args())
