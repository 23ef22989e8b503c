"""What became of the transactions of clients that were killed with SIGKILL, through either face.

The client that dies works with `segue` or with `segue.aio`; another one, of either kind, is told
what it had in flight.
"""

from __future__ import annotations

import asyncio
import decimal
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

import pytest
from recovertools import create, killed, running, waits, written
from submittools import wait_until

import segue
import segue.aio
from segue.recovery import BaseRecovered, RecoveredStatement
from segue.testing import Cluster

T = TypeVar("T")
FACES = ("sync", "aio")
VALUES = (1, "Ada", bytes([0, 255]), decimal.Decimal("12.50"))


@pytest.fixture
def table(cluster: Cluster) -> str:
    name = f"r{uuid.uuid4().hex[:12]}"
    create(cluster, name)
    return name


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def options(journal: Path, **more: Any) -> dict[str, Any]:
    return {"journal": "file", "journal_dir": journal, **more}


def last(table: str) -> str:
    return f"UPDATE {table} SET note = $1 WHERE id = $2"


def rows(cluster: Cluster, table: str, where: str = "true") -> int:
    sql = f"SELECT count(*) FROM {table} WHERE {where}"
    [(count,)] = cluster.sql(cluster.primary, sql)
    return int(count or -1)


class Told:
    """What was found, and is the same through both faces."""

    def __init__(self, it: BaseRecovered, statements: list[RecoveredStatement]) -> None:
        self.it, self.statements = it, statements


def recovered(
    cluster: Cluster, journal: Path, face: str, *, again: bool = False, done: bool = True
) -> list[Told]:
    """Open the journal and look; run what was found again where that is asked for."""
    if face == "sync":
        return _recovered(cluster, journal, again, done)
    return asyncio.run(_recovered_aio(cluster, journal, again, done))


def _recovered(cluster: Cluster, journal: Path, again: bool, done: bool) -> list[Told]:
    with segue.Client(cluster.uri, **options(journal)) as client:
        told = []
        for it in client.recover():
            assert isinstance(it, segue.RecoveredTransaction)
            told.append(Told(it, list(it.statements())))
            if again:
                with client.connect() as conn:
                    for statement in it.statements():
                        if statement.copy_data:
                            with conn.cursor().copy(statement.sql) as copy:
                                copy.write(statement.copy_data)
                        else:
                            conn.execute(statement.sql, statement.params)
            if done:
                it.done()
                it.done()
        if done:
            assert client.recover() == []
        return told


async def _recovered_aio(cluster: Cluster, journal: Path, again: bool, done: bool) -> list[Told]:
    async with segue.aio.Client(cluster.uri, **options(journal)) as client:
        told = []
        for it in await client.recover():
            assert isinstance(it, segue.aio.RecoveredTransaction)
            told.append(Told(it, [statement async for statement in it.statements()]))
            if again:
                async with await client.connect() as conn:
                    async for statement in it.statements():
                        if statement.copy_data:
                            async with conn.cursor().copy(statement.sql) as copy:
                                await copy.write(statement.copy_data)
                        else:
                            await conn.execute(statement.sql, statement.params)
            if done:
                await it.done()
                await it.done()
        if done:
            assert await client.recover() == []
        return told


# Killed.


@pytest.mark.parametrize("dying", FACES)
def test_in_the_middle(cluster: Cluster, table: str, journal: Path, face: str, dying: str) -> None:
    killed(dying, cluster, journal, table, "middle", lambda: written(journal, last(table)))
    [told] = recovered(cluster, journal, face, done=False)
    it = told.it
    assert it.verdict is segue.Verdict.NEVER_SENT
    assert str(it.verdict) == "never_sent"
    assert it.reason is None
    assert not (it.is_doubtful or it.autocommit or it.read_only)
    assert it.number > 0
    assert it.session_number is not None
    assert it.session is not None
    assert it.database
    assert it.user
    assert it.began_at is not None
    assert abs(datetime.now(timezone.utc) - it.began_at) < timedelta(hours=1)
    assert it.begin == ""
    assert it.statement_count == 2
    assert it.bytes > 0
    assert it.seals == ()
    assert f"{it.number}: never_sent" in repr(it)
    insert, update = told.statements
    assert insert.sql == f"INSERT INTO {table} (id, note, raw, price) VALUES ($1, $2, $3, $4)"
    assert insert.values == VALUES
    assert not insert.simple
    assert "Ada" not in repr(insert)
    assert update.values == (None, 1)
    assert rows(cluster, table) == 0
    [again] = recovered(cluster, journal, face, again=True)
    assert again.it.number == it.number
    assert rows(cluster, table, "id = 1 AND note IS NULL AND price = 12.5") == 1
    assert rows(cluster, table, "raw = '\\x00ff'") == 1


