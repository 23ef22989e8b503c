"""Delivers events: a thread of its own takes them from the native queue, logs them, and calls back.

It also makes the calls that tickets were asked for.

Where an event arises, locks may be held, the GIL among them, and somebody may wait for a server;
so callbacks run here, where they may do whatever they like, save waiting for ever. Events of one
client are delivered in the order in which they arose. The thread ends with the program, after it
has delivered what had come. A child of fork() has a queue, and a thread, of its own.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from segue import _segue

if TYPE_CHECKING:
    from types import TracebackType

    from segue.events import Event

# At the end of a program, callbacks that do not return are waited for so many seconds.
END_TIMEOUT = 2.0

# A finalizer or a signal handler may close a subscription at any moment.
_lock = threading.RLock()
_importing = threading.Lock()
_queue: _segue.EventQueue | None = None
_thread: threading.Thread | None = None
_subscriptions: list[Subscription] = []


class Subscription:
    """Keeps a callback in place until it is closed, or the `with` block ends."""

    def __init__(
        self,
        client: int,
        callback: Callable[[Any], object],
        kinds: tuple[type[Event], ...],
    ) -> None:
        self._client = client
        self._callback = callback
        self._kinds = kinds
        self._closed = False
        with _lock:
            _subscriptions.append(self)

    @property
    def closed(self) -> bool:
        """Whether the callback was removed."""
        return self._closed

    def close(self) -> None:
        """Remove the callback: no call begins after this. One that is running is not waited for."""
        self._closed = True
        with _lock:
            if self in _subscriptions:
                _subscriptions.remove(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _deliver(self, event: Event) -> None:
        if self._closed or not isinstance(event, self._kinds):
            return
        try:
            self._callback(event)
        except BaseException as error:
            _segue.unraisable(error, self._callback)


def queue() -> _segue.EventQueue:
    """The queue of this process; its thread runs. Called by the native half for each client."""
    global _queue, _thread
    with _lock:
        if _queue is None:
            _queue = _segue.EventQueue()
            _thread = threading.Thread(
                target=_run, args=(_queue,), name="segue-events", daemon=True
            )
            _thread.start()
        return _queue


def _run(queue: _segue.EventQueue) -> None:
    # Not imported where somebody waits for a connection, and not while somebody forks: the child
    # would wait for ever for the lock of a module that no thread of its own imports.
    with _importing:
        import segue._logging
        import segue.events  # noqa: F401
    while (taken := queue.take()) is not None:
        events, dropped, calls = taken
        for callback, argument in calls:
            try:
                callback(argument)
            except BaseException as error:
                _segue.unraisable(error, callback)
        for client, time, kind, message, values in events:
            try:
                _deliver(client, time, kind, message, values)
            except BaseException as error:
                # A handler of the application's logging, for one.
                _segue.unraisable(error, _deliver)
        if dropped:
            from segue._logging import logger

            logger.warning("%d events were dropped: callbacks are too slow", dropped)


def _deliver(client: int, time: float, kind: str, message: str, values: dict[str, Any]) -> None:
    from segue import errors, events
    from segue._logging import logger

    if "diag" in values:
        values["diag"] = errors.Diagnostic(**values["diag"])
    cls = getattr(events, kind)
    event: events.Event = cls(client=client, time=time, message=message, **values)
    if logger.isEnabledFor(event.level):
        extra = {f"segue_{name}": value for name, value in event.as_dict().items()}
        logger.log(event.level, "%s", message, extra=extra | {"segue_event": event})
    with _lock:
        subscriptions = [s for s in _subscriptions if s._client == client]
    for subscription in subscriptions:
        subscription._deliver(event)


def _end() -> None:
    with _lock:
        queue, thread = _queue, _thread
    if queue is not None and thread is not None:
        queue.close()
        thread.join(END_TIMEOUT)


def _forks() -> None:
    _importing.acquire()


def _has_forked() -> None:
    _importing.release()


def _forked() -> None:
    global _lock, _importing, _queue, _thread
    _importing = threading.Lock()
    _lock = threading.RLock()
    _queue = None
    _thread = None
    # The child cannot use the clients that they are for.
    _subscriptions.clear()


atexit.register(_end)
os.register_at_fork(before=_forks, after_in_parent=_has_forked, after_in_child=_forked)
