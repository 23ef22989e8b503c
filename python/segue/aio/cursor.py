"""Cursors of an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from segue import _segue
from segue.aio.copy import AsyncCopy
from segue.copy import with_literals
from segue.cursor import BaseCursor
from segue.errors import InterfaceError
from segue.rows import RowFactory

if TYPE_CHECKING:
    from typing_extensions import Self

    from segue.aio.connection import AsyncConnection

# The native class's calls that would wait are awaited here: what they are given and what they give
# is the same.


class AsyncCursor(BaseCursor):
    """Executes statements and holds what they return.

    In a pipeline, what is known of the result is up to date after `fetchone`, `fetchmany`,
    `fetchall` or the iteration has been awaited, or the pipeline's `sync`.
    """

    def __init__(
        self, connection: AsyncConnection, row_factory: RowFactory[Any] | None = None
    ) -> None:
        self._connection = connection
        self._link = connection._link
        # A pipeline's request whose reply has not been taken.
        self._awaited: tuple[int, Any] | None = None

    def _check_open(self) -> None:
        if self.closed:
            raise InterfaceError("the cursor is closed")

    async def execute(  # type: ignore[override]
        self,
        query: Any,
        params: Any = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> Self:
        """Execute a statement."""
        if self.closed:
            raise InterfaceError("the cursor is closed")
        link = self._link
        if link.pipelines or self._awaited is not None:
            await self._settled()
        if link.pipelines:
            operation = await link.run(self._connection._op_start, query, params)
            ticket = operation.ticket()
            assert ticket is not None
            self._clear()
            self._awaited = (ticket, query)
            return self
        try:
            operation = await link.run(self._connection._op_execute, query, params)
        except BaseException:
            self._clear()
            raise
        operation.hand_over(self, query)
        return self

    async def executemany(  # type: ignore[override]
        self, query: Any, params_seq: Iterable[Any], *, returning: bool = False
    ) -> None:
        """Execute a statement with each of many sets of parameters, without waiting in between."""
        self._check_open()
        await self._settled()
        try:
            operation = await self._link.run(
                self._connection._op_many, query, params_seq, returning
            )
        except BaseException:
            self._clear()
            raise
        operation.hand_over(self, query)

    async def _settled(self) -> None:
        """Take the reply to a request of a pipeline; raise its error."""
        if self._awaited is None:
            return
        (ticket, query), self._awaited = self._awaited, None
        try:
            operation = await self._link.run(self._connection._op_reply, ticket)
        except BaseException:
            self._clear()
            raise
        operation.hand_over(self, query)

    async def fetchone(self) -> Any:
        """Give the next row; None if there is none left."""
        if self._awaited is not None:
            await self._settled()
        return _segue.Cursor.fetchone(self)

    async def fetchmany(self, size: int | None = None) -> list[Any]:  # type: ignore[override]
        """Give the next rows, `arraysize` of them unless told otherwise."""
        await self._settled()
        return _segue.Cursor.fetchmany(self, size)

    async def fetchall(self) -> list[Any]:  # type: ignore[override]
        """Give all rows that are left."""
        if self._awaited is not None:
            await self._settled()
        return _segue.Cursor.fetchall(self)

    async def __aiter__(self) -> AsyncIterator[Any]:
        await self._settled()
        while True:
            try:
                row = _segue.Cursor.__next__(self)
            except StopIteration:
                return
            yield row

    __iter__ = None  # type: ignore[assignment]
    __next__ = None  # type: ignore[assignment]

    async def scroll(self, value: int, mode: str = "relative") -> None:  # type: ignore[override]
        """Move within the rows of the result."""
        await self._settled()
        _segue.Cursor.scroll(self, value, mode)

    async def results(self) -> AsyncIterator[Self]:
        """Give the cursor once for each result of a string of several statements."""
        await self._settled()
        while True:
            yield self
            if not self.nextset():
                return

    async def close(self) -> None:  # type: ignore[override]
        """Let go of the result."""
        awaited, self._awaited = self._awaited, None
        _segue.Cursor.close(self)
        if awaited is not None and not self._link.closed:
            await self._link.run(self._connection._op_abandon, awaited[0])

    async def stream(
        self, query: Any, params: Any = None, *, size: int = 1
    ) -> AsyncGenerator[Any, None]:
        """Execute a statement and give its rows as they arrive, in bounded memory.

        A failover in the middle goes on with the next row. What is left when the iterator is closed
        is read and thrown away. `size` is for users of psycopg: rows that arrive together are read
        together.
        """
        self._check_open()
        await self._settled()
        connection, link = self._connection, self._link
        ticket = None
        link.open += 1
        try:
            ticket = (await link.run(connection._op_stream_start, query, params)).ticket()
            assert ticket is not None
            while True:
                operation = await link.run(connection._op_stream, ticket)
                rows = operation.rows(self)
                if rows is None:
                    ticket = None
                    return
                for row in rows:
                    yield row
        finally:
            link.open -= 1
            if ticket is not None and not link.closed:
                await link.run(connection._op_abandon, ticket)

    def copy(
        self, statement: Any, params: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> AsyncCopy:
        """Start a COPY ... FROM STDIN or a COPY ... TO STDOUT, for an `async with` statement.

        The server takes no parameters for it: they are written into the text, in quotes.
        """
        return AsyncCopy(self, with_literals(statement, params))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
