"""What connections that block and connections of an event loop have in common.

Nothing here waits for a server: what does is in `segue.connection` and `segue.aio`.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import timezone, tzinfo
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote

from segue import _segue
from segue import errors as _errors
from segue.errors import ProgrammingError
from segue.rows import RowFactory

if TYPE_CHECKING:
    from segue._tpc import Tpc, Xid
    from segue.client import Client


class IsolationLevel(enum.IntEnum):
    """The isolation levels of PostgreSQL; READ UNCOMMITTED is READ COMMITTED there."""

    READ_UNCOMMITTED = 1
    READ_COMMITTED = 2
    REPEATABLE_READ = 3
    SERIALIZABLE = 4


class TransactionStatus(enum.IntEnum):
    """Whether a transaction is open."""

    IDLE = 0
    ACTIVE = 1
    INTRANS = 2
    INERROR = 3
    UNKNOWN = 4


class Notify(NamedTuple):
    """A message of NOTIFY."""

    channel: str
    payload: str
    pid: int


class Rollback(Exception):
    """Raise it in a `transaction()` block to roll that block back; it ends there.

    With a `Transaction`, that one and all inside it are rolled back.
    """

    def __init__(self, transaction: BaseTransaction | None = None) -> None:
        super().__init__(transaction)
        self.transaction = transaction


class BaseConnection(_segue.Connection):
    """Settings of a connection, and what is known of it."""

    row_factory: RowFactory[Any] | None = None
    # Those that are open, the innermost last; a list once there has been one.
    _blocks: Sequence[BaseTransaction] = ()
    # The two-phase transaction that is under way.
    _tpc: Tpc | None = None
    _notice_handlers: Sequence[Callable[[_errors.Diagnostic], object]] = ()

    # The DB-API's exceptions, for code that has a connection and not the module.
    Warning = _errors.Warning
    Error = _errors.Error
    InterfaceError = _errors.InterfaceError
    DatabaseError = _errors.DatabaseError
    DataError = _errors.DataError
    OperationalError = _errors.OperationalError
    IntegrityError = _errors.IntegrityError
    InternalError = _errors.InternalError
    ProgrammingError = _errors.ProgrammingError
    NotSupportedError = _errors.NotSupportedError

    # Settings of transactions.

    @property
    def autocommit(self) -> bool:
        """Whether each statement outside `transaction()` is a transaction of its own."""
        return super().autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._check_idle("autocommit")
        self._set_autocommit(bool(value))

    @property
    def isolation_level(self) -> IsolationLevel | None:
        """The isolation level of transactions to come; None is what the server's settings say."""
        level = self._isolation_level()
        return None if level is None else IsolationLevel(level)

    @isolation_level.setter
    def isolation_level(self, value: IsolationLevel | int | None) -> None:
        self._check_idle("isolation_level")
        try:
            level = None if value is None else max(IsolationLevel(value), 2)
        except ValueError:
            raise ProgrammingError("an isolation level is one of segue.IsolationLevel") from None
        self._set_isolation_level(level)

    @property
    def read_only(self) -> bool | None:
        """Whether transactions to come are READ ONLY; None is what the server's settings say."""
        return super().read_only

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        self._check_idle("read_only")
        self._set_read_only(value)

    @property
    def deferrable(self) -> bool | None:
        """Whether transactions to come are DEFERRABLE; None is what the server's settings say."""
        return super().deferrable

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        self._check_idle("deferrable")
        self._set_deferrable(value)

    @property
    def client(self) -> Client:
        """The cluster that it is on: its status, counters and events."""
        from segue.client import Client

        return Client._of(self._client())

    def xid(self, format_id: int, gtrid: str, bqual: str) -> Xid:
        """Make the name of a two-phase transaction, of which `tpc_begin` takes one.

        Of a number and two texts, of at most 64 ASCII characters each.
        """
        from segue._tpc import Xid

        return Xid.from_parts(format_id, gtrid, bqual)

    def fileno(self) -> int:
        """The descriptor of its socket, as it is now: a failover makes it another one."""
        if self.closed:
            raise _errors.ConnectionClosed("the connection is closed")
        fd = self._fileno()
        if fd is None:
            raise _errors.OperationalError("the connection is between two servers: no socket")
        return fd

    def _is_idle(self) -> bool:
        return self._transaction_status() == TransactionStatus.IDLE

    def _check_no_block(self, name: str) -> None:
        if self._tpc is not None:
            raise ProgrammingError(
                f"{name}() is not for use in a two-phase transaction, which tpc_{name}() ends"
            )
        if self._blocks:
            raise ProgrammingError(
                f"{name}() is not for use inside a transaction() block, whose end commits or rolls "
                "back; raise segue.Rollback to roll it back"
            )

    def _check_idle(self, name: str) -> None:
        if self._transaction_status() not in (0, 4):
            raise ProgrammingError(f"{name} cannot be changed while a transaction is open")

    def set_json(
        self,
        *,
        loads: Callable[[str], Any] | None = None,
        dumps: Callable[[Any], str | bytes] | None = None,
    ) -> None:
        """Set what reads and writes json and jsonb, instead of the module json."""
        self._set_json(loads, dumps)

    # Notices.

    def add_notice_handler(self, callback: Callable[[_errors.Diagnostic], object]) -> None:
        """Call back for each notice of the server's, with its fields: a `segue.errors.Diagnostic`.

        By whoever executes the statement, when that has come to its end. What the callback raises
        goes to `sys.unraisablehook`.
        """
        self._watch_notices()
        self._notice_handlers = [*self._notice_handlers, callback]

    def remove_notice_handler(self, callback: Callable[[_errors.Diagnostic], object]) -> None:
        """Remove a callback; ValueError if there is no such."""
        handlers = list(self._notice_handlers)
        handlers.remove(callback)
        self._notice_handlers = handlers

    def _noticed(self, fields: dict[str, Any]) -> None:
        diag = _errors.Diagnostic(**fields)
        for handler in self._notice_handlers:
            try:
                handler(diag)
            except Exception as error:
                _segue.unraisable(error, handler)

    # What is known.

    @property
    def info(self) -> ConnectionInfo:
        """The server's side of the connection."""
        return ConnectionInfo(self)

    def status(self) -> dict[str, Any]:
        """Where the connection is, and what protects it."""
        return self._status()

    def __repr__(self) -> str:
        state = self.info.transaction_status
        name = "CLOSED" if state is TransactionStatus.UNKNOWN else state.name
        return f"<{type(self).__module__}.{type(self).__qualname__} [{name}]>"


