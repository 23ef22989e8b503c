"""A PostgreSQL driver whose transactions outlive their server.

    with segue.connect("host=db1,db2 dbname=bank") as conn:
        conn.execute("UPDATE account SET balance = balance - %s WHERE id = %s", (5, 1))

DB-API 2.0, in the manner of psycopg 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segue import errors
from segue._column import Column
from segue._segue import __version__
from segue.connection import (
    Connection,
    IsolationLevel,
    Notify,
    Rollback,
    Transaction,
    TransactionStatus,
    connect,
)
from segue.copy import Copy
from segue.cursor import Cursor
from segue.errors import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    Outcome,
    OutcomeUnknown,
    ProgrammingError,
    ProtectionLost,
    ReplayDiverged,
    Warning,
)
from segue.types import (
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    Date,
    DateFromTicks,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
)

if TYPE_CHECKING:
    from segue import events
    from segue.client import Client, ClientStatistics, ClientStatus, JournalStatus, ServerStatus
    from segue.pool import Pool
    from segue.recovery import RecoveredStatement, RecoveredTransaction, Verdict
    from segue.submit import DeadLetter, Executed, Statement, SubmissionStatus, Ticket
else:
    # What many programs do without is imported when it is asked for first.
    _LATER = {
        "Client": "segue.client",
        "ClientStatistics": "segue.client",
        "ClientStatus": "segue.client",
        "DeadLetter": "segue.submit",
        "Executed": "segue.submit",
        "JournalStatus": "segue.client",
        "Pool": "segue.pool",
        "RecoveredStatement": "segue.recovery",
        "RecoveredTransaction": "segue.recovery",
        "ServerStatus": "segue.client",
        "Statement": "segue.submit",
        "SubmissionStatus": "segue.submit",
        "Ticket": "segue.submit",
        "Verdict": "segue.recovery",
    }

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name == "events":
            return import_module("segue.events")
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_LATER[name]), name)
        return found


apilevel = "2.0"
threadsafety = 2
paramstyle = "pyformat"

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Client",
    "ClientStatistics",
    "ClientStatus",
    "Column",
    "Connection",
    "Copy",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "DeadLetter",
    "Error",
    "Executed",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "IsolationLevel",
    "JournalStatus",
    "NotSupportedError",
    "Notify",
    "OperationalError",
    "Outcome",
    "OutcomeUnknown",
    "Pool",
    "ProgrammingError",
    "ProtectionLost",
    "RecoveredStatement",
    "RecoveredTransaction",
    "ReplayDiverged",
    "Rollback",
    "ServerStatus",
    "Statement",
    "SubmissionStatus",
    "Ticket",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Transaction",
    "TransactionStatus",
    "Verdict",
    "Warning",
    "__version__",
    "apilevel",
    "connect",
    "errors",
    "events",
    "paramstyle",
    "threadsafety",
]