@pytest.mark.parametrize("what", ["commit", "pipeline"])
def test_at_commit(cluster: Cluster, table: str, journal: Path, face: str, what: str) -> None:
    """Of a pipeline all is sent ahead; it is in the journal before its COMMIT leaves."""
    with segue.connect(cluster.uri) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(1)")
        killed(face, cluster, journal, table, what, lambda: waits(cluster, "advisory"))
        [told] = recovered(cluster, journal, face)
        holder.rollback()
    assert told.it.verdict is segue.Verdict.NOT_COMMITTED
    [seal] = told.it.seals
    assert seal.committed is False
    assert seal.number > 0
    assert str(seal.row) not in repr(seal)
    ids = [it.values[0] for it in told.statements if it.values and it.values[0]]
    assert ids == ([1] if what == "commit" else [1, 2, 3, 4, 5])
    assert rows(cluster, table) == 0


def test_in_an_autocommit_statement(cluster: Cluster, table: str, journal: Path, face: str) -> None:
    with segue.connect(cluster.uri) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(7)")
        killed(face, cluster, journal, table, "autocommit", lambda: waits(cluster, "advisory"))
        [told] = recovered(cluster, journal, face)
        holder.rollback()
    assert told.it.autocommit
    assert told.it.verdict is segue.Verdict.NOT_COMMITTED
    [statement] = told.statements
    assert statement.params is None
    assert statement.values == ()
    assert rows(cluster, table) == 0


@pytest.mark.parametrize("what", ["copy", "executemany"])
def test_many_rows(cluster: Cluster, table: str, journal: Path, face: str, what: str) -> None:
    killed(face, cluster, journal, table, what, lambda: written(journal, last(table)))
    [told] = recovered(cluster, journal, face, again=True)
    assert told.it.verdict is segue.Verdict.NEVER_SENT
    if what == "copy":
        assert [it.copy_data for it in told.statements] == [b"", b"2\n3\n", b""]
    else:
        assert [it.values[0] for it in told.statements] == [1, 2, 3, None]
    assert rows(cluster, table, "id IN (1, 2, 3)") == 3


def test_a_child_leaves_the_parent_s_journal_alone(
    cluster: Cluster, table: str, journal: Path
) -> None:
    """A child of fork() that ends, and closes all that it has, in the midst of a transaction."""
    killed("sync", cluster, journal, table, "fork", lambda: written(journal, last(table)))
    [told] = recovered(cluster, journal, "sync", again=True)
    assert told.it.verdict is segue.Verdict.NEVER_SENT
    assert [it.values[0] for it in told.statements] == [1, 2, None]
    assert rows(cluster, table, "id IN (1, 2)") == 2


