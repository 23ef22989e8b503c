"""`segue.aio.Pool`: connections kept open, for tasks that need one for a while.

The books are kept in `segue._pool`, in the event loop's thread alone, and never across an `await`.
One task makes and closes connections. What has to be awaited before a connection can go to the next
one is done by tasks of the pool's own, so that a task that is cancelled ends at once and loses
neither a connection nor anybody's turn.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import time
import warnings
import weakref
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from segue._base import make_conninfo
from segue._basepool import CLOSED, IDLE, OPEN, BasePool, connect_arguments, sizes_of
from segue._logging import logger
from segue._pool import Close, Make, PoolCore, PoolStats, Slot, Waiter, is_hopeless
from segue.aio._checkout import Checkout
from segue.aio.connection import AsyncConnection
from segue.client import Client
from segue.errors import InterfaceError, PoolClosed, PoolTimeout

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from segue.aio.cursor import AsyncCursor
    from segue.rows import RowFactory

# So many connections are made at once; a single one while they cannot be made.
_MAKERS = 3

_logger = logger.getChild("pool")


class _Waiter(Waiter[AsyncConnection]):
    """A task that waits for a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.future is not None:
            _set(self.future)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Pool(BasePool[AsyncConnection]):
    """Between `min_size` and `max_size` connections of one configuration, for one event loop.

        async with segue.aio.Pool("postgresql://app@db1,db2/shop", max_size=20) as pool:
            async with pool.connection() as conn:
                await conn.execute("INSERT INTO account VALUES (%s, %s)", (1, "Ada"))

    It is opened by `async with`, `await pool.open()` or `await` itself, in the loop that is to use
    it.

    `timeout`: for so many seconds a task waits for a connection at most, first come, first served;
    `PoolTimeout` then. `max_lifetime`: a connection of so many seconds is replaced. `max_idle`:
    those beyond `min_size` that nobody needs for so long are closed. `max_waiting`: more tasks than
    that may not wait (`PoolFull`); 0 is no limit.

    `configure(conn)` is called with each new connection, `check(conn)` before one is handed out,
    `reset(conn)` when it has come back and was rolled back; what they return is awaited. What they
    leave open is committed (`check`: rolled back); if they raise, the connection is closed and
    another takes its place.

    What else is given is for `segue.aio.connect`. The pool keeps a `segue.Client` open,
    `pool.client`. All of it is for the event loop's own thread.
    """

    __module__ = "segue.aio"

    def __init__(
        self,
        conninfo: str = "",
        *,
        min_size: int = 4,
        max_size: int | None = None,
        timeout: float = 30.0,
        max_waiting: int = 0,
        max_lifetime: float | None = 3600.0,
        max_idle: float | None = 600.0,
        configure: Callable[[AsyncConnection], object] | None = None,
        check: Callable[[AsyncConnection], object] | None = None,
        reset: Callable[[AsyncConnection], object] | None = None,
        name: str | None = None,
        open: bool = False,
        autocommit: bool = False,
        row_factory: RowFactory[Any] | None = None,
        cursor_factory: type[AsyncCursor] | None = None,
        writes: bool | None = None,
        **options: Any,
    ) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        sizes = sizes_of(min_size, max_size, max_waiting, max_lifetime, max_idle)
        self._name(name)
        self.timeout = timeout
        self._conninfo = make_conninfo(conninfo, **options)
        self._connect_args = connect_arguments(
            autocommit=autocommit,
            row_factory=row_factory,
            cursor_factory=cursor_factory,
            writes=writes,
        )
        self._configure = configure
        self._check = check
        self._reset = reset
        self._core: PoolCore[AsyncConnection] = PoolCore(sizes, self.name)
        self._out: dict[int, Slot[AsyncConnection]] = {}
        self._client: Client | None = None
        self._changed = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        # Those who want to know whether there are `min_size` connections.
        self._watching: set[asyncio.Future[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._makers: set[asyncio.Task[None]] = set()
        if open:
            self._start()

    # Opening and closing.

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Open it, unless it is open; connections are made in the background.

        With `wait`, until there are `min_size` of them.
        """
        self._start()
        if wait:
            await self.wait(timeout)

    def _start(self) -> None:
        if self._core.closed:
            raise PoolClosed(f"pool {self.name} was closed; make another")
        if self._loop is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                raise InterfaceError(
                    f"pool {self.name} is opened in an event loop: by `async with` or `open()`"
                ) from None
            self._client = Client(self._conninfo)
            self._loop = loop
            self._worker = loop.create_task(
                _work(weakref.ref(self), self._changed), name=f"segue-{self.name}"
            )
        self._check_loop()

    def _check_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            raise InterfaceError(f"pool {self.name} belongs to another event loop")

    def _check_usable(self) -> None:
        self._check_open()
        self._check_loop()

    def __await__(self) -> Generator[Any, None, Self]:
        yield from self.open().__await__()
        return self

    async def wait(self, timeout: float = 30.0) -> None:
        """Wait until there are `min_size` connections.

        Raises what keeps them from being made, if it is nothing that would pass by itself.
        """
        core = self._core
        deadline = time.monotonic() + timeout
        self._check_usable()
        loop = asyncio.get_running_loop()
        while not core.has_minimum:
            if core.last_error is not None and is_hopeless(core.last_error):
                raise copy.copy(core.last_error) from core.last_error
            left = deadline - time.monotonic()
            if left <= 0:
                text = f"pool {self.name}: there are no {core.sizes.min_size} connections yet"
                raise PoolTimeout(f"{text} after {timeout:g} s") from core.last_error
            future: asyncio.Future[None] = loop.create_future()
            self._watching.add(future)
            try:
                await asyncio.wait({future}, timeout=left)
            finally:
                self._watching.discard(future)
            self._check_open()

    def _tell(self) -> None:
        """Something has changed: for the worker, and for those in `wait`."""
        self._changed.set()
        for future in self._watching:
            _set(future)

    async def close(self, timeout: float = 5.0) -> None:
        """Close idle connections, and those in use once they are given back.

        Whoever waits for one gets `PoolClosed`. For at most `timeout` seconds it is waited for
        those that are being closed, or are given back already.
        """
        core, worker = self._core, self._worker
        if worker is not None:
            self._check_loop()
        if not core.closed:
            core.close()
        for maker in self._makers:
            maker.cancel()
        self._tell()
        current = asyncio.current_task()
        busy = {t for t in (*self._tasks, worker) if t is not None and t is not current}
        if busy:
            await asyncio.wait(busy, timeout=max(timeout, 0.0))
        if self._client is not None:
            self._client.close()

    async def drain(self) -> None:
        """Replace all connections: those that are idle now, those in use when they come back.

        Such as after a change of the database that connections have taken note of.
        """
        self._check_usable()
        self._core.drain()
        self._tell()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # Connections.

    def connection(self, timeout: float | None = None) -> Checkout:
        """Have a connection for an `async with` block.

        The block is committed at its end, or rolled back after an exception.
        """
        return Checkout(self, timeout)

    async def getconn(self, timeout: float | None = None) -> AsyncConnection:
        """Take a connection, which has to be given back with `putconn`."""
        timeout = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        waiter = _Waiter()
        again = False
        while True:
            self._check_usable()
            waiter.future = None
            self._core.request(waiter, time.monotonic(), again=again)
            slot = waiter.slot
            if slot is None:
                slot = await self._wait_for(waiter, deadline, timeout)
            elif self._core.has_duty:
                self._tell()
            connection = slot.connection
            self._out[id(connection)] = slot
            if self._check is None or await self._passes(connection, self._check):
                return connection
            again = True
            if time.monotonic() > deadline:
                raise PoolTimeout(f"pool {self.name}: no connection passed its check in time")

    async def _wait_for(
        self, waiter: _Waiter, deadline: float, timeout: float
    ) -> Slot[AsyncConnection]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        waiter.future = future
        self._tell()
        alarm = loop.call_later(max(deadline - time.monotonic(), 0.0), _set, future)
        try:
            await future
        except BaseException:
            # Cancelled: what it was given meanwhile goes to the next.
            self._core.give_up(waiter, time.monotonic())
            self._tell()
            raise
        finally:
            alarm.cancel()
        if waiter.error is not None:
            # Several tasks may be told of the same error.
            raise copy.copy(waiter.error) from waiter.error
        if waiter.slot is None:
            raise self._core.timed_out(waiter, timeout)
        return waiter.slot

    async def _passes(
        self, connection: AsyncConnection, check: Callable[[AsyncConnection], object]
    ) -> bool:
        try:
            await _call(check, connection)
            if connection._transaction_status() != IDLE:
                await connection.rollback()
            return True
        except Exception as error:
            _logger.info("%s: a connection failed its check: %s", self.name, error)
            await self._settle(self._throw_away(connection))
            return False
        except BaseException:
            self._spawn(self._throw_away(connection))
            raise

    async def putconn(self, connection: AsyncConnection) -> None:
        """Give a connection back; a transaction that is open is rolled back, with a warning."""
        self._check_loop()
        if id(connection) not in self._out:
            raise InterfaceError(f"the connection is not one that pool {self.name} has given out")
        await self._put(connection, warns=True)

    async def _put(self, connection: AsyncConnection, *, warns: bool) -> None:
        status = connection._transaction_status()
        if status == CLOSED or (status == IDLE and self._reset is None and not self._core.closed):
            self._give_back(connection)
        else:
            await self._settle(self._clean(connection, warns))

    async def _settle(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for work that goes on by itself when whoever waits is cancelled."""
        await asyncio.shield(self._spawn(work))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _clean(self, connection: AsyncConnection, warns: bool) -> None:
        try:
            # What a cancelled task has left under way is waited for.
            status = connection._transaction_status()
            if status in OPEN and warns:
                _logger.warning(
                    "%s: a connection was given back with a transaction open, which was rolled "
                    "back: %r",
                    self.name,
                    connection,
                )
            if status != IDLE:
                await connection.rollback()
            if self._reset is not None and not self._core.closed:
                await _call(self._reset, connection)
                if connection._transaction_status() != IDLE:
                    await connection.commit()
        except Exception as error:
            if not connection.closed:
                _logger.warning("%s: a connection could not be cleaned: %s", self.name, error)
            await self._discard(connection)
        except BaseException:
            # The loop ends.
            connection._link.let_go()
            raise
        else:
            if self._core.closed:
                # The worker may have ended.
                await self._discard(connection)
        finally:
            self._give_back(connection)

    async def _throw_away(self, connection: AsyncConnection) -> None:
        await self._discard(connection)
        self._give_back(connection)

    @staticmethod
    async def _discard(connection: AsyncConnection) -> None:
        with suppress(Exception):
            await connection.close()

    def _give_back(self, connection: AsyncConnection) -> None:
        slot = self._out.pop(id(connection), None)
        if slot is None:
            return
        core = self._core
        core.give_back(slot, time.monotonic())
        if core.closed or connection.closed or core.has_duty:
            self._tell()

    # The worker's.

    def _begin_making(self, duty: Make) -> set[asyncio.Task[None]]:
        maker = self._spawn(self._make(duty))
        self._makers.add(maker)
        maker.add_done_callback(self._makers.discard)
        return self._makers

    async def _make(self, duty: Make) -> None:
        try:
            connection = await self._made()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            _logger.warning("%s: could not connect: %s", self.name, error)
            failure = error if isinstance(error, Exception) else InterfaceError(str(error))
            self._core.make_failed(failure, time.monotonic())
        else:
            self._core.made(connection, time.monotonic(), duty.generation)
        self._tell()

    async def _made(self) -> AsyncConnection:
        connection = await AsyncConnection.connect(self._conninfo, **self._connect_args)
        if self._configure is not None:
            try:
                await _call(self._configure, connection)
                if connection._transaction_status() != IDLE:
                    await connection.commit()
            except BaseException:
                await self._discard(connection)
                raise
        return connection

    # What is known.

    async def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change the sizes; connections too many are closed once nobody needs them."""
        self._resize(min_size, max_size)
        self._tell()

    def stats(self) -> PoolStats:
        """Figures of this moment, and of all that it has done."""
        return self._core.stats()

    @staticmethod
    async def check_connection(connection: AsyncConnection) -> None:
        """Ask the server whether it is there: for `check=`.

        Rarely worth its time, as a connection whose server is gone finds another by itself.
        """
        await connection.execute("SELECT 1")

    def __del__(self) -> None:
        loop = self.__dict__.get("_loop")
        if loop is None or self._core.closed:
            return
        warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=1, source=self)
        self._core.close()
        while isinstance(duty := self._core.duty(time.monotonic()), Close):
            for connection in duty.connections:
                connection._link.let_go()
        if not loop.is_closed():
            # The worker finds that there is no pool any more.
            loop.call_soon_threadsafe(self._changed.set)


async def _call(function: Callable[[AsyncConnection], object], connection: AsyncConnection) -> None:
    result = function(connection)
    if inspect.isawaitable(result):
        await result


async def _work(ref: weakref.ref[Pool], changed: asyncio.Event) -> None:
    while True:
        pool = ref()
        if pool is None:
            return
        core = pool._core
        changed.clear()
        duty = core.duty(time.monotonic())
        if isinstance(duty, Close):
            for connection in duty.connections:
                await pool._discard(connection)
            del connection
        elif isinstance(duty, Make):
            makers = pool._begin_making(duty)
            if len(makers) >= (_MAKERS if core.last_error is None else 1):
                await asyncio.wait(makers, return_when=asyncio.FIRST_COMPLETED)
            del makers
        elif core.closed and all(maker.done() for maker in pool._makers):
            return
        else:
            del pool, core
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(changed.wait(), duty.seconds)
            continue
        del pool, core, duty


__all__ = ["Pool", "PoolStats"]
