"""What native threads have to tell one event loop: submissions handed over, outcomes of tickets.

The loop watches a socket that becomes readable when there is something. All of it is for the loop's
own thread.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from segue import _segue
from segue.errors import InterfaceError

if TYPE_CHECKING:
    from segue.aio.submit import Ticket


class Inbox:
    """Calls whoever expects news, by their number."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.native = _segue.Inbox()
        self.closed = False
        # Those that wait for their outcome, by their ids.
        self.tickets: dict[int, Ticket] = {}
        self._numbers = itertools.count(1)
        self._expected: dict[int, Callable[[Any], None]] = {}
        loop.add_reader(self.native.fileno(), self._read)

    def number(self) -> int:
        """Give a number under which native threads will tell something."""
        return next(self._numbers)

    def expect(self, number: int, then: Callable[[Any], None]) -> None:
        """Have what is told under this number handed to `then`."""
        self._expected[number] = then

    def forget(self, number: int) -> None:
        """Expect nothing under this number any more."""
        self._expected.pop(number, None)

    def check(self) -> None:
        """Refuse another loop."""
        if asyncio.get_running_loop() is not self.loop:
            raise InterfaceError("the client belongs to another event loop")

    def _read(self) -> None:
        for number, what in self.native.take():
            then = self._expected.pop(number, None)
            if then is not None:
                then(what)

    def close(self) -> None:
        """Read what has come; whoever waits for more is told that there is none."""
        if self.closed:
            return
        self._read()
        self.let_go()
        expected, self._expected = self._expected, {}
        for then in expected.values():
            then(InterfaceError("the client was closed meanwhile"))

    def let_go(self) -> None:
        """Watch no more."""
        self.closed = True
        if not self.loop.is_closed():
            self.loop.remove_reader(self.native.fileno())
