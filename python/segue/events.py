"""What a client tells of itself: one dataclass for each kind of event.

    def note(event: segue.events.Event) -> None:
        if isinstance(event, segue.events.SessionMoved):
            ...

    with segue.Client("host=db1,db2 dbname=shop") as client, client.on_event(note):
        ...

The same events are records of the logger "segue" (`level` says at which level), whose attributes
are the fields with `segue_` before their names. No event has a secret or a parameter's value in it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from segue.errors import Diagnostic

# Those of logging, which takes its time to be imported.
_DEBUG, _INFO, _WARNING, _ERROR = 10, 20, 30, 40


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that an operator may want to know."""

    kind: ClassVar[str] = "Event"
    """The name of the class."""
    level: ClassVar[int] = _INFO
    """The level of its log record."""

    client: int
    """Tells the clients of this process apart: `Client.number`."""
    time: float
    """When it arose, as `time.time()`."""
    message: str
    """One line for people."""

    def __init_subclass__(cls) -> None:
        cls.kind = cls.__name__

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, and `kind`."""
        return {"kind": self.kind} | {f.name: getattr(self, f.name) for f in fields(self)}

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, kw_only=True)
class ServerEvent(Event):
    """Something about one server."""

    server: int
    """Its index among the configuration's hosts."""
    address: str


@dataclass(frozen=True, kw_only=True)
class SessionEvent(Event):
    """Something about one session: `Connection.status()["session"]` is its number."""

    session: int


@dataclass(frozen=True, kw_only=True)
class ServerSuspect(ServerEvent):
    """A server has missed polls. Nobody moves because of that alone."""

    level = _WARNING


@dataclass(frozen=True, kw_only=True)
class ServerRecovered(ServerEvent):
    """A suspect or lost server answers again."""


@dataclass(frozen=True, kw_only=True)
class ServerLost(ServerEvent):
    """A server cannot be reached."""

    level = _WARNING

    reason: str


@dataclass(frozen=True, kw_only=True)
class ServerComingBack(ServerEvent):
    """A server takes no connection for now, and says that this will pass."""

    level = _WARNING

    reason: str


@dataclass(frozen=True, kw_only=True)
class PrimaryChosen(ServerEvent):
    """Sessions belong on this server from now on."""

    timeline: int
    previous: int | None
    """The index of the server before."""


@dataclass(frozen=True, kw_only=True)
class Promoted(ServerEvent):
    """Sessions belong on this server from now on, because it was promoted."""

    level = _WARNING

    timeline: int
    previous: int | None


@dataclass(frozen=True, kw_only=True)
class NoServer(Event):
    """No server can be used for what the configuration asks."""

    level = _WARNING

    previous: int


@dataclass(frozen=True, kw_only=True)
class StaleServer(ServerEvent):
    """An old primary is there, writable, on a timeline that the cluster has left: it is refused."""

    level = _WARNING

    timeline: int
    floor: int


@dataclass(frozen=True, kw_only=True)
class OtherCluster(ServerEvent):
    """A server has another system identifier than the cluster: it is refused."""

    level = _WARNING

    system_identifier: int


@dataclass(frozen=True, kw_only=True)
class Promoting(ServerEvent):
    """Segue itself promotes a standby (`on_primary_loss=promote`)."""


@dataclass(frozen=True, kw_only=True)
class PromotionFailed(ServerEvent):
    """Segue's own promotion did not work."""

    level = _WARNING

    reason: str


@dataclass(frozen=True, kw_only=True)
class LinksWarm(ServerEvent):
    """So many links are warm on a server."""

    level = _DEBUG

    links: int


@dataclass(frozen=True, kw_only=True)
class ReplayStarted(SessionEvent):
    """A session's open transaction is being run again on another link."""

    statements: int


@dataclass(frozen=True, kw_only=True)
class ReplayFinished(SessionEvent):
    """All that the application has seen has matched."""


@dataclass(frozen=True, kw_only=True)
class ReplayDiverged(SessionEvent):
    """The replay gave something else at this statement, counted from 1; it was rolled back."""

    level = _WARNING

    statement: int


@dataclass(frozen=True, kw_only=True)
class SessionMoved(SessionEvent):
    """The session has a link again."""

    server: int
    pause: float
    """So many seconds it was without one."""


@dataclass(frozen=True, kw_only=True)
class ProtectionLost(SessionEvent):
    """The session, or its open transaction, goes on without protection."""

    level = _WARNING

    reason: str


@dataclass(frozen=True, kw_only=True)
class CommitsLost(SessionEvent):
    """Commits that were acknowledged are not on the server that took over.

    `first` to `last`, by their numbers in the session's row of the ledger.
    """

    level = _ERROR

    ledger_row: str
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class CommitReapplied(SessionEvent):
    """A commit that was acknowledged and then lost was run again, and stands."""

    level = _WARNING

    ledger_row: str
    number: int


@dataclass(frozen=True, kw_only=True)
class Notice(SessionEvent):
    """A notice or a warning of the server's."""

    level = _DEBUG

    diag: Diagnostic


@dataclass(frozen=True, kw_only=True)
class SubmissionDied(Event):
    """A submission has become a dead letter: nothing of it is committed."""

    level = _WARNING

    id: str
    key: str | None
    sqlstate: str
    reason: str
    """What the server says of it, or Segue."""


@dataclass(frozen=True, kw_only=True)
class SubmissionsLost(Event):
    """Submissions that were told to be committed are not on the server that took over.

    They are not run again by themselves.
    """

    level = _ERROR

    submissions: tuple[tuple[str, str | None], ...]
    """Of each its id and its key."""
    others: bool
    """Earlier ones may be lost too, whose names are not remembered any more."""


@dataclass(frozen=True, kw_only=True)
class SubmissionReapplied(Event):
    """A submission that was told to be committed and then lost was run again, and stands."""

    level = _WARNING

    id: str
    key: str | None


@dataclass(frozen=True, kw_only=True)
class TransactionsFound(Event):
    """The journal holds transactions of an earlier process, which wait for `Client.recover`."""

    level = _WARNING

    count: int


__all__ = [
    "CommitReapplied",
    "CommitsLost",
    "Event",
    "LinksWarm",
    "NoServer",
    "Notice",
    "OtherCluster",
    "PrimaryChosen",
    "Promoted",
    "Promoting",
    "PromotionFailed",
    "ProtectionLost",
    "ReplayDiverged",
    "ReplayFinished",
    "ReplayStarted",
    "ServerComingBack",
    "ServerEvent",
    "ServerLost",
    "ServerRecovered",
    "ServerSuspect",
    "SessionEvent",
    "SessionMoved",
    "StaleServer",
    "SubmissionDied",
    "SubmissionReapplied",
    "SubmissionsLost",
    "TransactionsFound",
]
