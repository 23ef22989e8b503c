"""`segue.Pool`: connections kept open, for threads that need one for a while.

A pooled connection outlives its server like any other, so a failover is no matter of the pool's:
whoever has a connection waits a little longer. One daemon thread makes and closes connections; a
thread that asks for one only waits. The books are kept in `segue._pool`, under one lock that is
never held while anything is waited for. That thread imports nothing: a fork meanwhile would leave
the child with a module's lock that is held for ever.
"""

from __future__ import annotations

import copy
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from segue._basepool import CLOSED, OPEN, BasePool, connect_arguments, sizes_of
from segue._logging import logger
from segue._pool import Close, Make, PoolCore, PoolStats, Sizes, Sleep, Slot, Waiter, is_hopeless
from segue.client import Client
from segue.connection import Connection, make_conninfo
from segue.errors import InterfaceError, PoolClosed, PoolTimeout

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from segue.cursor import Cursor
    from segue.rows import RowFactory

# The worker looks so often whether its pool is still there.
_LOOK = 10.0

_logger = logger.getChild("pool")
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class _Waiter(Waiter[Connection]):
    """A thread that waits for a connection. Changed under the pool's lock only."""

    def __init__(self) -> None:
        super().__init__()
        self._gate: threading.Lock | None = None

    def shut(self) -> None:
        """Be ready to wait."""
        self._gate = threading.Lock()
        self._gate.acquire()

    def wake(self) -> None:
        if self._gate is not None:
            self._gate.release()

    def wait(self, seconds: float) -> bool:
        if self._gate is None:
            return True
        seconds = min(max(seconds, 0.0), threading.TIMEOUT_MAX)
        return self._gate.acquire(timeout=seconds)


