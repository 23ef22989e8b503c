"""Cursors: what is seldom called, around the native class."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from segue import _segue
from segue.copy import Copy, with_literals
from segue.errors import NotSupportedError

if TYPE_CHECKING:
    from typing_extensions import Self


class BaseCursor(_segue.Cursor):
    """What cursors that block and cursors of an event loop have in common."""

    def callproc(self, procname: str, parameters: Sequence[Any] = ()) -> Sequence[Any]:
        """Not supported, as the DB-API allows: write CALL or SELECT."""
        raise NotSupportedError("callproc() is not supported: execute a CALL or a SELECT")

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Do nothing, as the DB-API allows."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing, as the DB-API allows."""

    def __repr__(self) -> str:
        state = "closed" if self.closed else (self.statusmessage or "idle")
        return f"<{type(self).__module__}.{type(self).__qualname__} [{state}]>"


class Cursor(BaseCursor):
    """Executes statements and holds what they return."""

    def stream(
        self, query: Any, params: Any = None, *, size: int = 1
    ) -> Generator[Any, None, None]:
        """Execute a statement and give its rows as they arrive, in bounded memory.

        A failover in the middle goes on with the next row. What is left when the iterator is closed
        is read and thrown away. `size` is for users of psycopg: rows that arrive together are read
        together.
        """
        ticket = self._stream_start(query, params)
        done = False
        try:
            while (rows := self._stream_next(ticket)) is not None:
                yield from rows
            done = True
        finally:
            if not done:
                self._abandon(ticket)

    def copy(self, statement: Any, params: Sequence[Any] | Mapping[str, Any] | None = None) -> Copy:
        """Start a COPY ... FROM STDIN or a COPY ... TO STDOUT, for a `with` statement.

        The server takes no parameters for it: they are written into the text, in quotes.
        """
        return Copy(self, with_literals(statement, params))

    def results(self) -> Iterator[Self]:
        """Give the cursor once for each result of a string of several statements."""
        while True:
            yield self
            if not self.nextset():
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
