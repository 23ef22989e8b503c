"""A pool's connection for an `async with` block: committed, or rolled back, and given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segue._basepool import CLOSED, IDLE
from segue.errors import InterfaceError

if TYPE_CHECKING:
    from types import TracebackType

    from segue.aio.connection import AsyncConnection
    from segue.aio.pool import Pool


class Checkout:
    """A connection of a pool's for an `async with` block."""

    def __init__(self, pool: Pool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._connection: AsyncConnection | None = None

    async def __aenter__(self) -> AsyncConnection:
        if self._connection is not None:
            raise InterfaceError("the block is entered already")
        self._connection = connection = await self._pool.getconn(self._timeout)
        return connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        pool = self._pool
        if id(connection) not in pool._out:
            # Given back by hand already.
            return
        if error is None:
            try:
                if connection._transaction_status() not in (IDLE, CLOSED):
                    await connection.commit()
            except BaseException as failure:
                error = failure
                raise
            finally:
                await self._put(connection, error)
        else:
            await self._put(connection, error)

    async def _put(self, connection: AsyncConnection, error: BaseException | None) -> None:
        pool = self._pool
        if error is None or isinstance(error, Exception):
            await pool._put(connection, warns=False)
        else:
            # A task that is cancelled ends at once; the statement may take its time to end.
            pool._spawn(pool._clean(connection, warns=False))
