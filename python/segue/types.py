"""Python classes for PostgreSQL's types, the DB-API's type objects, and registration of more types.

This module must import without the native one: that one looks up its classes here.
"""

from __future__ import annotations

import datetime
import re
import time
import uuid
from collections import namedtuple
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from segue._base import BaseConnection
    from segue.aio.connection import AsyncConnection
    from segue.connection import Connection

T = TypeVar("T")

_BOUNDS = ("[]", "[)", "(]", "()")


class Range(Generic[T]):
    """A range of PostgreSQL's: two bounds, None where there is none, and whether they are in it."""

    __slots__ = ("_bounds", "_lower", "_upper")
    _bounds: str | None

    def __init__(
        self,
        lower: T | None = None,
        upper: T | None = None,
        bounds: str = "[)",
        empty: bool = False,
    ) -> None:
        if bounds not in _BOUNDS:
            raise ValueError(f"bounds are one of {', '.join(_BOUNDS)}, not {bounds!r}")
        if empty:
            self._lower, self._upper, self._bounds = None, None, None
            return
        # As the server has it: what is unbounded is not included.
        first = "(" if lower is None else bounds[0]
        last = ")" if upper is None else bounds[1]
        self._lower, self._upper, self._bounds = lower, upper, first + last

    @property
    def lower(self) -> T | None:
        """The lower bound; None if there is none, or if the range is empty."""
        return self._lower

    @property
    def upper(self) -> T | None:
        """The upper bound; None if there is none, or if the range is empty."""
        return self._upper

    @property
    def bounds(self) -> str:
        """Two brackets, such as "[)"; of an empty range "()"."""
        return self._bounds or "()"

    @property
    def isempty(self) -> bool:
        """Whether nothing is in it."""
        return self._bounds is None

    @property
    def lower_inf(self) -> bool:
        """Whether it has no lower bound."""
        return self._bounds is not None and self._lower is None

    @property
    def upper_inf(self) -> bool:
        """Whether it has no upper bound."""
        return self._bounds is not None and self._upper is None

    @property
    def lower_inc(self) -> bool:
        """Whether the lower bound is in it."""
        return self._bounds is not None and self._bounds[0] == "["

    @property
    def upper_inc(self) -> bool:
        """Whether the upper bound is in it."""
        return self._bounds is not None and self._bounds[1] == "]"

    def __contains__(self, value: Any) -> bool:
        if self._bounds is None:
            return False
        if self._lower is not None and not (
            value >= self._lower if self.lower_inc else value > self._lower
        ):
            return False
        return self._upper is None or (
            value <= self._upper if self.upper_inc else value < self._upper
        )

    def __bool__(self) -> bool:
        return self._bounds is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Range):
            return NotImplemented
        return (self._lower, self._upper, self._bounds) == (
            other._lower,
            other._upper,
            other._bounds,
        )

    def __hash__(self) -> int:
        return hash((self._lower, self._upper, self._bounds))

    def __repr__(self) -> str:
        if self._bounds is None:
            return f"{type(self).__name__}(empty=True)"
        return f"{type(self).__name__}({self._lower!r}, {self._upper!r}, {self._bounds!r})"

    def __getstate__(self) -> tuple[Any, ...]:
        return (self._lower, self._upper, self._bounds)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._lower, self._upper, self._bounds = state


