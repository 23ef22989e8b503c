"""`segue.aio.Client`: a cluster, for an event loop."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, overload

from segue import _segue
from segue._base import make_conninfo
from segue.aio._inbox import Inbox
from segue.aio._link import THREADS, in_thread
from segue.aio.connection import AsyncConnection
from segue.aio.recovery import RecoveredTransaction
from segue.aio.submit import Ticket
from segue.client import BaseClient
from segue.errors import InterfaceError
from segue.submit import DeadLetter, Statements, arguments, id_of

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TypeVar
    from uuid import UUID

    from typing_extensions import Self

    from segue._dispatch import Subscription
    from segue.aio.cursor import AsyncCursor
    from segue.events import Event
    from segue.rows import RowFactory

    _E = TypeVar("_E", bound=Event)


class Client(BaseClient):
    """A cluster, as seen from this process, for one event loop.

        async with segue.aio.Client("postgresql://app@db1,db2/shop") as client:
            async with await client.connect() as conn:
                ...
            await client.submit([("INSERT INTO sale VALUES (%s)", (1,))])

    It is opened by `async with`, `await client.open()` or `await` itself, in the loop that is to
    use it. Only what waits for something is awaited: `status()`, `dead_letters()` and their like
    are not.
    """

    __module__ = "segue.aio"

    _inbox: Inbox
    _number = 0

    def __init__(self, conninfo: str = "", **options: Any) -> None:
        self._conninfo = make_conninfo(conninfo, **options)
        self._ended = False

    # Opening and closing.

    async def open(self) -> None:
        """Open it, unless it is open. With `journal="file"` the journal is read."""
        if self._ended:
            raise InterfaceError("the client is closed")
        if self._native is not None:
            self._inbox.check()
            return
        loop = asyncio.get_running_loop()
        # Not as the future's result, which the thread holds on to for a moment.
        made: list[_segue.Client] = []

        def close(_: object) -> None:
            while made:
                made.pop().close()

        making = THREADS.submit(lambda: made.append(_segue.Client(self._conninfo)))
        try:
            await asyncio.wrap_future(making)
        except asyncio.CancelledError:
            making.add_done_callback(close)
            raise
        native = made.pop()
        if self._was_opened_or_closed():
            # By another task meanwhile; it is one client all the same.
            await in_thread(native.close, loop)
            await self.open()
        else:
            self._inbox = Inbox(loop)
            self._adopt(native)

    def _was_opened_or_closed(self) -> bool:
        return self._ended or self._native is not None

    async def close(self) -> None:
        """Give the client up, and its subscriptions. Connections that are open stay open.

        If nothing else of the same configuration is open, submissions end with it: what is under
        way is given two seconds. What has not ended stays in the journal.
        """
        self._ended = True
        native, self._native = self._native, None
        if native is None:
            return
        for subscription in self._subscriptions:
            subscription.close()
        submissions = self._submissions

        def close() -> None:
            self._let_go()
            submissions.close()
            native.close()

        try:
            await in_thread(close, self._inbox.loop)
        finally:
            self._inbox.close()

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

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

    def __del__(self) -> None:
        if self.__dict__.get("_native") is not None:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=1, source=self)
            self._inbox.let_go()

    def _open(self) -> _segue.Client:
        if self._native is None and not self._ended:
            raise InterfaceError("the client is not open yet: await client.open()")
        return super()._open()

    # Connections and the ledger.

    async def connect(
        self,
        *,
        autocommit: bool = False,
        row_factory: RowFactory[Any] | None = None,
        cursor_factory: type[AsyncCursor] | None = None,
        writes: bool | None = None,
    ) -> AsyncConnection:
        """Connect, as `segue.aio.connect` does.

        Fast, because the servers are known and links are warm.
        """
        return await AsyncConnection.connect(
            self._open()._conninfo(),
            autocommit=autocommit,
            row_factory=row_factory,
            cursor_factory=cursor_factory,
            writes=writes,
        )

    async def setup(self, *, hardened: bool = False, role: str | None = None) -> None:
        """Install or upgrade the ledger on the primary, as `segue.Client.setup`."""
        native = self._open()
        await in_thread(lambda: native.setup(hardened, role), asyncio.get_running_loop())

    async def remove_ledger(self) -> None:
        """Remove the ledger from the primary. Connections in use lose their protection."""
        await in_thread(self._open().remove_ledger, asyncio.get_running_loop())

    # Submissions.

    async def submit(
        self,
        statements: Statements,
        *,
        lane: str | None = None,
        key: str | None = None,
        stop_on_failure: bool = False,
        block: bool = True,
    ) -> Ticket:
        """Hand over a transaction whole, as `segue.Client.submit`.

        Parameters are converted when this is called; what may wait is done by other threads.
        Submissions of a lane keep the order of the calls, also where they are not awaited one by
        one. A task that is cancelled here may have handed over all the same: with a `key` that can
        be found out, or done again.
        """
        self._open()
        inbox = self._inbox
        inbox.check()
        given = arguments(statements, lane, key, stop_on_failure)
        number = inbox.number()
        handed = self._submissions.submit_later(inbox.native, number, *given, block)
        if isinstance(handed, _segue.Ticket):
            # Others have their turn, even where nobody ever waits.
            await asyncio.sleep(0)
            return Ticket(handed, inbox)
        waiter: asyncio.Future[_segue.Ticket] = inbox.loop.create_future()

        def told(what: _segue.Ticket | BaseException) -> None:
            if waiter.done():
                return
            if isinstance(what, BaseException):
                waiter.set_exception(what)
            else:
                waiter.set_result(what)

        inbox.expect(number, told)
        try:
            return Ticket(await waiter, inbox)
        except asyncio.CancelledError:
            handed.cancel()
            inbox.forget(number)
            raise

    def ticket(self, id: UUID | str) -> Ticket | None:
        """Find a submission again that has not ended, or lately has: the last few thousand."""
        self._open()
        return self._found(self._submissions.ticket(id_of(id)))

    def ticket_for_key(self, key: str) -> Ticket | None:
        """Find a submission by the key that the application gave it, as `ticket`."""
        self._open()
        return self._found(self._submissions.ticket_for_key(key))

    def _found(self, native: _segue.Ticket | None) -> Ticket | None:
        self._inbox.check()
        if native is None:
            return None
        # One that waits for its outcome is not made to wait twice.
        return self._inbox.tickets.get(native.id) or Ticket(native, self._inbox)

    async def retry_dead_letter(self, id: UUID | str | DeadLetter) -> Ticket:
        """Run a dead letter again, ahead of what waits in its lane."""
        self._open()
        self._inbox.check()
        number, submissions = id_of(id), self._submissions
        native = await in_thread(lambda: submissions.retry_dead_letter(number), self._inbox.loop)
        return Ticket(native, self._inbox)

    async def purge_dead_letter(self, id: UUID | str | DeadLetter) -> None:
        """Forget a dead letter; a lane that it has stopped goes on."""
        self._open()
        self._inbox.check()
        number, submissions = id_of(id), self._submissions
        await in_thread(lambda: submissions.purge_dead_letter(number), self._inbox.loop)

    # After a crash.

    async def recover(self) -> list[RecoveredTransaction]:
        """Find what an earlier process with this journal had in flight, as `segue.Client`."""
        native, inbox = self._open(), self._inbox
        inbox.check()
        recovered = await in_thread(lambda: _segue.recover(native), inbox.loop)
        found = [RecoveredTransaction(it, inbox) for it in recovered]
        self._recovered.update(found)
        return found

    # Events.

    @overload
    def on_event(self, callback: Callable[[Event], object]) -> Subscription: ...

    @overload
    def on_event(
        self, callback: Callable[[_E], object], kinds: type[_E] | tuple[type[_E], ...]
    ) -> Subscription: ...

    def on_event(self, callback: Any, kinds: Any = None) -> Subscription:
        """Have the loop call back for every event, or those of some classes of `segue.events`.

        The callback stays in place until the subscription, or this client, is closed.
        """
        if not callable(callback):
            raise TypeError("a callback is called with an event")
        self._open()
        loop = self._inbox.loop

        def tell(event: Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(deliver, event)

        def deliver(event: Event) -> None:
            if not subscription.closed:
                callback(event)

        subscription = self._subscribe(tell, kinds)
        return subscription
