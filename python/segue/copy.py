"""COPY, in and out, as a context manager."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from segue._builtin import oid_of
from segue.errors import DataError, InterfaceError, ProgrammingError

if TYPE_CHECKING:
    from typing_extensions import Self

    from segue._base import BaseConnection
    from segue.cursor import Cursor
    from segue.types import TypeInfo

# Options, behind STDIN or STDOUT, with which a row is written in another way than it is here.
_OTHER_FORMAT = re.compile(
    r"""^\s*COPY\s+BINARY\b
    | \b(?:STDIN|STDOUT)\b (?:\s+WITH)? \s*\(? (?:(?!\bWHERE\b).)*?
      \b(?P<option>csv|binary|delimiters?|null(?=\s*(?:AS\s*)?E?'))\b""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class BaseCopy:
    """What a COPY that blocks and one of an event loop have in common."""

    _ticket: int | None = None
    _takes_data = False
    _statement: Any
    _is_text = False
    _types: list[int] | None = None

    def set_types(self, types: Sequence[str | int | TypeInfo]) -> None:
        """Say which types the columns have, so that `rows()` gives Python objects.

        Each is a name such as "int4" or "date[]", an OID, or what `TypeInfo.fetch` found. What is
        written needs no types: the server reads it by those of its columns.
        """
        oids = []
        for it in types:
            oid = it if isinstance(it, int) else oid_of(it) if isinstance(it, str) else it.oid
            if oid is None:
                raise ProgrammingError(
                    f"there is no built-in type {it!r}; one of the database's own is given by its "
                    "OID, or by segue.types.TypeInfo"
                )
            oids.append(oid)
        self._types = oids

    def _row_of(self, piece: bytes, connection: BaseConnection) -> tuple[Any, ...]:
        """A row of the text format."""
        fields = row_of(piece)
        if self._types is None:
            return fields
        if len(fields) != len(self._types):
            raise DataError(
                f"a row has {len(fields)} columns, and set_types() was given {len(self._types)}"
            )
        return connection._load_texts(self._types, fields)

    def _check_text(self) -> None:
        """Rows are in the text format; in another they would be wrong data, or none."""
        if self._is_text:
            return
        statement = self._statement
        if isinstance(statement, bytes):
            statement = statement.decode()
        elif not isinstance(statement, str):
            statement = statement.as_string(None)
        found = _OTHER_FORMAT.search(statement)
        if found is not None:
            option = (found["option"] or "binary").lower()
            raise ProgrammingError(
                f"rows are written and read in the text format with its own delimiter, and this "
                f"COPY says {option}: use write() or read()"
            )
        self._is_text = True

    def _open(self, takes_data: bool) -> int:
        if self._ticket is None:
            raise InterfaceError("the COPY has ended, or its block was not entered")
        if self._takes_data != takes_data:
            raise ProgrammingError(
                "this COPY takes data" if self._takes_data else "this COPY gives data"
            )
        return self._ticket

    def _is_at_end(self) -> bool:
        return self._ticket is None and not self._takes_data


class Copy(BaseCopy):
    """A COPY under way. Leaving its block ends it; an exception makes a COPY FROM STDIN fail."""

    def __init__(self, cursor: Cursor, statement: Any) -> None:
        self._cursor = cursor
        self._statement = statement

    def __enter__(self) -> Self:
        self._ticket, self._takes_data = self._cursor._copy_start(self._statement)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            return
        if self._takes_data and error is None:
            self._cursor._copy_end(ticket)
        else:
            self._cursor._abandon(ticket)

    def write(self, data: bytes | bytearray | memoryview | str) -> None:
        """Send a piece of data in the statement's format; it need not end where a row does."""
        self._cursor._copy_send(self._open(True), bytes_of(data))

    def write_row(self, row: Sequence[Any]) -> None:
        """Send a row of Python values; the statement must be in the text format."""
        self._check_text()
        self._cursor._copy_send(self._open(True), self._cursor.connection._copy_row(row))

    def read(self) -> bytes:
        """Give the next piece of data, b"" at the end; in the text formats a piece is a row."""
        if self._is_at_end():
            return b""
        piece = self._cursor._copy_piece(self._open(False))
        if piece is None:
            self._ticket = None
            return b""
        return piece

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read():
            yield piece

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Give the rows of a statement in the text format, as str and None, or by `set_types`."""
        self._check_text()
        connection = self._cursor.connection
        for piece in self:
            yield self._row_of(piece, connection)

    def read_row(self) -> tuple[Any, ...] | None:
        """Give the next row, as `rows`; None at the end."""
        return next(self.rows(), None)


_PLACE = re.compile(r"%(?:\((?P<name>[^)]*)\))?(?P<end>.)?", re.DOTALL)


def with_literals(statement: Any, params: Sequence[Any] | Mapping[str, Any] | None) -> Any:
    """Write parameters into the text of a statement, as literals with their types."""
    if params is None:
        return statement
    from segue.sql import Composable, quote

    if isinstance(statement, Composable):
        statement = statement.as_string()
    elif isinstance(statement, bytes):
        statement = statement.decode()
    if isinstance(params, (str, bytes)) or not isinstance(params, (Sequence, Mapping)):
        raise ProgrammingError("parameters are a sequence or a mapping; nothing was sent")
    used = 0

    def literal(place: re.Match[str]) -> str:
        nonlocal used
        name, end = place["name"], place["end"]
        if end == "%" and name is None:
            return "%"
        if end not in ("s", "b", "t"):
            raise ProgrammingError(
                "only %s, %(name)s and %% may stand in a statement with parameters; "
                "nothing was sent"
            )
        if isinstance(params, Mapping) != (name is not None):
            raise ProgrammingError("a mapping is for %(name)s, a sequence for %s; nothing was sent")
        if isinstance(params, Mapping):
            if name not in params:
                raise ProgrammingError(f"there is no parameter {name}; nothing was sent")
            return quote(params[name])
        used += 1
        return quote(params[used - 1]) if used <= len(params) else ""

    text = _PLACE.sub(literal, statement)
    if not isinstance(params, Mapping) and used != len(params):
        raise ProgrammingError(
            f"the statement takes {used} parameters, {len(params)} were given; nothing was sent"
        )
    return text


def bytes_of(data: bytes | bytearray | memoryview | str) -> bytes:
    """Give a piece of data as bytes."""
    if isinstance(data, str):
        return data.encode()
    return data if isinstance(data, bytes) else bytes(data)


def row_of(piece: bytes) -> tuple[str | None, ...]:
    """Read a row in the text format."""
    return tuple(_field(field) for field in piece.decode().rstrip("\n").split("\t"))


def _field(field: str) -> str | None:
    if field == "\\N":
        return None
    if "\\" not in field:
        return field
    parts = iter(field)
    return "".join(
        _ESCAPES.get(following := next(parts), following) if part == "\\" else part
        for part in parts
    )