class BaseTransaction:
    """A transaction, or a savepoint inside one: the statements that begin and end it.

    BEGIN, COMMIT and ROLLBACK are the connection's own.
    """

    _numbers = itertools.count(1)

    def __init__(self, connection: BaseConnection, name: str | None, force_rollback: bool) -> None:
        self._connection = connection
        self._name = name
        self._savepoint = False
        self._force_rollback = force_rollback
        self._entered = False

    @property
    def savepoint_name(self) -> str | None:
        """The savepoint's name; None for a transaction."""
        return self._name if self._savepoint else None

    @property
    def force_rollback(self) -> bool:
        """Whether it is rolled back in any case."""
        return self._force_rollback

    def _enter(self) -> None:
        if self._entered:
            raise ProgrammingError("a transaction() block can be entered only once")
        self._entered = True

    def _is_open(self) -> None:
        self._connection._blocks = [*self._connection._blocks, self]

    def _leave(self) -> None:
        blocks = list(self._connection._blocks)
        if self not in blocks:
            raise ProgrammingError("the transaction() block was not entered, or has ended")
        last = blocks[-1]
        blocks.remove(self)
        self._connection._blocks = blocks
        if last is not self:
            raise ProgrammingError(
                "transaction() blocks of one connection end in the reverse of the order in which "
                "they began; this one began before another that is still open"
            )

    def _begins(self) -> Iterator[str]:
        if self._connection._transaction_status() == TransactionStatus.IDLE:
            yield "BEGIN"
            if self._name is None:
                return
        self._savepoint = True
        if self._name is None:
            self._name = f"_segue_{next(self._numbers)}"
        yield f"SAVEPOINT {_identifier(self._name)}"

    def _ends(self, error: BaseException | None) -> Iterator[str]:
        if error is not None or self._force_rollback:
            if self._connection.closed:
                return
            if not self._savepoint:
                yield "ROLLBACK"
            elif self._connection._transaction_status() != TransactionStatus.IDLE:
                name = _identifier(self._name or "")
                yield f"ROLLBACK TO SAVEPOINT {name}"
                yield f"RELEASE SAVEPOINT {name}"
        elif self._savepoint:
            yield f"RELEASE SAVEPOINT {_identifier(self._name or '')}"
        else:
            yield "COMMIT"

    def _is_ended_by(self, error: BaseException | None) -> bool:
        """Whether the exception was raised to roll this block back."""
        return isinstance(error, Rollback) and error.transaction in (None, self)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


