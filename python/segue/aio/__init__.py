"""The driver for asyncio: what `segue` has, awaited.

    async with await segue.aio.connect("host=db1,db2 dbname=bank") as conn:
        await conn.execute("UPDATE account SET balance = balance - %s WHERE id = %s", (5, 1))

The event loop itself reads and writes the connections' sockets, uvloop's as well as asyncio's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segue.aio.connection import AsyncConnection, AsyncPipeline, AsyncTransaction, connect
from segue.aio.copy import AsyncCopy
from segue.aio.cursor import AsyncCursor

if TYPE_CHECKING:
    from segue.aio.client import Client
    from segue.aio.pool import Pool
    from segue.aio.recovery import RecoveredTransaction
    from segue.aio.submit import Ticket
else:
    # What many programs do without is imported when it is asked for first.
    _LATER = {
        "Client": "segue.aio.client",
        "Pool": "segue.aio.pool",
        "RecoveredTransaction": "segue.aio.recovery",
        "Ticket": "segue.aio.submit",
    }

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_LATER[name]), name)
        return found


__all__ = [
    "AsyncConnection",
    "AsyncCopy",
    "AsyncCursor",
    "AsyncPipeline",
    "AsyncTransaction",
    "Client",
    "Pool",
    "RecoveredTransaction",
    "Ticket",
    "connect",
]
