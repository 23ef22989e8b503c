"""Row factories: what a fetched row is made into.

A factory is called with a cursor that has a result, and returns a function from the row's values to
the row. `tuple_row` and `dict_row` are known to the native module, which makes such rows itself.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from segue.errors import InterfaceError

T = TypeVar("T")
RowMaker = Callable[[Sequence[Any]], T]
RowFactory = Callable[[Any], RowMaker[T]]


def _names(cursor: Any) -> list[str]:
    description = cursor.description
    if description is None:
        raise InterfaceError("the cursor has no rows")
    return [column[0] for column in description]


def tuple_row(cursor: Any) -> RowMaker[tuple[Any, ...]]:
    """Make rows tuples; what connections do by default."""
    return tuple


def dict_row(cursor: Any) -> RowMaker[dict[str, Any]]:
    """Make rows dicts, keyed by the names of the columns."""
    names = _names(cursor)
    return lambda values: dict(zip(names, values, strict=True))


def scalar_row(cursor: Any) -> RowMaker[Any]:
    """Make rows the values of their first column."""
    _names(cursor)
    return lambda values: values[0]


@lru_cache(maxsize=512)
def _namedtuple(names: tuple[str, ...]) -> Callable[[Sequence[Any]], Any]:
    fields = []
    for number, name in enumerate(names):
        field = re.sub(r"\W", "_", name)
        fields.append(
            field if field and field.isidentifier() and field[0] != "_" else f"f{number}{field}"
        )
    row: Any = namedtuple("Row", tuple(fields), rename=True)  # type: ignore[misc]
    made: Callable[[Sequence[Any]], Any] = row._make
    return made


def namedtuple_row(cursor: Any) -> RowMaker[Any]:
    """Make rows named tuples."""
    return _namedtuple(tuple(_names(cursor)))


def class_row(cls: type[T]) -> RowFactory[T]:
    """Make rows objects of a class, a dataclass for instance, called with the columns by name."""

    def factory(cursor: Any) -> RowMaker[T]:
        names = _names(cursor)
        return lambda values: cls(**dict(zip(names, values, strict=True)))

    return factory


def args_row(function: Callable[..., T]) -> RowFactory[T]:
    """Make rows what a function returns for the values."""

    def factory(cursor: Any) -> RowMaker[T]:
        return lambda values: function(*values)

    return factory


def kwargs_row(function: Callable[..., T]) -> RowFactory[T]:
    """Make rows what a function returns for the values, given by the names of the columns."""

    def factory(cursor: Any) -> RowMaker[T]:
        names = _names(cursor)
        return lambda values: function(**dict(zip(names, values, strict=True)))

    return factory


tuple_row._segue_native = "tuple"  # type: ignore[attr-defined]
dict_row._segue_native = "dict"  # type: ignore[attr-defined]

__all__ = [
    "RowFactory",
    "RowMaker",
    "args_row",
    "class_row",
    "dict_row",
    "kwargs_row",
    "namedtuple_row",
    "scalar_row",
    "tuple_row",
]
