"""Connections of an event loop."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from segue import _segue
from segue import errors as _errors
from segue._base import (
    BaseConnection,
    BasePipeline,
    BaseTransaction,
    IsolationLevel,
    Notify,
    TransactionStatus,
    make_conninfo,
)
from segue.aio._link import THREADS, Link, in_thread
from segue.aio.cursor import AsyncCursor
from segue.errors import InterfaceError
from segue.rows import RowFactory

if TYPE_CHECKING:
    from typing_extensions import Self

    from segue._tpc import Xid


class AsyncConnection(BaseConnection):
    """A connection to a cluster, which outlives the servers that it uses, for an event loop.

    As a context manager it commits on success, rolls back after an exception, and closes. Tasks
    may share it; one statement runs at a time, in the order in which they were asked for.
    """

    cursor_factory: type[AsyncCursor] = AsyncCursor
    _link: Link

    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        row_factory: RowFactory[Any] | None = None,
        cursor_factory: type[AsyncCursor] | None = None,
        writes: bool | None = None,
        **options: Any,
    ) -> Self:
        """Connect to a cluster by a URI or a keyword string; options are added to it.

        `writes=False` is for a connection that only reads, on whatever server there is.
        """
        full = make_conninfo(conninfo, **options)
        interrupt = _segue.Interrupt()
        # Not as the future's result, which the thread holds on to for a moment.
        made: list[Self] = []

        def make() -> None:
            made.append(cls(full, autocommit=autocommit, writes=writes, interrupt=interrupt))

        def drop(_: object) -> None:
            while made:
                _segue.Connection.close(made.pop())

        making = THREADS.submit(make)
        try:
            await asyncio.wrap_future(making)
        except asyncio.CancelledError:
            interrupt.set(True)
            making.add_done_callback(drop)
            raise
        connection = made.pop()
        connection._link = Link(connection, asyncio.get_running_loop(), interrupt)
        connection.row_factory = row_factory
        if cursor_factory is not None:
            connection.cursor_factory = cursor_factory
        return connection

    # What the native class would block for.

    async def close(self) -> None:  # type: ignore[override]
        """End the session; an open transaction is rolled back."""
        if not self._link.closed:
            await self._link.close()
            _segue.Connection.close(self)

    async def commit(self) -> None:  # type: ignore[override]
        """Commit the open transaction, if there is one."""
        self._check_no_block("commit")
        # Not cancelled on the server: it would hardly be undone, and might not be replicated.
        operation = await self._link.run(self._op_commit, cancels=False)
        operation.check_committed()

    async def rollback(self) -> None:  # type: ignore[override]
        """Roll the open transaction back, if there is one."""
        self._check_no_block("rollback")
        await self._link.run(self._op_rollback, cancels=False)

    async def cancel(self) -> None:  # type: ignore[override]
        """Ask the server to cancel the statement that is running, which then raises."""
        await in_thread(self._cancel_now, asyncio.get_running_loop())

    def _cancel_now(self) -> None:
        _segue.Connection.cancel(self)

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Ask the server to cancel the statement that is running, as `cancel`."""
        await asyncio.wait_for(self.cancel(), timeout)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._link.closed

    # Not while another thread has the session: the event loop would wait for it.

    def _transaction_status(self) -> int:
        if self._link.closed:
            return TransactionStatus.UNKNOWN
        if self._link.is_busy:
            return TransactionStatus.ACTIVE
        return super()._transaction_status()

    def _parameter(self, name: str) -> str | None:
        self._check_told()
        return super()._parameter(name)

    def _status(self) -> dict[str, Any]:
        self._check_told()
        return super()._status()

    def _where(self) -> dict[str, Any]:
        self._check_told()
        return super()._where()

    def _watch_notices(self) -> None:
        self._check_told()
        super()._watch_notices()

    def _check_told(self) -> None:
        if self._link.is_helped:
            raise InterfaceError("the connection is between two servers; ask after its statement")

    # Statements.

    def cursor(self, *, row_factory: Any = ..., binary: bool = True) -> AsyncCursor:
        """Make a cursor; the connection's row factory makes its rows unless it has its own."""
        if self._link.closed:
            raise _errors.ConnectionClosed("the connection is closed")
        return self.cursor_factory(self, self.row_factory if row_factory is ... else row_factory)

    async def execute(
        self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool = False
    ) -> AsyncCursor:
        """Execute a statement with a new cursor, and return that."""
        return await self.cursor_factory(self, self.row_factory).execute(query, params)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.closed:
            return
        try:
            if error is None:
                await self.commit()
            else:
                await self._rollback_quietly()
        finally:
            await self.close()

    async def _rollback_quietly(self) -> None:
        # The exception that is on its way says more than another that follows from it.
        with suppress(_errors.Error):
            await self._link.run(self._op_rollback, cancels=False)

    async def set_autocommit(self, value: bool) -> None:
        """Set `autocommit`."""
        self.autocommit = value

    async def set_isolation_level(self, value: IsolationLevel | int | None) -> None:
        """Set `isolation_level`."""
        self.isolation_level = value

    async def set_read_only(self, value: bool | None) -> None:
        """Set `read_only`."""
        self.read_only = value

    async def set_deferrable(self, value: bool | None) -> None:
        """Set `deferrable`."""
        self.deferrable = value

    # Transactions.

    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncTransaction:
        """Give a block that is a transaction, or a savepoint if one is open already.

        It is committed at the end of the block, and rolled back after an exception.
        """
        return AsyncTransaction(self, savepoint_name, force_rollback)

    # Two-phase commit.

    async def tpc_begin(self, xid: Xid | str) -> None:
        """Begin a two-phase transaction under a name, which `xid` makes."""
        from segue import _tpc

        _tpc.check_begin(self._tpc, self._is_idle(), self.autocommit)
        await self._link.run(self._op_begin, cancels=False)
        self._tpc = _tpc.Tpc(_tpc.name(xid))

    async def tpc_prepare(self) -> None:
        """Prepare it: from here on it is the server's, and outlives this connection."""
        from segue import _tpc

        tpc = _tpc.check_prepare(self._tpc)
        # Whatever comes of it, the transaction is not this connection's any more.
        self._tpc = None
        try:
            cursor = await self.execute(_tpc.statement("PREPARE TRANSACTION", tpc.xid))
        except _errors.Error:
            await self._rollback_quietly()
            raise
        _tpc.check_prepared(cursor.statusmessage)
        self._tpc, tpc.prepared = tpc, True

    async def tpc_commit(self, xid: Xid | str | None = None) -> None:
        """Commit the transaction that is under way, prepared or not, or one that was prepared."""
        await self._tpc_end("COMMIT", xid)

    async def tpc_rollback(self, xid: Xid | str | None = None) -> None:
        """Roll it back, as `tpc_commit`."""
        await self._tpc_end("ROLLBACK", xid)

    async def _tpc_end(self, verb: str, xid: Xid | str | None) -> None:
        from segue import _tpc

        tpc = _tpc.check_end(self._tpc, self._is_idle(), xid, f"tpc_{verb.lower()}")
        self._tpc = None
        if not tpc.prepared:
            await (self.commit() if verb == "COMMIT" else self.rollback())
            return
        autocommit = self.autocommit
        self._set_autocommit(True)
        try:
            await self.execute(_tpc.statement(f"{verb} PREPARED", tpc.xid))
        finally:
            self._set_autocommit(autocommit)

    async def tpc_recover(self) -> list[Xid]:
        """Give the names of what is prepared in this database, by whomever.

        If no transaction is open, none is afterwards.
        """
        from segue import _tpc
        from segue.rows import tuple_row

        idle = self._is_idle()
        cursor = await self.cursor(row_factory=tuple_row).execute(_tpc.PREPARED)
        rows = await cursor.fetchall()
        if idle and not self._is_idle():
            await self._link.run(self._op_rollback, cancels=False)
        return _tpc.recovered(rows)

    # Notifications, pipelines.

    async def notifies(
        self, *, timeout: float | None = None, stop_after: int | None = None
    ) -> AsyncGenerator[Notify, None]:
        """Give the messages of NOTIFY on channels that this connection listens to.

        Ends when `timeout` seconds have passed, or with the message that has reached `stop_after`.
        Other tasks may use the connection meanwhile. What was notified while there was no server
        is lost.
        """
        link = self._link
        end = None if timeout is None else time.monotonic() + timeout
        count = 0
        link.listeners += 1
        try:
            while stop_after is None or count < stop_after:
                left = None if end is None else max(end - time.monotonic(), 0.0)
                if await link.listen(left):
                    count += 1
                    yield link.news.popleft()
                elif left is not None and left <= 0:
                    return
        finally:
            link.listeners -= 1

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[AsyncPipeline]:
        """Open a block in which statements are sent without waiting for each one's reply.

        A reply is waited for when its cursor is asked for rows, and at the end of the block.
        """
        pipeline = AsyncPipeline()
        self._link.pipelines += 1
        outer, self.cursor_factory = self.cursor_factory, pipeline._factory(self.cursor_factory)
        try:
            yield pipeline
        except _errors.InFailedSqlTransaction:
            # Of a statement behind the one that failed, which is what there is to know.
            await pipeline.sync()
            raise
        except BaseException:
            with suppress(_errors.Error):
                await pipeline.sync()
            raise
        else:
            await pipeline.sync()
        finally:
            self.cursor_factory = outer
            self._link.pipelines -= 1

    def __del__(self) -> None:
        link = self.__dict__.get("_link")
        if link is None or link.closed:
            return
        warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=1, source=self)
        link.let_go()


