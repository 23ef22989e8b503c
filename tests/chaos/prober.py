"""Asks every node, through plain libpq and past every client under test, whether it takes writes.

What it sees is the cluster's own share of a pause: from the last write that the old primary has
acknowledged to the first one of the new primary. One line for each answer that differs from the node's
last one, and for each write: "time node state timeline".
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg

from .clientlog import now_us

PERIOD_S = 0.04
PATIENCE_S = 1.0

STATE = """
    SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END,
           CASE WHEN pg_is_in_recovery()
                THEN (SELECT timeline_id FROM pg_control_checkpoint())
                ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END
"""
# A transaction that has to wait for synchronous standbys, and leaves nothing behind.
WRITE = "SELECT pg_logical_emit_message(true, 'chaos', '')"


@dataclass(frozen=True)
class Sight:
    """One line of the log."""

    time: int
    node: str
    state: str
    timeline: int


async def watch(name: str, address: str, log: int) -> None:
    """Asks one node for ever."""
    last = ""
    conn: psycopg.AsyncConnection[tuple[str, int]] | None = None

    def note(state: str, timeline: int) -> None:
        nonlocal last
        if state == "write" or state != last:
            os.write(log, f"{now_us()} {name} {state} {timeline}\n".encode())
        last = state

    while True:
        await asyncio.sleep(PERIOD_S)
        try:
            async with asyncio.timeout(PATIENCE_S):
                if conn is None:
                    conn = await psycopg.AsyncConnection[tuple[str, int]].connect(
                        f"host={address} user=postgres dbname=postgres connect_timeout=2"
                        " application_name=prober",
                        autocommit=True,
                    )
                row = await (await conn.execute(STATE)).fetchone()
                state, timeline = row if row else ("down", 0)
                if state == "primary":
                    await conn.execute(WRITE)
                    state = "write"
            note(state, timeline)
        except (psycopg.Error, TimeoutError, OSError) as error:
            note("silent" if isinstance(error, TimeoutError) else "down", 0)
            if conn is not None:
                # Not close(): it would wait for a server that says nothing.
                conn.pgconn.finish()
                conn = None


def read(path: Path) -> list[Sight]:
    """What a prober has written."""
    sights = []
    for line in path.read_text().split("\n")[:-1]:
        time, node, state, timeline = line.split(" ")
        sights.append(Sight(int(time), node, state, int(timeline)))
    return sights


async def main() -> None:
    """`prober LOG name=address...`."""
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nodes = (word.split("=") for word in sys.argv[2:])
    await asyncio.gather(*(watch(name, address, log) for name, address in nodes))


if __name__ == "__main__":
    asyncio.run(main())