C = TypeVar("C")


class BasePipeline(Generic[C]):
    """Statements on their way: the cursors that were made meanwhile."""

    def __init__(self) -> None:
        self._cursors: list[C] = []

    def _factory(self, factory: Callable[..., C]) -> Any:
        def make(connection: Any, row_factory: Any) -> C:
            cursor = factory(connection, row_factory)
            self._cursors.append(cursor)
            return cursor

        return make

    def _taken(self) -> list[C]:
        cursors, self._cursors = self._cursors, []
        return cursors


class ConnectionInfo:
    """The server's side of a connection."""

    def __init__(self, connection: BaseConnection) -> None:
        self._connection = connection

    @property
    def transaction_status(self) -> TransactionStatus:
        """Whether a transaction is open; ACTIVE while another thread executes a statement."""
        if self._connection._is_busy():
            return TransactionStatus.ACTIVE
        return TransactionStatus(self._connection._transaction_status())

    @property
    def dbname(self) -> str:
        """The database's name."""
        return str(self._connection._where()["dbname"])

    @property
    def user(self) -> str:
        """The user's name, as it was connected with."""
        return str(self._connection._where()["user"])

    @property
    def host(self) -> str:
        """The host of the server in use, or the directory of its socket."""
        return str(self._connection._where().get("host", ""))

    @property
    def port(self) -> int:
        """The port of the server in use."""
        return int(self._connection._where().get("port", 0))

    @property
    def options(self) -> str:
        """Options for the server's command line that were given."""
        return str(self._connection._where()["options"])

    @property
    def dsn(self) -> str:
        """What it was connected with, all hosts of it, without passwords."""
        return str(self._connection._where()["dsn"])

    @property
    def timezone(self) -> tzinfo:
        """The session's time zone; UTC where Python does not know it."""
        from zoneinfo import ZoneInfo

        try:
            return ZoneInfo(self.parameter_status("TimeZone") or "UTC")
        except (KeyError, ValueError, OSError):
            return timezone.utc

    @property
    def backend_pid(self) -> int | None:
        """The process that serves the connection at present."""
        pid: int | None = self._connection._status()["backend_pid"]
        return pid

    @property
    def server_version(self) -> int:
        """As a number, such as 150004 for 15.4."""
        parts = (self.parameter_status("server_version") or "0").split()[0].split(".")
        digits = [int("".join(c for c in part if c.isdigit()) or 0) for part in parts]
        return digits[0] * 10000 + (digits[1] if len(digits) > 1 else 0)

    @property
    def encoding(self) -> str:
        """Text is UTF-8 on every connection."""
        return "utf-8"

    def parameter_status(self, name: str) -> str | None:
        """Give a setting that the server reports."""
        return self._connection._parameter(name)


def make_conninfo(conninfo: str = "", **options: Any) -> str:
    """Add options to a URI or a keyword string."""
    given = {name: _text(value) for name, value in options.items() if value is not None}
    if not given:
        return conninfo
    if "://" in conninfo:
        separator = "&" if "?" in conninfo else "?"
        words = "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in given.items())
        return f"{conninfo}{separator}{words}"
    words = " ".join(f"{name}={_quoted(value)}" for name, value in given.items())
    return f"{conninfo} {words}".strip()


def _text(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
