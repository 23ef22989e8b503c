"""What became of the transactions that an earlier process had in flight: `Client.recover`.

    for it in client.recover():
        if it.verdict in (segue.Verdict.NOT_COMMITTED, segue.Verdict.NEVER_SENT):
            with client.connect() as conn:
                for statement in it.statements():
                    conn.execute(statement.sql, statement.params)
        if it.verdict is not segue.Verdict.UNKNOWN:
            it.done()

docs/recovery.md says what each verdict means, and why it holds.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

from segue.types import Encoded

if TYPE_CHECKING:
    from segue import _segue


class Verdict(str, enum.Enum):
    """What became of a transaction."""

    COMMITTED = "committed"
    """It is in the database, exactly once."""
    NOT_COMMITTED = "not_committed"
    """Its commit was sent and has failed: nothing of it is in the database, now or later."""
    NEVER_SENT = "never_sent"
    """Its commit was never sent: nothing of it is in the database."""
    UNKNOWN = "unknown"
    """It may be committed or not; `reason` says why that cannot be told."""

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class SealEvidence:
    """One attempt to commit: where in the ledger it was to stand."""

    row: UUID = field(repr=False)
    """`segue.ledger.session`. Whoever knows it can seal in it."""
    number: int
    guarded: bool
    """It would have been written only if the transaction had written anything itself."""
    committed: bool | None
    """What the ledger says; None if it cannot say, or was not asked."""


@dataclass(frozen=True)
class RecoveredStatement:
    """A statement that an earlier process had executed."""

    sql: str = field(repr=False)
    """With `$1` and so on; if `simple`, any number of statements."""
    params: tuple[Encoded | None, ...] | None = field(repr=False)
    """As they were sent, for `execute`; None if there are none."""
    values: tuple[Any, ...] = field(repr=False)
    """The parameters as Python objects; bytes where a type is not known without its server."""
    copy_data: bytes = field(repr=False)
    """What was sent behind COPY FROM STDIN; empty for everything else."""
    simple: bool
    """It was sent as a simple query, without parameters."""

    @classmethod
    def _of(cls, native: _segue._Stated) -> RecoveredStatement:
        sql, sent, values, copy_data, simple = native
        params = (None if it is None else Encoded(it[2], it[0], it[1]) for it in sent)
        return cls(sql, tuple(params) if sent else None, values, copy_data, simple)


class BaseRecovered:
    """A transaction, or an autocommit statement, that an earlier process had in flight.

    It stays in the journal, and is found again, until `done()`. As long as it is there, the journal
    keeps its files, and no other client can have it; closing the client ends that.
    """

    __slots__ = (
        "__weakref__",
        "_native",
        "autocommit",
        "began_at",
        "begin",
        "bytes",
        "database",
        "is_doubtful",
        "number",
        "read_only",
        "reason",
        "seals",
        "session",
        "session_number",
        "statement_count",
        "user",
        "verdict",
    )

    number: int
    """Its number in the journal; `segue journal` calls it by the same."""
    verdict: Verdict
    reason: str | None
    """Why the verdict is `UNKNOWN`, and what can be done about it."""
    is_doubtful: bool
    """Records of it may be missing, because the journal was found damaged.

    Its statements are not to be run again without having looked at them.
    """
    session: UUID | None
    """The session that ran it; None if that record is lost, as with what follows."""
    session_number: int | None
    """The number of that session in the journal."""
    database: str | None
    user: str | None
    began_at: datetime | None
    """In UTC, by the clock of the machine that ran it."""
    autocommit: bool
    """It was one statement outside a transaction block."""
    read_only: bool
    """It was declared READ ONLY."""
    begin: str
    """The statement that began it; empty for a plain BEGIN."""
    statement_count: int
    """How many statements were recorded; `executemany` counts once."""
    bytes: int
    """What they take up in the journal."""
    seals: tuple[SealEvidence, ...]
    """Where in the ledger its commits were to stand, one for each attempt."""

    def __init__(self, native: _segue.Recovered) -> None:
        self._native = native
        known = native.described()
        session, began_at = known["session"], known["began_at"]
        known["verdict"] = Verdict(known["verdict"])
        known["session"] = None if session is None else UUID(int=session)
        if began_at is not None:
            known["began_at"] = datetime.fromtimestamp(began_at, timezone.utc)
        known["seals"] = tuple(SealEvidence(UUID(int=row), *it) for row, *it in known["seals"])
        for name, value in known.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} {self.number}: {self.verdict}>"


class RecoveredTransaction(BaseRecovered):
    """A transaction, or an autocommit statement, that an earlier process had in flight.

    It stays in the journal, and is found again, until `done()`. As long as it is there, the journal
    keeps its files, and no other client can have it; closing the client ends that.
    """

    __module__ = "segue"
    __slots__ = ()

    def statements(self) -> Iterator[RecoveredStatement]:
        """What it had executed, in order, read from the journal's files one at a time."""
        statements = self._native.statements()
        while (statement := statements.next()) is not None:
            yield RecoveredStatement._of(statement)

    def done(self) -> None:
        """Have the journal forget it; returns once that is kept, and may be repeated.

        Where it is to be run again, run it first.
        """
        self._native.done()


__all__ = ["RecoveredStatement", "RecoveredTransaction", "SealEvidence", "Verdict"]
