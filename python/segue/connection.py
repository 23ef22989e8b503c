"""Connections that block: what is seldom called, around the native class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from segue import _segue
from segue import errors as _errors
from segue._base import (
    BaseConnection,
    BasePipeline,
    BaseTransaction,
    ConnectionInfo,
    IsolationLevel,
    Notify,
    Rollback,
    TransactionStatus,
    make_conninfo,
)
from segue.cursor import Cursor
from segue.rows import RowFactory

if TYPE_CHECKING:
    from typing_extensions import Self

    from segue._tpc import Xid

__all__ = [
    "Connection",
    "ConnectionInfo",
    "IsolationLevel",
    "Notify",
    "Pipeline",
    "Rollback",
    "Transaction",
    "TransactionStatus",
    "connect",
    "make_conninfo",
]


class Connection(BaseConnection):
    """A connection to a cluster, which outlives the servers that it uses.

    As a context manager it commits on success, rolls back after an exception, and closes. Threads
    may share it; one statement runs at a time.
    """

    cursor_factory: type[Cursor] = Cursor

    @classmethod
    def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        row_factory: RowFactory[Any] | None = None,
        cursor_factory: type[Cursor] | None = None,
        writes: bool | None = None,
        **options: Any,
    ) -> Self:
        """Connect to a cluster by a URI or a keyword string; options are added to it.

        `writes=False` is for a connection that only reads, on whatever server there is.
        """
        full = make_conninfo(conninfo, **options)
        connection = cls(full, autocommit=autocommit, writes=writes)
        connection.row_factory = row_factory
        if cursor_factory is not None:
            connection.cursor_factory = cursor_factory
        return connection

    def cursor(self, *, row_factory: Any = ..., binary: bool = True) -> Cursor:
        """Make a cursor; the connection's row factory makes its rows unless it has its own."""
        if self.closed:
            raise _errors.ConnectionClosed("the connection is closed")
        return self.cursor_factory(self, self.row_factory if row_factory is ... else row_factory)

    def execute(
        self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool = False
    ) -> Cursor:
        """Execute a statement with a new cursor, and return that."""
        return self.cursor_factory(self, self.row_factory).execute(query, params)

    def commit(self) -> None:
        """Commit the open transaction, if there is one."""
        if self._blocks or self._tpc is not None:
            self._check_no_block("commit")
        _segue.Connection.commit(self)

    def rollback(self) -> None:
        """Roll the open transaction back, if there is one."""
        if self._blocks or self._tpc is not None:
            self._check_no_block("rollback")
        _segue.Connection.rollback(self)

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
            _segue.Connection.rollback(self)

    def set_autocommit(self, value: bool) -> None:
        """Set `autocommit`."""
        self.autocommit = value

    def set_isolation_level(self, value: IsolationLevel | int | None) -> None:
        """Set `isolation_level`."""
        self.isolation_level = value

    def set_read_only(self, value: bool | None) -> None:
        """Set `read_only`."""
        self.read_only = value

    def set_deferrable(self, value: bool | None) -> None:
        """Set `deferrable`."""
        self.deferrable = value

    # Transactions.

    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Transaction:
        """Make a block that is a transaction, or a savepoint if one is open already.

        It is committed at the end of the block, and rolled back after an exception.
        """
        return Transaction(self, savepoint_name, force_rollback)

    # Two-phase commit.

    def tpc_begin(self, xid: Xid | str) -> None:
        """Begin a two-phase transaction under a name, which `xid` makes."""
        from segue import _tpc

        _tpc.check_begin(self._tpc, self._is_idle(), self.autocommit)
        self._begin()
        self._tpc = _tpc.Tpc(_tpc.name(xid))

    def tpc_prepare(self) -> None:
        """Prepare it: from here on it is the server's, and outlives this connection."""
        from segue import _tpc

        tpc = _tpc.check_prepare(self._tpc)
        # Whatever comes of it, the transaction is not this connection's any more.
        self._tpc = None
        try:
            cursor = self.execute(_tpc.statement("PREPARE TRANSACTION", tpc.xid))
        except _errors.Error:
            self._rollback_quietly()
            raise
        _tpc.check_prepared(cursor.statusmessage)
        self._tpc, tpc.prepared = tpc, True

    def tpc_commit(self, xid: Xid | str | None = None) -> None:
        """Commit the transaction that is under way, prepared or not, or one that was prepared."""
        self._tpc_end("COMMIT", xid)

    def tpc_rollback(self, xid: Xid | str | None = None) -> None:
        """Roll it back, as `tpc_commit`."""
        self._tpc_end("ROLLBACK", xid)

    def _tpc_end(self, verb: str, xid: Xid | str | None) -> None:
        from segue import _tpc

        tpc = _tpc.check_end(self._tpc, self._is_idle(), xid, f"tpc_{verb.lower()}")
        self._tpc = None
        if not tpc.prepared:
            end = _segue.Connection.commit if verb == "COMMIT" else _segue.Connection.rollback
            end(self)
            return
        autocommit = self.autocommit
        self._set_autocommit(True)
        try:
            self.execute(_tpc.statement(f"{verb} PREPARED", tpc.xid))
        finally:
            self._set_autocommit(autocommit)

    def tpc_recover(self) -> list[Xid]:
        """Give the names of what is prepared in this database, by whomever.

        If no transaction is open, none is afterwards.
        """
        from segue import _tpc
        from segue.rows import tuple_row

        idle = self._is_idle()
        rows = self.cursor(row_factory=tuple_row).execute(_tpc.PREPARED).fetchall()
        if idle and not self._is_idle():
            _segue.Connection.rollback(self)
        return _tpc.recovered(rows)

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
        pipeline = Pipeline()
        self._pipeline_enter()
        outer, self.cursor_factory = self.cursor_factory, pipeline._factory(self.cursor_factory)
        try:
            yield pipeline
        except _errors.InFailedSqlTransaction:
            # Of a statement behind the one that failed, which is what there is to know.
            pipeline.sync()
            raise
        except BaseException:
            pipeline._drop()
            raise
        else:
            pipeline.sync()
        finally:
            self.cursor_factory = outer
            self._pipeline_exit()


class Transaction(BaseTransaction):
    """A transaction, or a savepoint inside one, as a block."""

    _connection: Connection

    @property
    def connection(self) -> Connection:
        """The connection that it is on."""
        return self._connection

    def __enter__(self) -> Self:
        self._enter()
        self._run(self._begins())
        self._is_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._leave()
        self._run(self._ends(error))
        return self._is_ended_by(error)

    def _run(self, statements: Iterator[str]) -> None:
        for statement in statements:
            if statement == "BEGIN":
                self._connection._begin()
            elif statement == "COMMIT":
                _segue.Connection.commit(self._connection)
            elif statement == "ROLLBACK":
                self._connection._rollback_quietly()
            else:
                _segue.Cursor(self._connection, None).execute(statement)._settle()


class Pipeline(BasePipeline[Cursor]):
    """Statements on their way."""

    def sync(self) -> None:
        """Wait for all replies; raise the first error."""
        first: BaseException | None = None
        for cursor in self._taken():
            try:
                cursor._settle()
            except _errors.Error as error:
                first = first or error
        if first is not None:
            raise first

    def _drop(self) -> None:
        with suppress(_errors.Error):
            self.sync()


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
    return Connection.connect(
        conninfo,
        autocommit=autocommit,
        row_factory=row_factory,
        cursor_factory=cursor_factory,
        writes=writes,
        **options,
    )
