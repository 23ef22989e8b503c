"""Transactions handed over whole: what `Client.submit` takes, and what it gives.

    sale = [
        ("UPDATE stock SET left = left - %s WHERE article = %s", (2, "4711")),
        ("INSERT INTO sale (article, pieces) VALUES (%s, %s)", ("4711", 2)),
    ]
    ticket = client.submit(sale, lane="till 7", key="till 7 sale 1812")
    done = ticket.wait(timeout=5)

What may be relied on is in docs/submit.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from segue import _dispatch, _segue
from segue.errors import Error, ProgrammingError
from segue.sql import Composable

if TYPE_CHECKING:
    from typing_extensions import Self

_MOST = 2**64 - 1


@dataclass(frozen=True)
class Statement:
    """A statement of a submission, with its parameters and what is expected of it."""

    sql: str | Composable
    params: Sequence[Any] | Mapping[str, Any] | None = field(default=None, repr=False)
    expect_rows: range | int | None = None
    """How many rows it must affect or return, or nothing is committed: a number, or a range.

    `range(1, 2**63)` is at least one.
    """


Statements: TypeAlias = (
    Statement
    | str
    | Composable
    | Iterable[
        Statement
        | str
        | Composable
        | tuple[str | Composable, Sequence[Any] | Mapping[str, Any] | None]
    ]
)
"""One statement, or some: each a `Statement`, a text, or a pair of a text and its parameters."""


@dataclass(frozen=True)
class Executed:
    """What a committed submission has done."""

    rows: tuple[int, ...]
    """How many rows each statement has affected or returned.

    Empty if another attempt has committed, whose reply is lost.
    """
    found_done: bool
    """It was found done: by an attempt whose reply was lost, an earlier process, or another one
    that has used the same key.
    """


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A submission that can never succeed as things are."""

    id: UUID
    key: str | None = field(repr=False)
    lane: str | None
    stops_lane: bool
    """Whether its lane stands still because of it."""
    died_at: datetime
    """In UTC."""
    statement: int
    """The index of the statement that failed."""
    statements: tuple[str, ...] = field(repr=False)
    """The texts of all of them, with `$1` and so on for parameters."""
    error: Error = field(repr=False, compare=False)
    """What its ticket raises: the server's error, with all its fields, or Segue's own."""
    sqlstate: str
    """The server's; 25P02 where the number of rows was not what was expected."""
    message: str = field(repr=False)
    detail: str | None = field(repr=False)
    """May hold values of the row in question."""

    @classmethod
    def _of(cls, values: dict[str, Any]) -> Self:
        died_at = datetime.fromtimestamp(values["died_at"], timezone.utc)
        return cls(**values | {"id": UUID(int=values["id"]), "died_at": died_at})


@dataclass(frozen=True, kw_only=True)
class SubmissionStatus:
    """What becomes of a client's submissions, in numbers."""

    waiting: int
    """Handed over and not sent yet, or to be sent again."""
    in_flight: int
    """Sent and not answered."""
    dead_letters: int
    lanes: int
    """Lanes with anything in them."""
    lanes_stopped: int
    """Those of them that a dead letter has stopped."""
    bytes: int
    """Memory that they take up, about."""
    journal_bytes: int | None
    """The size of the journal's files, with `journal=file`."""
    submitted: int
    """Handed over since the client was opened."""
    recovered: int
    """Found in the journal when it was opened."""
    committed: int
    found_done: int
    """Those of them that were found to be so already."""
    resubmitted: int
    """Attempts that were made once more."""
    died: int
    lost: int
    """Told to be committed and lost by a promotion: not run again, or not with success."""
    reapplied: int
    """Lost, and run again."""
    problem: str | None
    """Why nothing can be run at present, if that is so."""

    def as_dict(self) -> dict[str, int | str | None]:
        """All of it by name."""
        return dataclasses.asdict(self)


class BaseTicket:
    """A submission that was accepted; forgetting the ticket changes nothing for it."""

    __slots__ = ("__weakref__", "_native")

    def __init__(self, native: _segue.Ticket) -> None:
        self._native = native

    @property
    def id(self) -> UUID:
        """Finds it again: `Client.ticket`, and `segue.submission` once it is committed."""
        return UUID(int=self._native.id)

    @property
    def key(self) -> str | None:
        """The key that the application gave it."""
        return self._native.key

    def poll(self) -> Executed | None:
        """What it has done if it is committed, None while that is not known.

        Raises the server's error, with the outcome `NOT_COMMITTED`, if it is a dead letter now.
        """
        return executed(self._native.poll())

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.Ticket {self.id}>"


class Ticket(BaseTicket):
    """A submission that was accepted, to wait on, poll, or be called back by.

    Any thread may use it. Forgetting it changes nothing for the submission.
    """

    __module__ = "segue"
    __slots__ = ()

    def wait(self, timeout: float | None = None) -> Executed | None:
        """As `poll`, but waits until it is known, for at most `timeout` seconds."""
        return executed(self._native.wait(timeout))

    def add_done_callback(self, callback: Callable[[Ticket], object]) -> None:
        """Call back with this ticket once its outcome is known, be that now.

        Callbacks run on the thread that calls those of `Client.on_event`, one after the other, and
        may do what they like. What they raise goes to `sys.unraisablehook`. A dead letter that is
        retried calls back once more only where it was asked to once more.
        """
        if not callable(callback):
            raise TypeError("a callback is called with the ticket")
        self._native.on_done(_dispatch.queue(), callback, self)


def executed(done: tuple[tuple[int, ...], bool] | None) -> Executed | None:
    """What the native half tells of a submission, for the application."""
    return None if done is None else Executed(*done)


def id_of(id: UUID | str | DeadLetter) -> int:
    """The id of a submission, as the native half has it."""
    if isinstance(id, DeadLetter):
        id = id.id
    return (id if isinstance(id, UUID) else UUID(id)).int


_Rows: TypeAlias = tuple[int, int] | None


def arguments(
    statements: Statements, lane: str | None, key: str | None, stop_on_failure: bool
) -> tuple[list[tuple[Any, Any, _Rows]], str | None, str | None, bool]:
    """What the native half takes."""
    if lane == "" or key == "":
        raise ProgrammingError("a lane or a key is a name, and not empty; nothing was handed over")
    if isinstance(statements, (Statement, str, Composable)):
        statements = [statements]
    return [_statement(it) for it in statements], lane, key, stop_on_failure


def _statement(given: Any) -> tuple[Any, Any, _Rows]:
    if isinstance(given, Statement):
        return given.sql, given.params, _rows(given.expect_rows)
    if isinstance(given, tuple):
        if len(given) == 2:
            return given[0], given[1], None
    elif not isinstance(given, (list, Mapping)) and given is not None:
        return given, None, None
    raise ProgrammingError(
        "submit() takes a list of statements, each a segue.Statement, a str, or a pair of a str "
        "and its parameters; nothing was handed over"
    )


def _rows(expected: range | int | None) -> _Rows:
    if expected is None:
        return None
    if isinstance(expected, range):
        if expected.step == 1 and 0 <= expected.start < expected.stop:
            return min(expected.start, _MOST), min(expected.stop - 1, _MOST)
    elif isinstance(expected, int) and not isinstance(expected, bool) and 0 <= expected <= _MOST:
        return expected, expected
    raise ProgrammingError(
        "expect_rows is a number of rows, or a range of such numbers that is not empty and has no "
        "steps; nothing was handed over"
    )


__all__ = ["DeadLetter", "Executed", "Statement", "Statements", "SubmissionStatus", "Ticket"]
