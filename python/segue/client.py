"""`segue.Client`: what an application may know of its cluster, and tell it.

Everything opened with one configuration is one client: a `Client` and the connections made past it
share servers, warm links and counters.
"""

from __future__ import annotations

import dataclasses
import enum
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from segue import _segue
from segue._dispatch import Subscription
from segue.connection import Connection, make_conninfo
from segue.errors import InterfaceError
from segue.recovery import RecoveredTransaction
from segue.submit import (
    DeadLetter,
    Statements,
    SubmissionStatus,
    Ticket,
    arguments,
    id_of,
)

if TYPE_CHECKING:
    from types import TracebackType
    from uuid import UUID

    from typing_extensions import Self

    from segue.cursor import Cursor
    from segue.events import Event
    from segue.recovery import BaseRecovered
    from segue.rows import RowFactory

    _E = TypeVar("_E", bound=Event)


class _Name(str, enum.Enum):
    def __str__(self) -> str:
        return str(self.value)


class Role(_Name):
    """What a server was when it last said so."""

    UNKNOWN = "unknown"
    PRIMARY = "primary"
    READ_ONLY_PRIMARY = "read_only_primary"
    """Not in recovery, but it does not allow writes."""
    STANDBY = "standby"


class Health(_Name):
    """Whether a server answers."""

    UNKNOWN = "unknown"
    """Not asked yet."""
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    """It has missed polls. It may be dead, slow, or cut off."""
    LOST = "lost"
    COMING_BACK = "coming_back"
    """It says that it starts, recovers or shuts down, or that it is full."""


class Verdict(_Name):
    """Whether a server may be used."""

    UNKNOWN = "unknown"
    """It has not said anything yet."""
    MEMBER = "member"
    STALE = "stale"
    """An old primary: writable, on a timeline that the cluster has left. It is refused."""
    OTHER_CLUSTER = "other_cluster"
    """It has another system identifier. It is refused."""


@dataclass(frozen=True)
class ServerStatus:
    """What is known of one server."""

    address: str
    role: Role
    health: Health
    verdict: Verdict
    timeline: int | None
    system_identifier: int | None
    lsn: int | None
    """The write position of a primary, the replay position of a standby."""
    lag_bytes: int | None
    """How many bytes of WAL a standby lies behind the chosen primary."""
    last_error: str | None
    warm_links: int
    """Links that are ready to be handed to a session."""
    links_dialled: int
    """Links ever made to it, the monitor's own included."""
    warm_links_used: int
    """Warm links ever handed to a session."""
    summary: str
    """One line for people."""


@dataclass(frozen=True)
class JournalStatus:
    """The journal on disk, with `journal="file"`."""

    dir: Path
    bytes: int
    """What all of its files take up."""


@dataclass(frozen=True)
class ClientStatus:
    """What is known of the cluster."""

    servers: tuple[ServerStatus, ...]
    """In the order of the configuration's hosts."""
    chosen: int | None
    """The index of the server that sessions belong on just now."""
    standby: int | None
    """The index of the standby that has the warm links."""
    system_identifier: int | None
    timeline_floor: int
    """The highest timeline that was ever seen writable; nothing older is written to again."""
    sessions: int
    """Sessions that are open: connections, and what else uses the same configuration."""
    sessions_linked: int
    """Those that hold a link to a server."""
    sessions_waiting: int
    """Those that wait for one."""
    ledger_problem: str | None
    """Why the ledger could not be installed, if it could not."""
    journal: JournalStatus | None
    """The journal on disk, if there is one."""

    @property
    def primary(self) -> ServerStatus | None:
        """The server that sessions belong on just now."""
        return None if self.chosen is None else self.servers[self.chosen]


@dataclass(frozen=True)
class ClientStatistics:
    """What all sessions of a client have done since it was opened, closed ones included."""

    sessions_opened: int
    """Sessions that were opened, whether or not they are still open."""
    statements: int
    """Statements that were executed; not BEGIN, COMMIT and ROLLBACK, nor what a replay runs again.

    A string of several counts once.
    """
    transactions_committed: int
    """Transactions that were begun and committed; a statement outside of one is not one."""
    transactions_rolled_back: int
    """Transactions that were begun and rolled back, by the application or because they failed."""
    links_lost: int
    """Links that broke, or were given up, under a session."""
    replays_started: int
    """Replays of transactions of which the application had seen something."""
    replays_finished: int
    replays_diverged: int
    """Replays that gave something else than the application had seen."""
    commits_found: int
    """Commits whose acknowledgement was lost and that the ledger told to stand."""
    outcomes_unknown: int
    """Requests that ended with an error whose outcome is unknown."""
    commits_lost: int
    """Acknowledged commits that were not on the server that took over."""
    commits_reapplied: int
    """Those of them that were run again, and stand."""
    protection_lost: int
    """How often a session or its transaction went on without protection."""
    notices: int
    """Notices and warnings of the servers."""
    pause_longest_us: int
    """The longest time that a session was without a link before it had moved, in microseconds."""
    pause_total_us: int
    """All of them together."""

    def as_dict(self) -> dict[str, int]:
        """All counters by name."""
        return dataclasses.asdict(self)


