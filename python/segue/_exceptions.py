"""The roots of all exceptions: the DB-API's tree, what became of a transaction, a server's fields.

Users import these from `segue` or `segue.errors`. Nothing here knows a SQLSTATE or one of Segue's
own kinds of error; a message never has a secret or a parameter's value in it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, ClassVar


class Outcome(enum.Enum):
    """What became of the transaction (or the autocommit statement) that an error ended."""

    __module__ = "segue.errors"

    NOT_COMMITTED = "not_committed"
    """Nothing of it is in the database, and nothing of it will be."""
    COMMITTED = "committed"
    """It is in the database, exactly once."""
    UNKNOWN = "unknown"
    """It cannot be said: the ledger is off, or no server could be asked before the deadline."""


@dataclass(frozen=True)
class Diagnostic:
    """An error of the server, field by field, as it was sent. A field it did not send is None."""

    severity: str | None = None
    """ERROR, FATAL or PANIC; never translated."""
    sqlstate: str | None = None
    message_primary: str | None = None
    message_detail: str | None = None
    """May hold values of the row in question, which is why no exception's text has it."""
    message_hint: str | None = None
    statement_position: int | None = None
    """In characters, from 1."""
    internal_position: int | None = None
    internal_query: str | None = None
    context: str | None = None
    schema_name: str | None = None
    table_name: str | None = None
    column_name: str | None = None
    datatype_name: str | None = None
    constraint_name: str | None = None
    source_file: str | None = None
    source_line: int | None = None
    source_function: str | None = None


# Not in the class: the decorator looks its module up, which is not imported yet.
Diagnostic.__module__ = "segue.errors"


class Warning(Exception):
    """The DB-API's class for important warnings. Segue raises none."""

    __module__ = "segue.errors"


class Error(Exception):
    """The root of all of Segue's errors."""

    __module__ = "segue.errors"

    _default_sqlstate: ClassVar[str | None] = None
    _transient: ClassVar[bool] = False

    sqlstate: str | None
    """The server's, or the standard's code that is nearest; None for mistakes in Python's use."""
    outcome: Outcome
    """What became of the transaction."""
    diag: Diagnostic
    """The fields that the server sent; all None where the error is not a server's."""

    # Keywords only, and with defaults: exceptions are pickled and copied as their positional
    # arguments and their __dict__.
    def __init__(
        self,
        *args: object,
        sqlstate: str | None = None,
        outcome: Outcome = Outcome.NOT_COMMITTED,
        diag: Diagnostic | None = None,
    ) -> None:
        super().__init__(*args)
        self.sqlstate = self._default_sqlstate if sqlstate is None else sqlstate
        self.outcome = outcome
        self.diag = Diagnostic() if diag is None else diag

    @property
    def is_retryable(self) -> bool:
        """Whether running the whole transaction again may help, and cannot apply it twice."""
        return self._transient and self.outcome is Outcome.NOT_COMMITTED

    @property
    def maybe_committed(self) -> bool:
        """Whether the transaction may stand, although an error was reported."""
        return self.outcome is not Outcome.NOT_COMMITTED

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, self.__dict__.copy())


def _rebuilt(cls: type[Error], args: tuple[object, ...], state: dict[str, Any]) -> Error:
    # Not through __init__: a subclass of the application's may have one of its own.
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InterfaceError(Error):
    """A mistake in the use of the driver itself."""

    __module__ = "segue.errors"


class DatabaseError(Error):
    """Anything that has to do with the database."""

    __module__ = "segue.errors"


class DataError(DatabaseError):
    """A value is out of range, malformed, or of the wrong type."""

    __module__ = "segue.errors"


class OperationalError(DatabaseError):
    """Something outside the program's control: connections, resources, conflicts, operators."""

    __module__ = "segue.errors"


class IntegrityError(DatabaseError):
    """A constraint would be violated."""

    __module__ = "segue.errors"


class InternalError(DatabaseError):
    """The database is in a state that does not allow the statement, or met a fault of its own."""

    __module__ = "segue.errors"


class ProgrammingError(DatabaseError):
    """The statement is wrong, names what is not there, or has the wrong number of parameters."""

    __module__ = "segue.errors"


class NotSupportedError(DatabaseError):
    """The server, or Segue, cannot do that."""

    __module__ = "segue.errors"
