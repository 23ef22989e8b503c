"""SQLAlchemy's dialect `postgresql+segue://` for asyncio.

SQLAlchemy's core calls connections and cursors as if they blocked, from greenlets: what is awaited
is awaited here, in those. All else is the synchronous dialect's (segue/sqlalchemy.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from sqlalchemy.engine import URL, AdaptedConnection
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.util.concurrency import await_only, in_greenlet

import segue
from segue import _segue
from segue.aio.connection import AsyncConnection, connect
from segue.aio.cursor import AsyncCursor
from segue.sqlalchemy import SegueDialect, SegueExecutionContext, Streaming


class AdaptedCursor(AsyncCursor):
    """A cursor whose calls wait, in a greenlet."""

    def execute(self, query: Any, params: Any = None, **_: Any) -> Any:
        """Execute a statement."""
        return await_only(super().execute(query, params))

    def executemany(  # type: ignore[override]
        self, query: Any, params_seq: Iterable[Any], *, returning: bool = False
    ) -> None:
        """Execute a statement with each of many sets of parameters."""
        await_only(super().executemany(query, params_seq, returning=returning))

    # The rows are there.
    fetchone = _segue.Cursor.fetchone
    fetchmany = _segue.Cursor.fetchmany  # type: ignore[assignment]
    fetchall = _segue.Cursor.fetchall  # type: ignore[assignment]
    close = _segue.Cursor.close  # type: ignore[assignment]
    __iter__ = _segue.Cursor.__iter__  # type: ignore[assignment]
    __next__ = _segue.Cursor.__next__  # type: ignore[assignment]

    async def _async_soft_close(self) -> None:
        """Do nothing: what SQLAlchemy calls before the event loop has an open result."""


class AdaptedStreamCursor(Streaming, AdaptedCursor):  # type: ignore[misc]
    """A cursor that streams, in a greenlet."""

    server_side = True

    def _stream_start(self, query: Any, params: Any = None) -> int:
        operation = await_only(self._link.run(self._connection._op_stream_start, query, params))
        ticket = operation.ticket()
        assert ticket is not None
        # Notifications are not looked for meanwhile.
        self._link.open += 1
        return ticket

    def _stream_next(self, ticket: int) -> list[Any] | None:
        try:
            operation = await_only(self._link.run(self._connection._op_stream, ticket))
            rows = operation.rows(self)
        except BaseException:
            self._link.open -= 1
            raise
        if rows is None:
            self._link.open -= 1
        return rows

    def _abandon(self, ticket: int) -> None:
        self._link.open -= 1
        await_only(self._link.run(self._connection._op_abandon, ticket))


class AsyncAdaptedConnection(AdaptedConnection):
    """A connection whose calls wait, in a greenlet."""

    __slots__ = ()
    _connection: AsyncConnection  # type: ignore[assignment]

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    # Settings and what is known.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def cursor(self) -> AdaptedCursor:
        """Make a cursor."""
        return AdaptedCursor(self._connection)

    def stream_cursor(self) -> AdaptedStreamCursor:
        """Make a cursor that streams."""
        return AdaptedStreamCursor(self._connection)

    def commit(self) -> None:
        """Commit the open transaction, if there is one."""
        await_only(self._connection.commit())

    def rollback(self) -> None:
        """Roll the open transaction back, if there is one."""
        await_only(self._connection.rollback())

    def close(self) -> None:
        """End the session."""
        await_only(self._connection.close())

    def terminate(self) -> None:
        """End the session, where nothing can be awaited at once."""
        if in_greenlet():
            # To its end, whatever becomes of the task.
            await_only(asyncio.shield(self._connection.close()))
        else:
            self._connection._link.let_go()

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction of its own."""
        return self._connection.autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        await_only(self._connection.set_autocommit(value))

    @property
    def isolation_level(self) -> segue.IsolationLevel | None:
        """The isolation level of transactions to come."""
        return self._connection.isolation_level

    @isolation_level.setter
    def isolation_level(self, value: segue.IsolationLevel | None) -> None:
        await_only(self._connection.set_isolation_level(value))

    @property
    def read_only(self) -> bool | None:
        """Whether transactions to come are READ ONLY."""
        return self._connection.read_only

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        await_only(self._connection.set_read_only(value))

    @property
    def deferrable(self) -> bool | None:
        """Whether transactions to come are DEFERRABLE."""
        return self._connection.deferrable

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        await_only(self._connection.set_deferrable(value))


class _Module:
    """The DB-API module, but for its connections."""

    def __getattr__(self, name: str) -> Any:
        return getattr(segue, name)

    def connect(self, *args: Any, **options: Any) -> AsyncAdaptedConnection:
        make = options.pop("async_creator_fn", connect)
        return AsyncAdaptedConnection(await_only(make(*args, **options)))


class AsyncSegueExecutionContext(SegueExecutionContext):
    """Makes streams where SQLAlchemy asks for server-side cursors."""

    def create_server_side_cursor(self) -> Any:
        """Make a cursor that streams."""
        connection = cast("AsyncAdaptedConnection", self._dbapi_connection.dbapi_connection)
        return connection.stream_cursor()


class AsyncSegueDialect(SegueDialect):
    """`postgresql+segue://` for `create_async_engine`."""

    is_async = True
    supports_statement_cache = True
    has_terminate = True
    execution_ctx_cls = AsyncSegueExecutionContext

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        """Give the pool that waits in greenlets."""
        return AsyncAdaptedQueuePool

    @classmethod
    def import_dbapi(cls) -> Any:
        """Give the DB-API module."""
        return _Module()

    def do_terminate(self, dbapi_connection: Any) -> None:
        """End a connection that nobody uses any more."""
        dbapi_connection.terminate()

    def get_driver_connection(self, connection: Any) -> Any:
        """Give Segue's connection."""
        return connection._connection


dialect = AsyncSegueDialect