@pytest.mark.segue_cluster(standbys=0)
def test_behind_commit(segue_cluster: Cluster, journal: Path, face: str) -> None:
    """It waits for a standby that never comes, and its commit stands."""
    cluster = segue_cluster
    create(cluster, "r")

    def standbys(names: str) -> None:
        cluster.sql(0, f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        cluster.sql(0, "SELECT pg_reload_conf()")

    with running(face, cluster, journal, "r", "many") as child:
        child.stdout.readline()
        standbys("nobody")
        wait_until(lambda: waits(cluster, "SyncRep"))
    standbys("")
    told = recovered(cluster, journal, face)
    committed = [it for it in told if it.it.verdict is segue.Verdict.COMMITTED]
    assert committed
    for it in committed:
        assert it.it.seals[-1].committed is True
        assert rows(cluster, "r", f"id = {it.statements[0].values[0]}") == 1


@pytest.mark.segue_cluster(standbys=0)
def test_nobody_to_ask(segue_cluster: Cluster, journal: Path, face: str) -> None:
    cluster = segue_cluster
    create(cluster, "r")
    with segue.connect(cluster.uri) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(1)")
        killed(face, cluster, journal, "r", "commit", lambda: waits(cluster, "advisory"))
    cluster.stop(0)
    with segue.Client(cluster.uri, failover_timeout_ms=2000, **options(journal)) as client:
        [it] = client.recover()
        assert it.verdict is segue.Verdict.UNKNOWN
        assert "the ledger could not be asked" in (it.reason or "")
        assert it.seals[0].committed is None


def test_again_and_again(cluster: Cluster, table: str, journal: Path, face: str) -> None:
    """Killed at any moment while committing one after the other: what is told is what is there."""
    for round in range(4):
        of_round = f"{table}_{round}"
        create(cluster, of_round)
        with running(face, cluster, journal, of_round, "many") as child:
            lines = [child.stdout.readline() for _ in range(10 + 17 * round)]
            child.send_signal(signal.SIGKILL)
            lines += child.stdout
        for told in recovered(cluster, journal, face):
            there = rows(cluster, of_round, f"id = {told.statements[0].values[0]}")
            assert told.it.verdict is not segue.Verdict.UNKNOWN
            assert there == (told.it.verdict is segue.Verdict.COMMITTED)
        for line in lines:
            assert rows(cluster, of_round, f"id = {line.split()[1]}") == 1


# Journals.


def test_a_client_that_is_closed_lets_go(cluster: Cluster, table: str, journal: Path) -> None:
    killed("sync", cluster, journal, table, "middle", lambda: written(journal, last(table)))
    with segue.Client(cluster.uri, **options(journal)) as client:
        [it] = client.recover()
        statements = it.statements()
        assert next(statements).values == VALUES
    # The variables are still there, and the journal is free.
    with segue.Client(cluster.uri, application_name="other", **options(journal)) as client:
        with pytest.raises(segue.InterfaceError, match="closed"):
            it.done()
        with pytest.raises(segue.InterfaceError, match="closed"):
            next(statements)
        assert it.verdict is segue.Verdict.NEVER_SENT
        client.recover()[0].done()
    with pytest.raises(segue.InterfaceError, match="closed"):
        client.recover()


def test_journals_that_are_not_opened(cluster: Cluster, table: str, journal: Path) -> None:
    with running("sync", cluster, journal, table, "middle"):
        wait_until(lambda: written(journal, last(table)))
        with pytest.raises(segue.errors.ConfigurationError, match="journal_locked"):
            segue.Client(cluster.uri, **options(journal))

        async def locked() -> None:
            with pytest.raises(segue.errors.ConfigurationError, match="journal_locked"):
                await segue.aio.Client(cluster.uri, **options(journal))

        asyncio.run(locked())
    with pytest.raises(segue.errors.ConfigurationError, match="journal_not_encrypted"):
        segue.Client(cluster.uri, **options(journal, journal_key="ab" * 32))
    assert len(recovered(cluster, journal, "sync")) == 1


def test_a_wrong_key(cluster: Cluster, table: str, journal: Path) -> None:
    right, wrong = "ab" * 32, "cd" * 32
    with segue.connect(cluster.uri) as holder:
        holder.execute(f"LOCK TABLE {table}")
        with segue.Client(cluster.uri, **options(journal, journal_key=right)) as client:
            client.submit([(f"INSERT INTO {table} (id) VALUES (%s)", (4711,))], key=table)
        with pytest.raises(segue.errors.ConfigurationError, match="journal_wrong_key") as info:
            segue.Client(cluster.uri, **options(journal, journal_key=wrong))
        assert wrong not in str(info.value)
        with pytest.raises(segue.errors.ConfigurationError, match="journal_key_needed"):
            segue.Client(cluster.uri, **options(journal))
    with segue.Client(cluster.uri, **options(journal, journal_key=right)) as client:
        assert client.recover() == []
        ticket = client.ticket_for_key(table)
        assert ticket is not None
        assert ticket.wait(60) is not None


def test_without_a_journal_there_is_nothing(cluster: Cluster) -> None:
    async def main() -> None:
        async with segue.aio.Client(cluster.uri) as client:
            assert await client.recover() == []
            assert client.status().journal is None

    with segue.Client(cluster.uri) as client:
        assert client.recover() == []
        assert client.status().journal is None
    asyncio.run(main())


def test_figures(cluster: Cluster, table: str, journal: Path) -> None:
    def size(client: segue.Client) -> int:
        status = client.status().journal
        assert status == segue.JournalStatus(journal, status.bytes if status else -1)
        return status.bytes

    with segue.Client(cluster.uri, **options(journal)) as client, client.connect() as conn:
        before = size(client)
        for _ in range(32):
            conn.execute(f"INSERT INTO {table} (note) VALUES (%s)", ("x" * 65536,))
        wait_until(lambda: size(client) >= before + 32 * 65536)


def test_a_child_of_fork_is_told(cluster: Cluster, table: str, journal: Path) -> None:
    killed("sync", cluster, journal, table, "middle", lambda: written(journal, last(table)))
    with segue.Client(cluster.uri, **options(journal)) as client:
        [it] = client.recover()
        statements = it._native.statements()
        pid = os.fork()
        if pid == 0:
            told = 0
            calls: list[Callable[[], object]] = [
                client.recover,
                it.done,
                lambda: next(it.statements()),
                statements.next,
            ]
            for call in calls:
                try:
                    call()
                except segue.errors.ConnectionForked:
                    told += 1
            os._exit(told)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 4
        assert next(it.statements()).values == VALUES
        it.done()
        assert client.recover() == []


def test_a_fork_while_a_client_is_opened(cluster: Cluster, journal: Path, tmp_path: Path) -> None:
    """The child is told that the journal is the parent's, and waits for nobody who is not there."""
    key = tmp_path / "key"
    os.mkfifo(key, 0o600)
    what = options(journal, journal_key_file=key)
    opened: list[segue.Client] = []
    thread = threading.Thread(target=lambda: opened.append(segue.Client(cluster.uri, **what)))
    thread.start()
    # The key is read when the directory is there, with the client's place taken.
    wait_until((journal / "lock").exists)
    time.sleep(0.05)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            segue.Client(cluster.uri, **what)
        except segue.errors.ConfigurationError as error:
            os._exit(0 if "journal_locked" in str(error) else 1)
        os._exit(2)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    key.write_text("ab" * 32)
    thread.join()
    opened[0].close()


# The page.


def example(language: str, number: int) -> str:
    page = Path(__file__).parents[2] / "docs" / "recovery.md"
    blocks = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    found: str = blocks[number]
    return found


def test_the_example_of_the_page(cluster: Cluster, table: str, journal: Path) -> None:
    killed("sync", cluster, journal, table, "middle", lambda: written(journal, last(table)))
    with segue.Client(cluster.uri, **options(journal)) as client:
        reported: list[object] = []
        names = {"client": client, "segue": segue, "report": lambda *it: reported.append(it)}
        exec(example("python", 0), names)
        assert reported == []
        assert client.recover() == []
    assert rows(cluster, table, "id = 1 AND note IS NULL") == 1


def test_the_asyncio_example_of_the_page(cluster: Cluster, table: str, journal: Path) -> None:
    killed("aio", cluster, journal, table, "middle", lambda: written(journal, last(table)))

    async def main() -> None:
        async with segue.aio.Client(cluster.uri, **options(journal)) as client:
            names: dict[str, Any] = {"segue": segue, "report": print}
            body = "".join(f"    {line}\n" for line in example("python", 1).splitlines())
            exec(f"async def main(client):\n{body}", names)
            run: Callable[[segue.aio.Client], Awaitable[None]] = names["main"]
            await run(client)
            assert await client.recover() == []

    asyncio.run(main())
    assert rows(cluster, table, "id = 1 AND note IS NULL") == 1
