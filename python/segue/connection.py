"""Connections: what is seldom called, around the native class."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from segue import _segue
from segue import errors as _errors
from segue.cursor import Cursor
from segue.errors import InterfaceError, ProgrammingError
from segue.rows import RowFactory

if TYPE_CHECKING:
    from typing_extensions import Self

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

    def __init__(self, transaction: Transaction | None = None) -> None:
        super().__init__(transaction)
        self.transaction = transaction


class Connection(_segue.Connection):
    """A connection to a cluster, which outlives the servers that it uses.

    As a context manager it commits on success, rolls back after an exception, and closes. Threads
    may share it; one statement runs at a time.
    """

    cursor_factory: type[Cursor] = Cursor
    row_factory: RowFactory[Any] | None = None

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

    def cursor(self, *, row_factory: Any = ..., binary: bool = True) -> Cursor:
        """Make a cursor; the connection's row factory makes its rows unless it has its own."""
        if self.closed:
            raise InterfaceError("the connection is closed")
        return self.cursor_factory(self, self.row_factory if row_factory is ... else row_factory)

    def execute(
        self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool = False
    ) -> Cursor:
        """Execute a statement with a new cursor, and return that."""
        return self.cursor_factory(self, self.row_factory).execute(query, params)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.closed:
            return
        try:
            if error is None:
                self.commit()
            else:
                self._rollback_quietly()
        finally:
            self.close()

    def _rollback_quietly(self) -> None:
        # The exception that is on its way says more than another that follows from it.
        with suppress(_errors.Error):
            self.rollback()

    # Settings of transactions.

    @property
    def autocommit(self) -> bool:
        """Whether each statement outside `transaction()` is a transaction of its own."""
        return super().autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.set_autocommit(value)

    def set_autocommit(self, value: bool) -> None:
        """Set `autocommit`."""
        self._check_idle("autocommit")
        self._set_autocommit(bool(value))

    @property
    def isolation_level(self) -> IsolationLevel | None:
        """The isolation level of transactions to come; None is what the server's settings say."""
        level = self._isolation_level()
        return None if level is None else IsolationLevel(level)

    @isolation_level.setter
    def isolation_level(self, value: IsolationLevel | int | None) -> None:
        self.set_isolation_level(value)

    def set_isolation_level(self, value: IsolationLevel | int | None) -> None:
        """Set `isolation_level`."""
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

    def _check_idle(self, name: str) -> None:
        if self._transaction_status() not in (0, 4):
            raise ProgrammingError(f"{name} cannot be changed while a transaction is open")

    # Transactions.

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[Transaction]:
        """Open a block that is a transaction, or a savepoint if one is open already.

        It is committed at the end of the block, and rolled back after an exception.
        """
        scope = Transaction(self, savepoint_name, force_rollback)
        scope._begin()
        try:
            yield scope
        except BaseException as error:
            scope._undo()
            if isinstance(error, Rollback) and error.transaction in (None, scope):
                return
            raise
        else:
            scope._end()

    # Notifications, cancelling, pipelines.

    def notifies(
        self, *, timeout: float | None = None, stop_after: int | None = None
    ) -> Iterator[Notify]:
        """Give the messages of NOTIFY on channels that this connection listens to.

        Ends when `timeout` seconds have passed, or with the batch that has reached `stop_after`
        messages. What was notified while there was no server is lost.
        """
        import time

        end = None if timeout is None else time.monotonic() + timeout
        count = 0
        while stop_after is None or count < stop_after:
            left = 1e9 if end is None else end - time.monotonic()
            found = self._notification(max(left, 0.0))
            if found is None:
                return
            count += 1
            yield Notify(*found)

    def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Ask the server to cancel the statement that is running, as `cancel`."""
        self.cancel()

    @contextmanager
    def pipeline(self) -> Iterator[Pipeline]:
        """Open a block in which statements are sent without waiting for each one's reply.

        A reply is waited for when its cursor is asked for it, and at the end of the block.
        """
        pipeline = Pipeline(self)
        self._pipeline_enter()
        outer, self.cursor_factory = self.cursor_factory, pipeline._factory(self.cursor_factory)
        try:
            yield pipeline
        except BaseException:
            pipeline._drop()
            raise
        else:
            pipeline.sync()
        finally:
            self.cursor_factory = outer
            self._pipeline_exit()

    def set_json(
        self,
        *,
        loads: Callable[[str], Any] | None = None,
        dumps: Callable[[Any], str | bytes] | None = None,
    ) -> None:
        """Set what reads and writes json and jsonb, instead of the module json."""
        self._set_json(loads, dumps)

    # What is known.

    @property
    def client(self) -> Client:
        """The cluster that it is on: its status, counters and events."""
        from segue.client import Client

        return Client._of(self._client())

    @property
    def info(self) -> ConnectionInfo:
        """The server's side of the connection."""
        return ConnectionInfo(self)

    def status(self) -> dict[str, Any]:
        """Where the connection is, and what protects it."""
        return self._status()

    def __repr__(self) -> str:
        state = TransactionStatus(self._transaction_status())
        name = "CLOSED" if state is TransactionStatus.UNKNOWN else state.name
        return f"<{type(self).__module__}.{type(self).__qualname__} [{name}]>"


