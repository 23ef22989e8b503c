"""The event loop's side of a connection: polls operations when the socket is ready for them.

One operation runs at a time; tasks that want the connection meanwhile have their turn in the order
in which they came. Only the search for a server and cancel requests run on threads.

A task that is cancelled does not wait: the server is asked to cancel the statement, and the next
turn begins when the reply has been read and the request is through, so that it can hit no other.

The socket is watched through a descriptor of its own, which stays valid, and this link's, whatever
becomes of the connection's. Nothing here keeps a connection alive save an operation under way.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from segue import errors as _errors
from segue._base import Notify
from segue._segue import Interrupt, Operation
from segue.errors import InterfaceError

if TYPE_CHECKING:
    from segue.aio.connection import AsyncConnection

DONE, READ, WRITE, HELP = range(4)

# The server is asked to cancel a statement so often, in seconds, until it has ended.
CANCEL_AGAIN = 0.25

T = TypeVar("T")


class _Threads:
    """For what has to wait: the loop's own executor is the application's."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        # A child has none of its parent's threads.
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._executor = None

    def submit(self, work: Callable[[], T]) -> concurrent.futures.Future[T]:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(64, "segue-aio")
        return self._executor.submit(work)


THREADS = _Threads()


def in_thread(work: Callable[[], T], loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
    """Do something that blocks."""
    return asyncio.wrap_future(THREADS.submit(work), loop=loop)


class Link:
    """Polls the operations of one connection."""

    def __init__(
        self, connection: AsyncConnection, loop: asyncio.AbstractEventLoop, interrupt: Interrupt
    ) -> None:
        self._connection = weakref.ref(connection)
        self._loop = loop
        self._interrupt = interrupt
        self.closed = False
        # Turns.
        self._taken = False
        self._held = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns: deque[asyncio.Future[None]] = deque()
        # The operation under way, and who waits for it; nobody does when its task was cancelled.
        self._operation: Operation | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._dropped = False
        self._helping: asyncio.Future[None] | None = None
        self._cancelling: asyncio.Future[None] | None = None
        self._repeating: asyncio.TimerHandle | None = None
        # The socket.
        self._fd: int | None = None
        self._reading = False
        self._writing = False
        # Notifications.
        self.news: deque[Notify] = deque()
        self.listeners = 0
        self._listening: set[asyncio.Future[None]] = set()
        # Streams and COPYs under way, which are read at the pace of who wants them.
        self.open = 0
        # Pipelines that are open.
        self.pipelines = 0

    @property
    def is_busy(self) -> bool:
        """Whether an operation is under way, or another thread has the connection."""
        return self._operation is not None or self._helping is not None

    @property
    def is_helped(self) -> bool:
        """Whether another thread has the connection."""
        return self._helping is not None

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Keep the turn for several operations, which are then run as `held`."""
        if self._taken:
            await self._turn()
        self._taken = self._held = True
        try:
            yield
        finally:
            self._held = False
            # What is still under way gives it up itself.
            if not self.is_busy and self._cancelling is None:
                self._give_turn()

    async def run(
        self,
        make: Callable[..., Operation],
        *args: Any,
        cancels: bool = True,
        held: bool = False,
    ) -> Operation:
        """Make an operation and bring it to its end.

        When the task is cancelled, so is the statement on the server if it `cancels`.
        """
        if self._taken and not held:
            await self._turn()
        self._taken = True
        try:
            self._check()
            operation = make(*args)
            wants = operation.poll()
        except BaseException:
            self._give_turn()
            raise
        if wants == DONE:
            self._give_turn()
            return operation
        waiter = self._waiter = self._loop.create_future()
        self._operation = operation
        self._want(wants)
        try:
            await waiter
        except asyncio.CancelledError:
            if self._waiter is waiter:
                self._drop(operation, cancels)
            else:
                self._discard(operation)
            raise
        return operation

    def _check(self) -> None:
        if self.closed:
            raise _errors.ConnectionClosed("the connection is closed")
        if asyncio.get_running_loop() is not self._loop:
            raise InterfaceError("the connection belongs to another event loop")

    # Turns.

    async def _turn(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            raise InterfaceError("the connection belongs to another event loop")
        turn = self._loop.create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_turn()
            raise

    def _give_turn(self) -> None:
        if self._held:
            return
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False
        if self.listeners:
            self._look()

    # The operation under way.

    def _ready(self) -> None:
        """Go on: the socket is ready for what is wanted."""
        operation = self._operation
        if operation is None:
            self._idle()
            return
        if self._helping is not None:
            return
        try:
            wants = operation.poll()
        except Exception as error:
            self._finish(error)
            return
        if wants == DONE:
            self._finish(None)
        else:
            self._want(wants)

    def _want(self, wants: int) -> None:
        if wants == HELP:
            self._help()
            return
        try:
            self._watch(wants)
        except Exception as error:
            # Not even a descriptor can be had: who waits is told, and the reply is nobody's.
            self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        waiter, self._waiter, self._operation = self._waiter, None, None
        if self._writing:
            self._watch(READ)
        self._repeat_no_more()
        if self._cancelling is None:
            self._end_turn()
        if waiter is not None and not waiter.done():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    def _repeat_no_more(self) -> None:
        if self._repeating is not None:
            self._repeating.cancel()
            self._repeating = None

    def _end_turn(self) -> None:
        if self._dropped:
            self._dropped = False
            self._interrupt.set(False)
        self._give_turn()

    def _discard(self, operation: Operation) -> None:
        """Take the reply to what was started, when nobody has come to know that it was."""
        connection, ticket = self._connection(), operation.ticket()
        if connection is not None and ticket is not None and not self.closed:
            task = self._loop.create_task(self._abandon(connection, ticket))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _abandon(self, connection: AsyncConnection, ticket: int) -> None:
        with suppress(_errors.Error):
            await self.run(connection._op_abandon, ticket)

    def _drop(self, operation: Operation, cancels: bool) -> None:
        """Nobody waits for the operation any more."""
        self._waiter = None
        self._dropped = True
        if cancels:
            operation.give_up()
            self._interrupt.set(True)
            self._cancel()

    def _cancel(self) -> None:
        self._repeating = None
        connection = self._connection()
        if connection is None or self._operation is None:
            return
        self._cancelling = in_thread(connection._cancel_now, self._loop)
        self._cancelling.add_done_callback(self._cancelled)

    def _cancelled(self, done: asyncio.Future[None]) -> None:
        self._cancelling = None
        if not done.cancelled():
            # A server that cannot be asked is lost, and that is found out by others.
            done.exception()
        if self.closed:
            return
        if self._operation is None:
            self._end_turn()
        else:
            # A server that had not begun with the statement has not taken note.
            self._repeating = self._loop.call_later(CANCEL_AGAIN, self._cancel)

    def _help(self) -> None:
        """Let a thread find another server."""
        self._forget_socket()
        connection = self._connection()
        if connection is None:
            return
        self._helping = in_thread(connection._help, self._loop)
        self._helping.add_done_callback(self._helped)

    def _helped(self, done: asyncio.Future[None]) -> None:
        self._helping = None
        error = None if done.cancelled() else done.exception()
        if self.closed:
            return
        if self._operation is not None:
            if error is None:
                self._ready()
            else:
                self._finish(error)
            return
        # It was for those who listen.
        if error is not None:
            self._tell(error)
        self._give_turn()

    # The socket.

    def _watch(self, wants: int) -> None:
        if self._fd is None:
            connection = self._connection()
            fileno = None if connection is None else connection._fileno()
            if fileno is None:
                # It has just been lost: the next step says what to do.
                self._loop.call_soon(self._ready)
                return
            self._fd = os.dup(fileno)
        if not self._reading:
            self._loop.add_reader(self._fd, self._ready)
            self._reading = True
        if self._writing != (wants == WRITE):
            if self._writing:
                self._loop.remove_writer(self._fd)
            else:
                self._loop.add_writer(self._fd, self._ready)
            self._writing = not self._writing

    def _pause(self) -> None:
        if self._reading and self._fd is not None:
            self._loop.remove_reader(self._fd)
            self._reading = False

    def _forget_socket(self) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        if not self._loop.is_closed():
            if self._reading:
                self._loop.remove_reader(fd)
            if self._writing:
                self._loop.remove_writer(fd)
        self._reading = self._writing = False
        os.close(fd)

    # What comes without being asked for.

    def _idle(self) -> None:
        if self._taken or self.open:
            # It is read when somebody wants it.
            self._pause()
        else:
            self._look()

    def _look(self) -> None:
        """Take the notifications that have come, and watch for more."""
        connection = self._connection()
        if connection is None or self.closed or self.open:
            return
        try:
            while (wants := (operation := connection._op_notification()).poll()) == DONE:
                found = operation.notification()
                if found is not None:
                    self.news.append(Notify(*found))
            if wants == HELP:
                self._forget_socket()
                if self.listeners:
                    # What they listen to, they have to be subscribed to on another server.
                    self._taken = True
                    self._help()
            else:
                self._watch(wants)
        except Exception as error:
            self._pause()
            self._tell(error)
            return
        if self.news:
            self._tell(None)

    def _tell(self, error: BaseException | None) -> None:
        waiting, self._listening = self._listening, set()
        for waiter in waiting:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    async def listen(self, timeout: float | None) -> bool:
        """Wait for notifications: whether there are any."""
        if self.news:
            return True
        self._check()
        waiter = self._loop.create_future()
        self._listening.add(waiter)
        try:
            if not self._taken:
                self._look()
            await asyncio.wait({waiter}, timeout=timeout)
            if waiter.done():
                waiter.result()
        finally:
            self._listening.discard(waiter)
            waiter.cancel()
        return bool(self.news)

    # The end.

    async def close(self) -> None:
        """Let go of the socket, and of all who wait for their turn or for a reply."""
        self.closed = True
        error = _errors.ConnectionClosed(
            "the connection was closed while a statement was under way",
            outcome=_errors.Outcome.UNKNOWN,
        )
        waiter, self._waiter, self._operation = self._waiter, None, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
        self._tell(_errors.ConnectionClosed("the connection was closed"))
        self._forget_socket()
        self._repeat_no_more()
        if self._helping is not None:
            self._interrupt.set(True)
            await asyncio.wait({self._helping})

    def let_go(self) -> None:
        """Let go of the socket, from whatever thread, when the connection is no more."""
        self.closed = True
        self._interrupt.set(True)
        if self._fd is None or self._loop.is_closed():
            self._forget_socket()
            return
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._forget_socket()
        else:
            self._loop.call_soon_threadsafe(self._forget_socket)
