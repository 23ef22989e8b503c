"""SQL put together from parts: names and values are quoted, texts stay what they are.

    query = sql.SQL("SELECT {fields} FROM {table} WHERE {key} = %s").format(
        fields=sql.SQL(", ").join(map(sql.Identifier, ["id", "owner"])),
        table=sql.Identifier("shop", "account"),
        key=sql.Identifier("id"),
    )
    conn.execute(query, (1,))

As `psycopg.sql`. Values belong into the parameters of `execute`; where the server takes none, as in
CREATE and ALTER, `Literal` writes them into the text.
"""

from __future__ import annotations

import re
import string
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from segue import _segue
from segue._builtin import NAMES
from segue.errors import DataError, ProgrammingError

_NUMBERS = {20, 23, 1700}
# The server reads a number first and its sign then, and so would take these for wider types.
_LOWEST = {"-2147483648", "-9223372036854775808"}
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?", re.ASCII)


def quote(value: Any, context: object = None) -> str:
    """A value as SQL, as `Literal(value)` writes it."""
    form = _segue.text_form(value)
    if form is None:
        return "NULL"
    text, oid = form
    if oid in _NUMBERS and text not in _LOWEST and _NUMBER.fullmatch(text):
        # A sign of its own: two in a row begin a comment.
        return f" {text}" if text.startswith("-") else text
    if oid == 16:
        return "true" if text == "t" else "false"
    quoted = _quoted(text)
    return f"{quoted}::{NAMES[oid]}" if oid in NAMES else quoted


def _quoted(text: str) -> str:
    if "\0" in text:
        raise DataError("text with a NUL character cannot be stored by PostgreSQL")
    doubled = text.replace("'", "''")
    if "\\" not in text:
        return f"'{doubled}'"
    # Whatever standard_conforming_strings is. The blank keeps it from what stands before.
    return " E'" + doubled.replace("\\", "\\\\") + "'"


class Composable(ABC):
    """A part of a statement. Parts are added with `+`, and repeated with `*`."""

    __slots__ = ("_obj",)

    def __init__(self, obj: Any) -> None:
        self._obj = obj

    @abstractmethod
    def as_string(self, context: object = None) -> str:
        """The SQL. `context`, a connection or None, changes nothing: it is psycopg's."""

    def as_bytes(self, context: object = None) -> bytes:
        """The same, in UTF-8."""
        return self.as_string(context).encode()

    def __add__(self, other: Composable) -> Composed:
        if isinstance(other, Composed):
            return Composed([self]) + other
        if isinstance(other, Composable):
            return Composed([self, other])
        return NotImplemented

    def __mul__(self, count: int) -> Composed:
        return Composed([self] * count)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._obj == other._obj

    def __hash__(self) -> int:
        return hash((type(self), repr(self._obj)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._obj!r})"


class Composed(Composable):
    """Parts in a row. What is no part becomes a `Literal`."""

    __slots__ = ()
    _obj: list[Composable]

    def __init__(self, seq: Iterable[Any]) -> None:
        super().__init__([it if isinstance(it, Composable) else Literal(it) for it in seq])

    def as_string(self, context: object = None) -> str:
        """The SQL of all of them."""
        return "".join(it.as_string(context) for it in self._obj)

    def join(self, joiner: SQL | str) -> Composed:
        """Put something between each two of them."""
        if isinstance(joiner, str):
            joiner = SQL(joiner)
        elif not isinstance(joiner, SQL):
            raise TypeError(f"a Composed is joined by a str or an SQL, not by {joiner!r}")
        return joiner.join(self._obj)

    def __iter__(self) -> Iterator[Composable]:
        return iter(self._obj)

    def __add__(self, other: Composable) -> Composed:
        if isinstance(other, Composed):
            return Composed(self._obj + other._obj)
        if isinstance(other, Composable):
            return Composed([*self._obj, other])
        return NotImplemented