class Transaction:
    """A transaction, or a savepoint inside one, as a block."""

    _numbers = itertools.count(1)

    def __init__(self, connection: Connection, name: str | None, force_rollback: bool) -> None:
        self._connection = connection
        self._name = name
        self._savepoint = False
        self._force_rollback = force_rollback

    @property
    def connection(self) -> Connection:
        """The connection that it is on."""
        return self._connection

    @property
    def savepoint_name(self) -> str | None:
        """The savepoint's name; None for a transaction."""
        return self._name if self._savepoint else None

    @property
    def force_rollback(self) -> bool:
        """Whether it is rolled back in any case."""
        return self._force_rollback

    def _begin(self) -> None:
        if self._connection._transaction_status() == TransactionStatus.IDLE:
            self._connection._begin()
            if self._name is None:
                return
        self._savepoint = True
        if self._name is None:
            self._name = f"_segue_{next(self._numbers)}"
        self._run(f"SAVEPOINT {_identifier(self._name)}")

    def _run(self, statement: str) -> None:
        _segue.Cursor(self._connection, None).execute(statement)._settle()

    def _end(self) -> None:
        if self._force_rollback:
            self._undo()
        elif self._savepoint:
            self._run(f"RELEASE SAVEPOINT {_identifier(self._name or '')}")
        else:
            self._connection.commit()

    def _undo(self) -> None:
        if self._connection.closed:
            return
        if not self._savepoint:
            self._connection._rollback_quietly()
        elif self._connection._transaction_status() != TransactionStatus.IDLE:
            name = _identifier(self._name or "")
            self._run(f"ROLLBACK TO SAVEPOINT {name}")
            self._run(f"RELEASE SAVEPOINT {name}")


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Pipeline:
    """Statements on their way."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursors: list[Cursor] = []

    def _factory(self, factory: type[Cursor]) -> Any:
        def make(connection: Connection, row_factory: Any) -> Cursor:
            cursor = factory(connection, row_factory)
            self._cursors.append(cursor)
            return cursor

        return make

    def sync(self) -> None:
        """Wait for all replies; raise the first error."""
        cursors, self._cursors = self._cursors, []
        first: BaseException | None = None
        for cursor in cursors:
            try:
                cursor._settle()
            except _errors.Error as error:
                first = first or error
        if first is not None:
            raise first

    def _drop(self) -> None:
        with suppress(_errors.Error):
            self.sync()


class ConnectionInfo:
    """The server's side of a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def transaction_status(self) -> TransactionStatus:
        """Whether a transaction is open."""
        return TransactionStatus(self._connection._transaction_status())

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


def connect(
    conninfo: str = "",
    *,
    autocommit: bool = False,
    row_factory: RowFactory[Any] | None = None,
    cursor_factory: type[Cursor] | None = None,
    writes: bool | None = None,
    **options: Any,
) -> Connection:
    """Connect to a cluster by a URI or a keyword string; options are added to it.

    `writes=False` is for a connection that only reads, on whatever server there is.
    """
    full = make_conninfo(conninfo, **options)
    connection = Connection(full, autocommit=autocommit, writes=writes)
    connection.row_factory = row_factory
    if cursor_factory is not None:
        connection.cursor_factory = cursor_factory
    return connection


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