class Multirange(list[Range[T]]):
    """A multirange: a list of ranges."""

    def __init__(self, ranges: Iterable[Range[T]] = ()) -> None:
        super().__init__(ranges)
        for found in self:
            if not isinstance(found, Range):
                raise TypeError(f"a multirange is of ranges, not of {type(found).__name__}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({super().__repr__()})"


class _JsonWrapper:
    """A value to be sent as JSON."""

    __slots__ = ("dumps", "obj")

    def __init__(self, obj: Any, dumps: Callable[[Any], str | bytes] | None = None) -> None:
        self.obj = obj
        self.dumps = dumps

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Json(_JsonWrapper):
    """A value to be sent as json."""

    __slots__ = ()


class Jsonb(_JsonWrapper):
    """A value to be sent as jsonb; a bare dict is sent so, too."""

    __slots__ = ()


@dataclass(frozen=True)
class Encoded:
    """A value that is in PostgreSQL's own form already, as a parameter: it is sent as it is."""

    data: bytes = field(repr=False)
    oid: int = 0
    """Of its type; 0 leaves that to the server."""
    binary: bool = True
    """In binary form; else text in UTF-8."""


class Hstore(dict[str, "str | None"]):
    """A dict to be sent as hstore."""


# The DB-API's constructors and type objects.

Date = datetime.date
Time = datetime.time
Timestamp = datetime.datetime
Binary = bytes


def DateFromTicks(ticks: float) -> datetime.date:
    """Make a date of seconds since the epoch, in local time."""
    return datetime.date(*time.localtime(ticks)[:3])


def TimeFromTicks(ticks: float) -> datetime.time:
    """Make a time of seconds since the epoch, in local time."""
    return datetime.time(*time.localtime(ticks)[3:6])


def TimestampFromTicks(ticks: float) -> datetime.datetime:
    """Make a timestamp of seconds since the epoch, in local time."""
    return datetime.datetime(*time.localtime(ticks)[:6])


class _BlankUUID(uuid.UUID):
    """One that can be written: the native module fills it in and then makes it a plain UUID."""

    __slots__ = ()
    __new__ = object.__new__
    __init__ = object.__init__
    __setattr__ = object.__setattr__  # type: ignore[assignment]


class DBAPITypeObject:
    """Equal to the OIDs of the types it stands for."""

    __slots__ = ("_name", "_oids")

    def __init__(self, name: str, oids: Iterable[int]) -> None:
        self._name = name
        self._oids = frozenset(oids)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return other in self._oids
        if isinstance(other, DBAPITypeObject):
            return self._oids == other._oids
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._oids)

    def __repr__(self) -> str:
        return f"<{self._name}>"


STRING = DBAPITypeObject("STRING", (18, 19, 25, 114, 142, 1042, 1043, 2275, 2950, 3802))
BINARY = DBAPITypeObject("BINARY", (17,))
NUMBER = DBAPITypeObject("NUMBER", (20, 21, 23, 700, 701, 790, 1700))
DATETIME = DBAPITypeObject("DATETIME", (1082, 1083, 1114, 1184, 1186, 1266))
ROWID = DBAPITypeObject("ROWID", (26,))


# Types of a database's own.


@dataclass(frozen=True)
class TypeInfo:
    """What the catalogue says of a type."""

    name: str
    oid: int
    array_oid: int
    kind: str
    """As pg_type.typtype: b, c, d, e, m or r."""
    labels: tuple[str, ...] = ()
    """Of an enum."""
    fields: tuple[tuple[str, int], ...] = ()
    """Of a composite: names and types."""
    bound_oid: int = 0
    """Of a range: the type of its bounds."""
    multirange_oid: int = 0
    """Of a range."""

    @overload
    @classmethod
    def fetch(cls, connection: Connection, name: str) -> TypeInfo | None: ...

    @overload
    @classmethod
    def fetch(
        cls, connection: AsyncConnection, name: str
    ) -> Coroutine[Any, Any, TypeInfo | None]: ...

    @classmethod
    def fetch(cls, connection: Any, name: str) -> Any:
        """Ask the server for a type by its name, which may have a schema; None if there is none.

        With a connection of `segue.aio` it has to be awaited.
        """
        from segue.connection import Connection

        if not isinstance(connection, Connection):
            return cls._fetch_awaited(connection, name)
        with connection.cursor(row_factory=None) as cursor:
            return cls._of(cursor.execute(_TYPE_INFO, (name,)).fetchone())

    @classmethod
    async def _fetch_awaited(cls, connection: AsyncConnection, name: str) -> TypeInfo | None:
        async with connection.cursor(row_factory=None) as cursor:
            await cursor.execute(_TYPE_INFO, (name,))
            return cls._of(await cursor.fetchone())

    @classmethod
    def _of(cls, row: tuple[Any, ...] | None) -> TypeInfo | None:
        if row is None:
            return None
        oid, array, kind, typname, labels, names, types, bound, multi = row
        return cls(
            typname,
            oid,
            array,
            kind,
            tuple(labels),
            tuple(zip(names, types, strict=True)),
            bound,
            multi,
        )