class BaseClient:
    """What clients that block and clients of an event loop have in common; nothing here waits."""

    _native: _segue.Client | None = None

    def _adopt(self, native: _segue.Client) -> None:
        self._native = native
        self._number = native.number
        self._submissions = _segue.Submissions(native)
        self._subscriptions: list[Subscription] = []
        self._recovered: weakref.WeakSet[BaseRecovered] = weakref.WeakSet()

    def _open(self) -> _segue.Client:
        native = self._native
        if native is None:
            raise InterfaceError("the client is closed")
        return native

    def status(self) -> ClientStatus:
        """What is known of the servers, at this moment."""
        values = self._open().status()
        servers = (
            ServerStatus(
                **server
                | {
                    "role": Role(server["role"]),
                    "health": Health(server["health"]),
                    "verdict": Verdict(server["verdict"]),
                }
            )
            for server in values["servers"]
        )
        journal = values["journal"]
        return ClientStatus(
            **values
            | {
                "servers": tuple(servers),
                "journal": None if journal is None else JournalStatus(*journal),
            }
        )

    def stats(self) -> ClientStatistics:
        """What all sessions have done so far, in numbers."""
        return ClientStatistics(**self._open().statistics())

    def dead_letters(self) -> list[DeadLetter]:
        """Submissions that can never succeed as things are, in the order of handing over.

        Each is kept until it is retried with success, or purged.
        """
        self._open()
        return [DeadLetter._of(values) for values in self._submissions.dead_letters()]

    def submissions(self) -> SubmissionStatus:
        """What becomes of submissions, in numbers."""
        self._open()
        return SubmissionStatus(**self._submissions.status())

    def _let_go(self) -> None:
        """Have what was recovered let go of the journal, whoever still has it in a variable."""
        for it in list(self._recovered):
            it._native.close()

    def _subscribe(self, callback: Any, kinds: Any) -> Subscription:
        self._open()
        from segue.events import Event

        if not callable(callback):
            raise TypeError("a callback is called with an event")
        kinds = (Event,) if kinds is None else kinds if isinstance(kinds, tuple) else (kinds,)
        if not all(isinstance(kind, type) and issubclass(kind, Event) for kind in kinds):
            raise TypeError("kinds are classes of segue.events")
        subscription = Subscription(self._number, callback, kinds)
        self._subscriptions[:] = [s for s in self._subscriptions if not s.closed]
        self._subscriptions.append(subscription)
        return subscription

    @property
    def number(self) -> int:
        """Tells clients apart: those of one configuration have one number, as events do."""
        return self._number

    @property
    def closed(self) -> bool:
        """Whether it was closed. Its connections do not mind."""
        return self._native is None

    def __repr__(self) -> str:
        state = " (closed)" if self.closed else ""
        return f"<{type(self).__module__}.Client {self._number}{state}>"


