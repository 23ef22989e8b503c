"""COPY, in and out, as an asynchronous context manager."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from segue.copy import BaseCopy, bytes_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from segue.aio.cursor import AsyncCursor


class AsyncCopy(BaseCopy):
    """A COPY under way. Leaving its block ends it; an exception makes a COPY FROM STDIN fail."""

    def __init__(self, cursor: AsyncCursor, statement: Any) -> None:
        self._cursor = cursor
        self._connection = cursor._connection
        self._link = cursor._link
        self._statement = statement

    async def __aenter__(self) -> Self:
        self._cursor._check_open()
        self._link.open += 1
        try:
            operation = await self._link.run(self._connection._op_copy_start, self._statement)
        except BaseException:
            self._link.open -= 1
            raise
        self._ticket, self._takes_data = operation.ticket(), operation.takes_data()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            return
        self._link.open -= 1
        if self._link.closed:
            return
        if self._takes_data and error is None:
            operation = await self._link.run(self._connection._op_copy_end, ticket)
            operation.hand_over(self._cursor, self._statement)
        else:
            await self._link.run(self._connection._op_abandon, ticket)

    async def write(self, data: bytes | bytearray | memoryview | str) -> None:
        """Send a piece of data in the statement's format; it need not end where a row does."""
        ticket = self._open(True)
        await self._link.run(self._connection._op_copy_send, ticket, bytes_of(data))

    async def write_row(self, row: Sequence[Any]) -> None:
        """Send a row of Python values; the statement must be in the text format."""
        self._check_text()
        ticket = self._open(True)
        await self._link.run(
            self._connection._op_copy_send, ticket, self._connection._copy_row(row)
        )

    async def read(self) -> bytes:
        """Give the next piece of data, b"" at the end; in the text formats a piece is a row."""
        if self._is_at_end():
            return b""
        operation = await self._link.run(self._connection._op_copy_piece, self._open(False))
        piece = operation.piece()
        if piece is None:
            self._ticket = None
            self._link.open -= 1
            return b""
        return piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    async def rows(self) -> AsyncIterator[tuple[Any, ...]]:
        """Give the rows of a statement in the text format, as str and None, or by `set_types`."""
        self._check_text()
        while piece := await self.read():
            yield self._row_of(piece, self._connection)

    async def read_row(self) -> tuple[Any, ...] | None:
        """Give the next row, as `rows`; None at the end."""
        self._check_text()
        piece = await self.read()
        return self._row_of(piece, self._connection) if piece else None
