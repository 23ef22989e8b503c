"""All exceptions: the DB-API's, one class for each of PostgreSQL's SQLSTATEs, and Segue's own.

`except segue.errors.UniqueViolation` does what it says; `lookup("23505")` finds the class. An error
that a server sent keeps its identity. What became of the transaction is a matter of its own,
`error.outcome`, and so is the advice derived from it, `error.is_retryable`.

Segue's own kinds map one to one to `ErrorKind` of the core (src/error.rs); a test compares them.
"""

from __future__ import annotations

from segue import _sqlstates
from segue._exceptions import (
    DatabaseError,
    DataError,
    Diagnostic,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    Outcome,
    ProgrammingError,
    Warning,
)
from segue._sqlstates import *  # noqa: F403


class ConfigurationError(ProgrammingError):
    """The connection string or an option is wrong, or contradicts another."""

    _default_sqlstate = "F0000"


class ConnectionFailed(_sqlstates.SqlclientUnableToEstablishSqlconnection):
    """No server could be reached."""

    _transient = True


class TlsError(_sqlstates.SqlclientUnableToEstablishSqlconnection):
    """TLS could not be agreed upon, or a certificate was refused."""


class AuthenticationFailed(_sqlstates.InvalidAuthorizationSpecification):
    """The server refused the user, or asked for a method that the configuration does not allow."""


class ProtocolError(_sqlstates.ProtocolViolation):
    """A server sent what is not PostgreSQL's protocol."""

    _transient = True


class OutcomeUnknown(_sqlstates.TransactionResolutionUnknown):
    """The server was lost, and nothing can be said of the commit that was in flight."""


class ReplayDiverged(_sqlstates.SerializationFailure):
    """After a failover the transaction gave other results than the application has seen.

    It was rolled back. SQLSTATE 40001: a loop that retries serialization failures retries it.
    """


class ReplyLost(OperationalError):
    """The commit stands, but the server's reply to the statement is lost."""

    _default_sqlstate = "02000"


class ProtectionLost(_sqlstates.ConnectionFailure):
    """The server was lost, and the transaction could not be replayed; the message says why."""

    _transient = True


class FailoverTimeout(_sqlstates.ConnectionFailure):
    """No usable server appeared before `failover_timeout_ms` had passed."""

    _transient = True


class LedgerError(_sqlstates.ObjectNotInPrerequisiteState):
    """`ledger=require`, and the server's ledger is missing or may not be used."""


class TransactionFailed(_sqlstates.InFailedSqlTransaction):
    """COMMIT was asked for in a transaction that had failed: it was rolled back."""


class ServerCrash(_sqlstates.CrashShutdown):
    """The server has crashed each time that it ran a submission alone: it is a dead letter now."""


class UsageError(ProgrammingError):
    """The call does not fit the state of the connection."""

    _default_sqlstate = "HY010"


class ConversionError(_sqlstates.InvalidParameterValue):
    """A value could not be converted to its PostgreSQL type, or from it."""


class LimitExceeded(_sqlstates.ProgramLimitExceeded):
    """A limit of the configuration was reached."""


class ConnectionClosed(_sqlstates.ConnectionDoesNotExist):
    """The connection was closed before."""


class ConnectionForked(_sqlstates.ConnectionDoesNotExist):
    """The connection was made by the process that forked this one; make one in this process."""


class PoolClosed(OperationalError):
    """The pool is closed, or not open yet."""


class PoolTimeout(OperationalError):
    """No connection of the pool became free in time; `__cause__` is why none could be made."""

    _transient = True


class PoolFull(OperationalError):
    """Too many requests wait for a connection of the pool (`max_waiting`)."""

    _transient = True


_BY_KIND: dict[str, type[Error]] = {
    "Config": ConfigurationError,
    "Connect": ConnectionFailed,
    "Tls": TlsError,
    "Authentication": AuthenticationFailed,
    "Protocol": ProtocolError,
    # Its SQLSTATE decides.
    "Server": DatabaseError,
    "OutcomeUnknown": OutcomeUnknown,
    "ReplayDiverged": ReplayDiverged,
    "ReplyLost": ReplyLost,
    "ProtectionLost": ProtectionLost,
    "FailoverTimeout": FailoverTimeout,
    "Ledger": LedgerError,
    "TransactionFailed": TransactionFailed,
    "ServerCrash": ServerCrash,
    "Usage": UsageError,
    "Conversion": ConversionError,
    "Limit": LimitExceeded,
    "Closed": ConnectionClosed,
    "Forked": ConnectionForked,
}

_OUTCOMES: dict[str, Outcome] = {
    "NotCommitted": Outcome.NOT_COMMITTED,
    "Committed": Outcome.COMMITTED,
    "Unknown": Outcome.UNKNOWN,
}

# The DB-API's class for codes that PostgreSQL does not list, such as those of RAISE ... ERRCODE.
_BY_CLASS: dict[str, type[Error]] = {
    sqlstate[:2]: cls.__mro__[1] for sqlstate, cls in _sqlstates.BY_SQLSTATE.items()
}


def lookup(sqlstate: str) -> type[Error]:
    """The class for a SQLSTATE: `UniqueViolation` for "23505". KeyError where there is none."""
    return _sqlstates.BY_SQLSTATE[sqlstate.upper()]


def class_for(sqlstate: str) -> type[Error]:
    """The class that an error with this SQLSTATE is raised as; there always is one.

    A code that PostgreSQL does not list is an error of its class: 23XYZ an `IntegrityError`.
    """
    exact = _sqlstates.BY_SQLSTATE.get(sqlstate)
    return exact or _BY_CLASS.get(sqlstate[:2], DatabaseError)


def _from_core(
    kind: str,
    outcome: str,
    sqlstate: str,
    message: str,
    fields: dict[str, str | int | None] | None = None,
) -> Error:
    """The exception for an error of the core; the native module's one way to make exceptions.

    `kind` and `outcome` are the names of the variants in src/error.rs, `fields` those of
    `Diagnostic` where the server sent any.
    """
    diag = Diagnostic(**fields) if fields is not None else None  # type: ignore[arg-type]
    if kind == "Server":
        cls = class_for(sqlstate)
        if diag is not None and diag.message_primary is not None:
            message = diag.message_primary
            if diag.message_hint is not None:
                message += f"\nHINT:  {diag.message_hint}"
    else:
        # A kind that this version does not know yet is an error all the same.
        cls = _BY_KIND.get(kind, DatabaseError)
    return cls(
        message, sqlstate=sqlstate, outcome=_OUTCOMES.get(outcome, Outcome.UNKNOWN), diag=diag
    )


__all__ = [
    "AuthenticationFailed",
    "ConfigurationError",
    "ConnectionClosed",
    "ConnectionFailed",
    "ConnectionForked",
    "ConversionError",
    "DataError",
    "DatabaseError",
    "Diagnostic",
    "Error",
    "FailoverTimeout",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "LedgerError",
    "LimitExceeded",
    "NotSupportedError",
    "OperationalError",
    "Outcome",
    "OutcomeUnknown",
    "PoolClosed",
    "PoolFull",
    "PoolTimeout",
    "ProgrammingError",
    "ProtectionLost",
    "ProtocolError",
    "ReplayDiverged",
    "ReplyLost",
    "ServerCrash",
    "TlsError",
    "TransactionFailed",
    "UsageError",
    "Warning",
    "class_for",
    "lookup",
]
__all__ += _sqlstates.__all__
