"""What became of the transactions that an earlier process had in flight, for an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from segue.aio._link import in_thread
from segue.recovery import BaseRecovered, RecoveredStatement

if TYPE_CHECKING:
    from segue import _segue
    from segue.aio._inbox import Inbox


class RecoveredTransaction(BaseRecovered):
    """A transaction, or an autocommit statement, that an earlier process had in flight.

    It stays in the journal, and is found again, until `done()`. As long as it is there, the journal
    keeps its files, and no other client can have it; closing the client ends that.
    """

    __module__ = "segue.aio"
    __slots__ = ("_inbox",)

    def __init__(self, native: _segue.Recovered, inbox: Inbox) -> None:
        super().__init__(native)
        self._inbox = inbox

    async def statements(self) -> AsyncIterator[RecoveredStatement]:
        """What it had executed, in order, read from the journal's files one at a time."""
        self._inbox.check()
        loop = self._inbox.loop
        statements = self._native.statements()
        while (statement := await in_thread(statements.next, loop)) is not None:
            yield RecoveredStatement._of(statement)

    async def done(self) -> None:
        """Have the journal forget it; returns once that is kept, and may be repeated.

        Where it is to be run again, run it first.
        """
        self._inbox.check()
        await in_thread(self._native.done, self._inbox.loop)
