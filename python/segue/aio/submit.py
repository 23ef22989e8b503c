"""Tickets of submissions for an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, cast

from segue.errors import InterfaceError
from segue.submit import BaseTicket, Executed

if TYPE_CHECKING:
    from segue import _segue
    from segue.aio._inbox import Inbox


class Ticket(BaseTicket):
    """A submission that was accepted, to await, poll, or be called back by.

    Forgetting it, or cancelling a task that waits for it, changes nothing for the submission.
    """

    __module__ = "segue.aio"
    __slots__ = ("_callbacks", "_inbox", "_listens", "_waiters")

    def __init__(self, native: _segue.Ticket, inbox: Inbox) -> None:
        super().__init__(native)
        self._inbox = inbox
        self._listens = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._callbacks: list[Callable[[Ticket], object]] = []

    def __await__(self) -> Generator[Any, None, Executed]:
        return cast("Generator[Any, None, Executed]", self.wait().__await__())

    async def wait(self, timeout: float | None = None) -> Executed | None:
        """As `poll`, but waits until it is known, for at most `timeout` seconds."""
        inbox = self._inbox
        inbox.check()
        end = None if timeout is None else inbox.loop.time() + timeout
        while (done := self.poll()) is None:
            if end is not None and inbox.loop.time() >= end:
                break
            self._listen()
            waiter = inbox.loop.create_future()
            self._waiters.add(waiter)
            timer = None if end is None else inbox.loop.call_at(end, _wake, waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
                if timer is not None:
                    timer.cancel()
        return done

    def add_done_callback(self, callback: Callable[[Ticket], object]) -> None:
        """Have the loop call back with this ticket once its outcome is known, be that now.

        Nobody is called after the client was closed.
        """
        self._inbox.check()
        if not callable(callback):
            raise TypeError("a callback is called with the ticket")
        self._listen()
        self._callbacks.append(callback)

    def _listen(self) -> None:
        inbox = self._inbox
        if inbox.closed:
            raise InterfaceError("the client is closed; open another, and ask it for the ticket")
        if not self._listens:
            number = inbox.number()
            inbox.expect(number, self._is_told)
            self._native.tell(inbox.native, number)
            self._listens = True
            inbox.tickets[self._native.id] = self

    def _is_told(self, what: object) -> None:
        self._listens = False
        self._inbox.tickets.pop(self._native.id, None)
        for waiter in self._waiters:
            _wake(waiter)
        callbacks, self._callbacks = self._callbacks, []
        if what is None:
            for callback in callbacks:
                self._inbox.loop.call_soon(callback, self)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