class Client(BaseClient):
    """A cluster, as seen from this process.

        with segue.Client("postgresql://app@db1,db2/shop") as client:
            with client.connect() as conn:
                ...
            print(client.status().primary, client.stats())

    Opening it returns at once; what watches the cluster, and the warm links, live as long as it or
    a connection is open. Any thread may use it.
    """

    __module__ = "segue"

    def __init__(self, conninfo: str = "", **options: Any) -> None:
        self._adopt(_segue.Client(make_conninfo(conninfo, **options)))

    @classmethod
    def _of(cls, native: _segue.Client) -> Self:
        client = cls.__new__(cls)
        client._adopt(native)
        return client

    def connect(
        self,
        *,
        autocommit: bool = False,
        row_factory: RowFactory[Any] | None = None,
        cursor_factory: type[Cursor] | None = None,
        writes: bool | None = None,
    ) -> Connection:
        """Connect, as `segue.connect` does.

        Fast, because the servers are known and links are warm.
        """
        native = self._open()
        connection = Connection(
            native._conninfo(), autocommit=autocommit, writes=writes, client=native
        )
        connection.row_factory = row_factory
        if cursor_factory is not None:
            connection.cursor_factory = cursor_factory
        return connection

    def submit(
        self,
        statements: Statements,
        *,
        lane: str | None = None,
        key: str | None = None,
        stop_on_failure: bool = False,
        block: bool = True,
    ) -> Ticket:
        """Hand over a transaction whole: it is run until its outcome is known, exactly once.

        It is kept when this returns, on disk with `journal="file"`, and needs no server for that.
        `statements` are pairs of a text and its parameters, `segue.Statement`s with expectations,
        or plain texts; placeholders are those of `execute`.

        Submissions of one `lane` take effect in the order in which they were handed over; with
        `stop_on_failure` what follows waits if this one becomes a dead letter. What has one `key`
        is executed once, whichever process hands it over. If the queue is full, this waits for
        room, at most `failover_timeout_ms`; with `block=False` it raises `LimitExceeded` at once.
        """
        self._open()
        given = arguments(statements, lane, key, stop_on_failure)
        return Ticket(self._submissions.submit(*given, block))

    def ticket(self, id: UUID | str) -> Ticket | None:
        """Find a submission again that has not ended, or lately has: the last few thousand."""
        self._open()
        native = self._submissions.ticket(id_of(id))
        return None if native is None else Ticket(native)

    def ticket_for_key(self, key: str) -> Ticket | None:
        """Find a submission by the key that the application gave it, as `ticket`."""
        self._open()
        native = self._submissions.ticket_for_key(key)
        return None if native is None else Ticket(native)

    def retry_dead_letter(self, id: UUID | str | DeadLetter) -> Ticket:
        """Run a dead letter again, ahead of what waits in its lane."""
        self._open()
        return Ticket(self._submissions.retry_dead_letter(id_of(id)))

    def purge_dead_letter(self, id: UUID | str | DeadLetter) -> None:
        """Forget a dead letter; a lane that it has stopped goes on."""
        self._open()
        self._submissions.purge_dead_letter(id_of(id))

    def recover(self) -> list[RecoveredTransaction]:
        """Find what an earlier process with this journal had in flight, and what became of it.

        The ledger is asked; waits for a server for at most `failover_timeout_ms`. Each is told
        again, by this client and by later ones, until its `done()`. Without `journal="file"` there
        are none. Commits of this client wait meanwhile: this is for the time after the start.
        """
        found = [RecoveredTransaction(it) for it in _segue.recover(self._open())]
        self._recovered.update(found)
        return found

    @overload
    def on_event(self, callback: Callable[[Event], object]) -> Subscription: ...

    @overload
    def on_event(
        self, callback: Callable[[_E], object], kinds: type[_E] | tuple[type[_E], ...]
    ) -> Subscription: ...

    def on_event(self, callback: Any, kinds: Any = None) -> Subscription:
        """Call back for every event, or those of some classes of `segue.events`.

        Callbacks run one after the other on a thread of their own, so they may use connections, and
        delay nothing but other callbacks. What they raise goes to `sys.unraisablehook`. The
        callback stays in place until the subscription, or this client, is closed.
        """
        return self._subscribe(callback, kinds)

    def setup(self, *, hardened: bool = False, role: str | None = None) -> None:
        """Install or upgrade the ledger on the primary, as an owner of the database.

        `hardened`: applications use it through functions alone, slower, and proof against a
        hostile role in the same database. `role`: who may use it; everybody if none is given.
        """
        self._open().setup(hardened, role)

    def remove_ledger(self) -> None:
        """Remove the ledger from the primary. Connections in use lose their protection."""
        self._open().remove_ledger()

    def close(self) -> None:
        """Give the client up, and its subscriptions. Connections that are open stay open.

        If nothing else of the same configuration is open, submissions end with it: what is under
        way is given two seconds. What has not ended stays in the journal.
        """
        native, self._native = self._native, None
        if native is not None:
            for subscription in self._subscriptions:
                subscription.close()
            self._let_go()
            self._submissions.close()
            native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


__all__ = [
    "Client",
    "ClientStatistics",
    "ClientStatus",
    "Health",
    "JournalStatus",
    "Role",
    "ServerStatus",
    "Subscription",
    "Verdict",
]