class Pool(BasePool[Connection]):
    """Between `min_size` and `max_size` connections of one configuration, for any thread.

        with segue.Pool("postgresql://app@db1,db2/shop", max_size=20) as pool:
            with pool.connection() as conn:
                conn.execute("INSERT INTO account VALUES (%s, %s)", (1, "Ada"))

    `timeout`: for so many seconds a thread waits for a connection at most, first come, first
    served; `PoolTimeout` then. `max_lifetime`: a connection of so many seconds is replaced.
    `max_idle`: those beyond `min_size` that nobody needs for so long are closed. `max_waiting`:
    more threads than that may not wait (`PoolFull`); 0 is no limit.

    `configure(conn)` is called with each new connection, `check(conn)` before one is handed out,
    `reset(conn)` when it has come back and was rolled back. What they leave open is committed
    (`check`: rolled back); if they raise, the connection is closed and another takes its place.

    What else is given is for `segue.connect`. The pool keeps a `segue.Client` open, `pool.client`.
    """

    __module__ = "segue"

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
        configure: Callable[[Connection], object] | None = None,
        check: Callable[[Connection], object] | None = None,
        reset: Callable[[Connection], object] | None = None,
        name: str | None = None,
        open: bool = True,
        autocommit: bool = False,
        row_factory: RowFactory[Any] | None = None,
        cursor_factory: type[Cursor] | None = None,
        writes: bool | None = None,
        **options: Any,
    ) -> None:
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
        self._buried: list[object] = []
        self._begin(sizes)
        _pools.add(self)
        if open:
            self.open()

    def _begin(self, sizes: Sizes) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._core: PoolCore[Connection] = PoolCore(sizes, self.name)
        self._out: dict[int, Slot[Connection]] = {}
        self._client: Client | None = None
        self._worker: threading.Thread | None = None

    # Opening and closing.

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Open it, unless it is open; connections are made in the background.

        With `wait`, until there are `min_size` of them.
        """
        with self._changed:
            if self._core.closed:
                raise PoolClosed(f"pool {self.name} was closed; make another")
            self._start()
        if wait:
            self.wait(timeout)

    def _start(self) -> None:
        if self._worker is None:
            self._client = Client(self._conninfo)
            self._worker = threading.Thread(
                target=_work,
                args=(weakref.ref(self), self._changed),
                name=f"segue-{self.name}",
                daemon=True,
            )
            self._worker.start()

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until there are `min_size` connections.

        Raises what keeps them from being made, if it is nothing that would pass by itself.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._check_open()
            core = self._core
            while not core.has_minimum:
                self._check_open()
                if core.last_error is not None and is_hopeless(core.last_error):
                    raise core.last_error
                left = deadline - time.monotonic()
                if left <= 0:
                    text = f"pool {self.name}: there are no {core.sizes.min_size} connections yet"
                    raise PoolTimeout(f"{text} after {timeout:g} s") from core.last_error
                self._changed.wait(min(left, threading.TIMEOUT_MAX))

    def close(self, timeout: float = 5.0) -> None:
        """Close idle connections, and those in use once they are given back.

        Whoever waits for one gets `PoolClosed`.
        """
        with self._changed:
            if not self._core.closed:
                self._core.close()
            self._changed.notify_all()
            worker, client = self._worker, self._client
        if worker is not None and worker is not threading.current_thread():
            worker.join(min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        if client is not None:
            client.close()

    def drain(self) -> None:
        """Replace all connections: those that are idle now, those in use when they come back.

        Such as after a change of the database that connections have taken note of.
        """
        with self._changed:
            self._check_open()
            self._core.drain()
            self._changed.notify_all()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Connections.

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Connection]:
        """Have a connection for a block, which is committed, or rolled back after an exception."""
        connection = self.getconn(timeout)
        try:
            yield connection
        except BaseException:
            if not connection.closed:
                connection._rollback_quietly()
            raise
        else:
            if connection._transaction_status() in OPEN:
                connection.commit()
        finally:
            self.putconn(connection)

    def getconn(self, timeout: float | None = None) -> Connection:
        """Take a connection, which has to be given back with `putconn`."""
        timeout = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        waiter = _Waiter()
        again = False
        while True:
            with self._changed:
                self._check_open()
                self._core.request(waiter, time.monotonic(), again=again)
                slot = waiter.slot
                if slot is not None:
                    self._out[id(slot.connection)] = slot
                else:
                    waiter.shut()
                    self._changed.notify_all()
            if slot is None:
                slot = self._wait_for(waiter, deadline, timeout)
            if self._check is None or self._passes(slot, self._check):
                return slot.connection
            again = True
            if time.monotonic() > deadline:
                raise PoolTimeout(f"pool {self.name}: no connection passed its check in time")

    def _wait_for(self, waiter: _Waiter, deadline: float, timeout: float) -> Slot[Connection]:
        changed = self._changed
        try:
            woken = waiter.wait(deadline - time.monotonic())
            with changed:
                if not woken and not waiter.done:
                    raise self._core.timed_out(waiter, timeout)
                if waiter.error is not None:
                    # Several threads may be told of the same error.
                    raise copy.copy(waiter.error) from waiter.error
                slot = waiter.slot
                assert slot is not None
                self._out[id(slot.connection)] = slot
                return slot
        except PoolTimeout:
            raise
        except BaseException:
            # Such as KeyboardInterrupt.
            with changed:
                if waiter.slot is not None:
                    self._out.pop(id(waiter.slot.connection), None)
                self._core.give_up(waiter, time.monotonic())
            raise

    def _passes(self, slot: Slot[Connection], check: Callable[[Connection], object]) -> bool:
        connection = slot.connection
        try:
            check(connection)
            if connection._transaction_status() in OPEN:
                connection.rollback()
            return True
        except BaseException as error:
            self._discard(connection)
            self._give_back(connection)
            if not isinstance(error, Exception):
                raise
            _logger.info("%s: a connection failed its check: %s", self.name, error)
            return False

    def putconn(self, connection: Connection) -> None:
        """Give a connection back; a transaction that is open is rolled back, with a warning."""
        if id(connection) not in self._out:
            if any(other is connection for other in self._buried):
                return
            raise InterfaceError(f"the connection is not one that pool {self.name} has given out")
        try:
            self._clean(connection)
        except BaseException:
            self._discard(connection)
            raise
        finally:
            self._give_back(connection)

    def _clean(self, connection: Connection) -> None:
        status = connection._transaction_status()
        if status == CLOSED:
            return
        try:
            if status in OPEN:
                _logger.warning(
                    "%s: a connection was given back with a transaction open, which was rolled "
                    "back: %r",
                    self.name,
                    connection,
                )
                connection.rollback()
            if self._reset is not None:
                self._reset(connection)
                if connection._transaction_status() in OPEN:
                    connection.commit()
        except Exception as error:
            _logger.warning("%s: a connection could not be cleaned: %s", self.name, error)
            self._discard(connection)

    @staticmethod
    def _discard(connection: Connection) -> None:
        with suppress(Exception):
            connection.close()

    def _give_back(self, connection: Connection) -> None:
        with self._changed:
            slot = self._out.pop(id(connection), None)
            if slot is None:
                return
            core = self._core
            core.give_back(slot, time.monotonic())
            closed = core.closed
            if closed or connection.closed or core.has_duty:
                self._changed.notify_all()
        if closed:
            # The worker may have ended.
            self._discard(connection)

    def _make(self) -> Connection:
        with self._changed:
            client = self._client
        if client is None:
            raise PoolClosed(f"pool {self.name} is not open")
        connection = client.connect(**self._connect_args)
        if self._configure is not None:
            try:
                self._configure(connection)
                if connection._transaction_status() in OPEN:
                    connection.commit()
            except BaseException:
                self._discard(connection)
                raise
        return connection

    # What is known.

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change the sizes; connections too many are closed once nobody needs them."""
        with self._changed:
            self._resize(min_size, max_size)
            self._changed.notify_all()

    def stats(self) -> PoolStats:
        """Figures of this moment, and of all that it has done."""
        with self._changed:
            return self._core.stats()

    @staticmethod
    def check_connection(connection: Connection) -> None:
        """Ask the server whether it is there: for `check=`.

        Rarely worth its time, as a connection whose server is gone finds another by itself.
        """
        connection.execute("SELECT 1")

    def _after_fork(self) -> None:
        """Begin anew in a child: its parent's connections are not for it.

        They are kept, for closing them would write to the parent's sockets.
        """
        given_out = [slot.connection for slot in self._out.values()]
        self._buried += [self._core, self._client, *given_out]
        was_open, closed = self._worker is not None, self._core.closed
        self._begin(self._core.sizes)
        self._core.closed = closed
        if was_open and not closed:
            self._start()