_TYPE_INFO = """
SELECT t.oid, t.typarray, t.typtype::text, t.typname::text,
  ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
  ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = t.typrelid
    AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  ARRAY(SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid
    AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  COALESCE((SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid), 0::oid),
  COALESCE((SELECT r.rngmultitypid FROM pg_range r WHERE r.rngtypid = t.oid), 0::oid)
FROM pg_type t WHERE t.oid = to_regtype(%s)
"""


def _fetched(connection: BaseConnection, name: str | TypeInfo) -> TypeInfo:
    from segue.connection import Connection
    from segue.errors import ProgrammingError

    if isinstance(name, TypeInfo):
        return name
    if not isinstance(connection, Connection):
        raise ProgrammingError("with an AsyncConnection, give what TypeInfo.fetch() returned")
    info = TypeInfo.fetch(connection, name)
    if info is None:
        raise ProgrammingError(f"there is no type {name} in this database")
    return info


def register_enum(
    connection: BaseConnection,
    name: str | TypeInfo,
    enum: type[Enum],
    mapping: Mapping[Enum, str] | None = None,
) -> TypeInfo:
    """Have an enum type read as members of a Python enum, and these sent as it.

    A member's label is its name, or its value if that is one of the type's labels, or what
    `mapping` says. Holds for all connections to this database.
    """
    info = _fetched(connection, name)
    labels: dict[Enum, str] = {}
    for member in enum:
        if mapping is not None and member in mapping:
            labels[member] = mapping[member]
        elif member.name in info.labels:
            labels[member] = member.name
        elif isinstance(member.value, str) and member.value in info.labels:
            labels[member] = member.value
    connection._register_enum(
        info.oid, info.array_oid, [(label, member) for member, label in labels.items()]
    )
    from segue import _segue

    _segue.register_dumper(enum, info.oid, labels)
    return info


def register_composite(
    connection: BaseConnection,
    name: str | TypeInfo,
    factory: Callable[..., Any] | None = None,
) -> TypeInfo:
    """Have a composite type read as what `factory` makes of its fields, given by position.

    Without a factory it is a named tuple, which is what unregistered ones are, too.
    """
    info = _fetched(connection, name)
    if factory is None:
        factory = _row_type(info.name, "\x1f".join(field for field, _ in info.fields))
    fields = [oid for _, oid in info.fields]
    connection._register_composite(info.oid, info.array_oid, fields, factory)
    return info


def register_range(connection: BaseConnection, name: str | TypeInfo) -> TypeInfo:
    """Have a range type of the database's own, and its multirange, read as such."""
    info = _fetched(connection, name)
    connection._register_range(info.oid, info.multirange_oid, info.bound_oid)
    return info


def register_hstore(connection: BaseConnection, name: str | TypeInfo = "hstore") -> TypeInfo:
    """Have hstore read as a dict; a dict is sent as hstore by `Hstore(...)`."""
    info = _fetched(connection, name)
    connection._register_hstore(info.oid, info.array_oid)
    return info


def register_loader(
    connection: BaseConnection,
    name: str | int,
    loads: Callable[[Any], Any],
    *,
    binary: bool = False,
) -> None:
    """Have a type read by a function of its text (a str), or of its binary form (bytes)."""
    oid = name if isinstance(name, int) else _fetched(connection, name).oid
    connection._register_loader(oid, loads, binary)


def register_dumper(cls: type, oid: int, dumps: Callable[[Any], str | bytes | None]) -> None:
    """Have values of a class sent as a type, 0 for what the server infers.

    `dumps` gives a str in the text form, bytes in the binary form, or None for NULL. Holds for all
    connections.
    """
    from segue import _segue

    _segue.register_dumper(cls, oid, dumps)


@lru_cache(maxsize=256)
def _row_type(name: str, fields: str) -> Callable[..., Any]:
    """Make the named tuple for a composite type; called by the native module."""
    names = [
        field
        if field.isidentifier() and not field.startswith("_")
        else f"f_{re.sub(r'W', '_', field)}"
        for field in fields.split("\x1f")
        if field
    ]
    title = re.sub(r"\W", "_", name)
    return namedtuple(title if title.isidentifier() else "Row", names, rename=True)