class SQL(Composable):
    """A text that stays what it is, with `{}`, `{0}` or `{name}` for what `format` puts in.

    Never put together from what somebody else has typed.
    """

    __slots__ = ()
    _obj: str

    def __init__(self, obj: str) -> None:
        if not isinstance(obj, str):
            raise TypeError(f"SQL is made of a str, not of {obj!r}")
        super().__init__(obj)

    def as_string(self, context: object = None) -> str:
        """The text."""
        return self._obj

    def format(self, *args: Any, **kwargs: Any) -> Composed:
        """Put parts into the places; what is no part becomes a `Literal`."""
        parts: list[Any] = []
        number: int | None = 0
        for text, name, spec, conversion in string.Formatter().parse(self._obj):
            if text:
                parts.append(SQL(text))
            if name is None:
                continue
            if spec or conversion:
                raise ValueError("a place in SQL has no format and no conversion")
            if name == "":
                if number is None:
                    raise ValueError("places with numbers and without are not mixed")
                parts.append(args[number])
                number += 1
            elif name.isdigit():
                if number:
                    raise ValueError("places with numbers and without are not mixed")
                number = None
                parts.append(args[int(name)])
            else:
                parts.append(kwargs[name])
        return Composed(parts)

    def join(self, seq: Iterable[Any]) -> Composed:
        """Put this text between each two parts."""
        parts: list[Any] = []
        for it in seq:
            if parts:
                parts.append(self)
            parts.append(it)
        return Composed(parts)


class Identifier(Composable):
    """A name, in quotes; several are joined by dots: `Identifier("schema", "table")`."""

    __slots__ = ()
    _obj: Sequence[str]

    def __init__(self, *strings: str) -> None:
        if not strings:
            raise TypeError("an Identifier has at least one name")
        for it in strings:
            if not isinstance(it, str):
                raise TypeError(f"a name is a str, not {it!r}")
        super().__init__(strings)

    def as_string(self, context: object = None) -> str:
        """The name, in double quotes."""
        if any("\0" in it or not it for it in self._obj):
            raise ProgrammingError("a name is not empty, and has no NUL character in it")
        return ".".join('"' + it.replace('"', '""') + '"' for it in self._obj)

    def __repr__(self) -> str:
        return f"Identifier({', '.join(map(repr, self._obj))})"


class Literal(Composable):
    """A value, as SQL with its type.

    In a statement with parameters a `%` in it is to be doubled, as in an `Identifier`.
    """

    __slots__ = ()

    def as_string(self, context: object = None) -> str:
        """The value, in quotes where it needs them."""
        return quote(self._obj)


class Placeholder(Composable):
    """`%s`, or with a name `%(name)s`: the place of a parameter of `execute`."""

    __slots__ = ("_format",)
    _obj: str

    def __init__(self, name: str = "", format: str = "s") -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a parameter is a str, not {name!r}")
        if "(" in name or ")" in name:
            raise ValueError("the name of a parameter has no parentheses in it")
        if str(format) not in ("s", "b", "t"):
            raise ValueError("a placeholder ends in s, b or t")
        super().__init__(name)
        self._format = str(format)

    def as_string(self, context: object = None) -> str:
        """The placeholder."""
        return f"%({self._obj}){self._format}" if self._obj else f"%{self._format}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placeholder) and (self._obj, self._format) == (
            other._obj,
            other._format,
        )

    __hash__ = Composable.__hash__

    def __repr__(self) -> str:
        parts = [repr(self._obj)] if self._obj else []
        if self._format != "s":
            parts.append(f"format={self._format!r}")
        return f"Placeholder({', '.join(parts)})"


NULL = SQL("NULL")
DEFAULT = SQL("DEFAULT")

__all__ = [
    "DEFAULT",
    "NULL",
    "SQL",
    "Composable",
    "Composed",
    "Identifier",
    "Literal",
    "Placeholder",
    "quote",
]