def _work(ref: weakref.ref[Pool], changed: threading.Condition) -> None:
    while True:
        pool = ref()
        if pool is None:
            return
        with changed:
            core = pool._core
            duty = core.duty(time.monotonic())
            if isinstance(duty, Sleep):
                if core.closed:
                    return
                del pool, core
                changed.wait(_LOOK if duty.seconds is None else min(duty.seconds, _LOOK))
                continue
        if isinstance(duty, Close):
            for connection in duty.connections:
                pool._discard(connection)
            del connection
        elif isinstance(duty, Make):
            _make(pool, changed, duty)
        del pool, core, duty


def _make(pool: Pool, changed: threading.Condition, duty: Make) -> None:
    try:
        connection = pool._make()
    except BaseException as error:
        _logger.warning("%s: could not connect: %s", pool.name, error)
        failure = error if isinstance(error, Exception) else InterfaceError(str(error))
        with changed:
            pool._core.make_failed(failure, time.monotonic())
            changed.notify_all()
        return
    with changed:
        pool._core.made(connection, time.monotonic(), duty.generation)
        changed.notify_all()


def _forked() -> None:
    for pool in list(_pools):
        pool._after_fork()


os.register_at_fork(after_in_child=_forked)


__all__ = ["Pool", "PoolStats"]