class AsyncTransaction(BaseTransaction):
    """A transaction, or a savepoint inside one, as a block."""

    _connection: AsyncConnection

    @property
    def connection(self) -> AsyncConnection:
        """The connection that it is on."""
        return self._connection

    async def __aenter__(self) -> Self:
        self._enter()
        await self._run(self._begins())
        self._is_open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._leave()
        await self._run(self._ends(error))
        return self._is_ended_by(error)

    async def _run(self, statements: Iterator[str]) -> None:
        connection, link = self._connection, self._connection._link
        async with link.hold():
            for statement in statements:
                if statement == "BEGIN":
                    await link.run(connection._op_begin, cancels=False, held=True)
                elif statement == "COMMIT":
                    commit = await link.run(connection._op_commit, cancels=False, held=True)
                    commit.check_committed()
                elif statement == "ROLLBACK":
                    with suppress(_errors.Error):
                        await link.run(connection._op_rollback, cancels=False, held=True)
                else:
                    await link.run(connection._op_execute, statement, cancels=False, held=True)


class AsyncPipeline(BasePipeline[AsyncCursor]):
    """Statements on their way."""

    async def sync(self) -> None:
        """Wait for all replies; raise the first error."""
        first: BaseException | None = None
        for cursor in self._taken():
            try:
                await cursor._settled()
            except _errors.Error as error:
                first = first or error
        if first is not None:
            raise first


async def connect(
    conninfo: str = "",
    *,
    autocommit: bool = False,
    row_factory: RowFactory[Any] | None = None,
    cursor_factory: type[AsyncCursor] | None = None,
    writes: bool | None = None,
    **options: Any,
) -> AsyncConnection:
    """Connect to a cluster by a URI or a keyword string; options are added to it.

    `writes=False` is for a connection that only reads, on whatever server there is.
    """
    return await AsyncConnection.connect(
        conninfo,
        autocommit=autocommit,
        row_factory=row_factory,
        cursor_factory=cursor_factory,
        writes=writes,
        **options,
    )
