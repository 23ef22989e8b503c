"""Clients that are killed with SIGKILL, and what they leave in their journal."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from submittools import script, wait_until

from segue.testing import Cluster

INSERT = "INSERT INTO {table} (id, note, raw, price) VALUES (%s, %s, %s, %s)"
LAST = "UPDATE {table} SET note = %s WHERE id = %s"

# What each of them does up to where it waits to be killed; `run` drives either face.
SYNC = """
import decimal, os, segue, sys, time
uri, directory, table, what = sys.argv[1:]
client = segue.Client(uri, journal="file", journal_dir=directory)
conn = client.connect(autocommit=what == "autocommit")
insert = f"INSERT INTO {table} (id, note, raw, price) VALUES (%s, %s, %s, %s)"
last = f"UPDATE {table} SET note = %s WHERE id = %s"
def row(id):
    return (id, "Ada", bytes([0, 255]), decimal.Decimal("12.50"))
def tell(text):
    os.write(1, f"{text}\\n".encode())
if what == "autocommit":
    conn.execute(f"INSERT INTO {table} (id) SELECT 7 FROM pg_advisory_xact_lock(7)")
elif what == "many":
    number = 100
    while True:
        conn.execute(insert, row(number))
        conn.commit()
        tell(f"committed {number}")
        number += 1
elif what == "fork":
    # The child has the parent's client, connection and journal in its memory, and ends in order.
    conn.execute(insert, row(1))
    pid = os.fork()
    if pid == 0:
        for call in (lambda: conn.execute("SELECT 1"), conn.commit, client.recover):
            try:
                call()
            except segue.errors.ConnectionForked:
                continue
            os._exit(1)
        conn.close()
        client.close()
        del conn, client
        sys.exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        os._exit(1)
    conn.execute(insert, row(2))
    conn.execute(last, (None, 1))
elif what == "pipeline":
    with conn.pipeline():
        for id in range(1, 6):
            conn.execute(insert, row(id))
        conn.commit()
else:
    conn.execute(insert, row(1))
    if what == "copy":
        cur = conn.cursor()
        with cur.copy(f"COPY {table} (id) FROM STDIN") as copy:
            copy.write_row((2,))
            copy.write_row((3,))
    if what == "executemany":
        conn.cursor().executemany(insert, [row(2), row(3)])
    conn.execute(last, (None, 1))
    if what == "commit":
        conn.commit()
time.sleep(600)
"""

AIO = """
import asyncio, decimal, os, segue.aio, sys
uri, directory, table, what = sys.argv[1:]
insert = f"INSERT INTO {table} (id, note, raw, price) VALUES (%s, %s, %s, %s)"
last = f"UPDATE {table} SET note = %s WHERE id = %s"
def row(id):
    return (id, "Ada", bytes([0, 255]), decimal.Decimal("12.50"))
def tell(text):
    os.write(1, f"{text}\\n".encode())
async def main():
    client = await segue.aio.Client(uri, journal="file", journal_dir=directory)
    conn = await client.connect(autocommit=what == "autocommit")
    if what == "autocommit":
        await conn.execute(f"INSERT INTO {table} (id) SELECT 7 FROM pg_advisory_xact_lock(7)")
    elif what == "many":
        async def work(conn, number):
            while True:
                await conn.execute(insert, row(number))
                await conn.commit()
                tell(f"committed {number}")
                number += 1
        other = await client.connect()
        await asyncio.gather(work(conn, 100), work(other, 100_000))
    elif what == "pipeline":
        async with conn.pipeline():
            for id in range(1, 6):
                await conn.execute(insert, row(id))
            await conn.commit()
    else:
        await conn.execute(insert, row(1))
        if what == "copy":
            cur = conn.cursor()
            async with cur.copy(f"COPY {table} (id) FROM STDIN") as copy:
                await copy.write_row((2,))
                await copy.write_row((3,))
        if what == "executemany":
            await conn.cursor().executemany(insert, [row(2), row(3)])
        await conn.execute(last, (None, 1))
        if what == "commit":
            await conn.commit()
    await asyncio.sleep(600)
asyncio.run(main())
"""

CHILDREN = {"sync": SYNC, "aio": AIO}


def create(cluster: Cluster, table: str) -> None:
    """Make the table that they write to; at COMMIT they wait for whoever holds lock 1."""
    sql = f"""
        CREATE TABLE {table} (id int, note text, raw bytea, price numeric);
        GRANT ALL ON {table} TO PUBLIC;
        CREATE OR REPLACE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION waits()"""
    cluster.sql(cluster.primary, sql)


def written(directory: Path, text: str) -> bool:
    """Whether a file of a journal that is in the clear has a text in it."""
    try:
        return any(text.encode() in it.read_bytes() for it in directory.iterdir())
    except FileNotFoundError:
        return False


def waits(cluster: Cluster, event: str) -> bool:
    """Whether a backend waits for something."""
    sql = f"SELECT count(*) FROM pg_stat_activity WHERE wait_event = '{event}'"
    return cluster.sql(cluster.primary, sql) != [("0",)]


@contextlib.contextmanager
def running(face: str, cluster: Cluster, directory: Path, table: str, what: str) -> Iterator[Any]:
    """Run a client until the block ends; then it is killed."""
    with script(CHILDREN[face], cluster.uri, directory, table, what) as child:
        try:
            yield child
        finally:
            child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


def killed(
    face: str,
    cluster: Cluster,
    directory: Path,
    table: str,
    what: str,
    when: Callable[[], object],
) -> None:
    """Run a client, and kill it when something has come to pass."""
    with running(face, cluster, directory, table, what):
        wait_until(when)
