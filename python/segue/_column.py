"""The columns of a result, as the DB-API describes them."""

from __future__ import annotations

from typing import NamedTuple

_NUMERIC = 1700
# Character types whose modifier is their length; times whose modifier is their precision.
_CHARACTERS = frozenset((1042, 1043, 1560, 1562))
_TIMES = frozenset((1083, 1114, 1184, 1186, 1266))


class _Fields(NamedTuple):
    name: str
    type_code: int
    display_size: int | None
    internal_size: int | None
    precision: int | None
    scale: int | None
    null_ok: bool | None


class Column(_Fields):
    """A column: the seven items of the DB-API, by position and by name."""

    __slots__ = ()

    def __new__(cls, name: str, oid: int, size: int, modifier: int) -> Column:
        """Make one of what the server said: the type's OID, size and modifier."""
        display = precision = scale = None
        if oid == _NUMERIC and modifier >= 4:
            precision = (modifier - 4) >> 16
            scale = (modifier - 4) & 0x7FF
            scale = scale - 0x800 if scale >= 0x400 else scale
        elif oid in _CHARACTERS and modifier >= 0:
            display = modifier - 4 if oid in (1042, 1043) else modifier
        elif oid in _TIMES and modifier >= 0:
            precision = modifier & 0xFFFF
        return super().__new__(
            cls, name, oid, display, size if size >= 0 else None, precision, scale, None
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, tuple(self)


def _rebuilt(*fields: object) -> Column:
    return tuple.__new__(Column, fields)
