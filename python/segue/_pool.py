"""A pool's books: which connections it has, who waits for one, and what is to be done next.

Shared by `segue.Pool` and pools for event loops. Nothing here waits, locks, connects, or asks for
the time: each call is told it, and comes from one caller at a time. Whoever drives it

* asks `request` for a connection, and waits until the waiter is woken;
* gives it back with `give_back`;
* has one worker do what `duty` says: make connections, close connections, sleep.

Invariants: size = idle + in use + being made <= max_size, and nobody waits while one is idle. Who
has waited longest gets the next connection.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol, TypeVar

from segue import errors

# A failed attempt to connect is repeated after so many seconds, twice as many each time.
BACKOFF_FIRST = 0.1
BACKOFF_MAX = 5.0


class Closable(Protocol):
    """What the books need to know of a connection."""

    @property
    def closed(self) -> bool:
        """Whether it cannot be used any more."""
        ...


_C = TypeVar("_C", bound=Closable)


@dataclass(frozen=True)
class PoolStats:
    """A pool at one moment, and what it has done since it was made. Times are in seconds."""

    min_size: int
    max_size: int
    size: int
    """Connections: idle, in use and being made."""
    idle: int
    in_use: int
    making: int
    waiting: int
    """Requests that wait for a connection."""
    requests: int
    """Requests for a connection so far."""
    requests_queued: int
    """Those that had to wait."""
    requests_timed_out: int
    requests_refused: int
    """Those that found too many others waiting."""
    wait_total: float
    """How long all requests that got a connection have waited for it."""
    wait_longest: float
    use_total: float
    """How long connections that came back had been in use."""
    connections_made: int
    connections_failed: int
    """Attempts to connect that failed."""
    closed_lifetime: int
    """Connections closed because they were old."""
    closed_idle: int
    """Connections closed because nobody had needed them."""
    closed_drained: int
    """Connections closed because the pool was drained."""
    closed_bad: int
    """Connections that came back closed, or that could not be cleaned or failed their check."""

    def as_dict(self) -> dict[str, Any]:
        """All figures by name."""
        return asdict(self)


class Slot(Generic[_C]):
    """A connection's place in the pool."""

    __slots__ = ("connection", "expires_at", "generation", "idle_since", "taken_at")

    def __init__(self, connection: _C, expires_at: float, generation: int) -> None:
        self.connection = connection
        self.expires_at = expires_at
        self.generation = generation
        self.idle_since = 0.0
        self.taken_at = 0.0


class Waiter(Generic[_C]):
    """A request for a connection. `wake` is called once, when `slot` or `error` is set."""

    def __init__(self) -> None:
        self.slot: Slot[_C] | None = None
        self.error: Exception | None = None
        self.since = 0.0

    @property
    def done(self) -> bool:
        """Whether it was woken."""
        return self.slot is not None or self.error is not None

    def wake(self) -> None:
        """Tell whoever waits. Must not block."""
        raise NotImplementedError


@dataclass(frozen=True)
class Make:
    """Make one connection, then call `made`, with the generation, or `make_failed`."""

    generation: int = 0


@dataclass(frozen=True)
class Close(Generic[_C]):
    """Close these, which are no longer in the books."""

    connections: list[_C]


@dataclass(frozen=True)
class Sleep:
    """Do nothing for so many seconds, or until something changes (None)."""

    seconds: float | None


@dataclass(frozen=True)
class Sizes:
    """How large a pool may be, and how long it keeps what it has. None is for ever."""

    min_size: int
    max_size: int
    max_waiting: int
    """0: as many as like."""
    max_lifetime: float | None
    max_idle: float | None

    def __post_init__(self) -> None:
        if self.min_size < 0:
            raise ValueError("min_size must not be negative")
        if self.max_size < max(self.min_size, 1):
            raise ValueError("max_size must be at least 1, and not less than min_size")
        if self.max_waiting < 0:
            raise ValueError("max_waiting must not be negative")
        for name in ("max_lifetime", "max_idle"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive")


class PoolCore(Generic[_C]):
    """The books."""

    def __init__(self, sizes: Sizes, name: str) -> None:
        self.sizes = sizes
        self.name = name
        self.closed = False
        self.last_error: Exception | None = None
        # The one that was used last is at the right, and is used next: the others may grow old.
        self._idle: deque[Slot[_C]] = deque()
        self._waiters: deque[Waiter[_C]] = deque()
        self._retired: list[_C] = []
        self._in_use = 0
        self._making = 0
        # Grows when the pool is drained: what is of an older one is replaced.
        self._generation = 0
        self._retry_at: float | None = None
        self._backoff = BACKOFF_FIRST
        self._counts = dict.fromkeys(
            (
                "requests",
                "requests_queued",
                "requests_timed_out",
                "requests_refused",
                "connections_made",
                "connections_failed",
                "closed_lifetime",
                "closed_idle",
                "closed_drained",
                "closed_bad",
            ),
            0,
        )
        self._wait_total = 0.0
        self._wait_longest = 0.0
        self._use_total = 0.0

    @property
    def size(self) -> int:
        """Connections: idle, in use and being made."""
        return len(self._idle) + self._in_use + self._making

    @property
    def has_minimum(self) -> bool:
        """Whether there are as many connections as there are to be at least."""
        return len(self._idle) + self._in_use >= self.sizes.min_size

    def stats(self) -> PoolStats:
        """The figures."""
        return PoolStats(
            min_size=self.sizes.min_size,
            max_size=self.sizes.max_size,
            size=self.size,
            idle=len(self._idle),
            in_use=self._in_use,
            making=self._making,
            waiting=len(self._waiters),
            wait_total=self._wait_total,
            wait_longest=self._wait_longest,
            use_total=self._use_total,
            **self._counts,
        )

    # For whoever wants a connection.

    def request(self, waiter: Waiter[_C], now: float, *, again: bool = False) -> None:
        """Ask for a connection: wakes the waiter at once, or later.

        `again` is for one whose connection failed its check: it has waited its turn already.
        """
        if self.closed:
            raise errors.PoolClosed(f"pool {self.name} is closed")
        if not again:
            self._counts["requests"] += 1
            waiter.since = now
        elif waiter.slot is not None:
            waiter.slot = None
        if not self._waiters or again:
            while self._idle:
                slot = self._idle.pop()
                if self._is_usable(slot, now):
                    self._grant(waiter, slot, now)
                    return
        if again:
            self._waiters.appendleft(waiter)
            return
        if self.sizes.max_waiting and len(self._waiters) >= self.sizes.max_waiting:
            self._counts["requests_refused"] += 1
            raise errors.PoolFull(
                f"pool {self.name}: {len(self._waiters)} requests wait for one of "
                f"{self.sizes.max_size} connections already (max_waiting)"
            )
        self._counts["requests_queued"] += 1
        self._waiters.append(waiter)

    def _is_usable(self, slot: Slot[_C], now: float) -> bool:
        if slot.connection.closed:
            self._counts["closed_bad"] += 1
            return False
        if slot.generation != self._generation:
            self._counts["closed_drained"] += 1
            self._retired.append(slot.connection)
            return False
        if slot.expires_at <= now:
            self._counts["closed_lifetime"] += 1
            self._retired.append(slot.connection)
            return False
        return True

    def _grant(self, waiter: Waiter[_C], slot: Slot[_C], now: float) -> None:
        waited = now - waiter.since
        self._wait_total += waited
        self._wait_longest = max(self._wait_longest, waited)
        self._in_use += 1
        slot.taken_at = now
        waiter.slot = slot
        waiter.wake()

    def give_up(self, waiter: Waiter[_C], now: float) -> None:
        """Forget a waiter that does not wait any more; what it was given goes to the next."""
        if waiter.slot is not None:
            slot, waiter.slot = waiter.slot, None
            self.give_back(slot, now)
            return
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def timed_out(self, waiter: Waiter[_C], timeout: float) -> Exception:
        """Forget a waiter whose time is up; the error that tells so."""
        self._waiters.remove(waiter)
        self._counts["requests_timed_out"] += 1
        text = f"pool {self.name}: no connection became free within {timeout:g} s"
        if self._in_use < self.sizes.max_size and self.last_error is not None:
            text += f"; the last attempt to connect failed: {self.last_error}"
        else:
            text += f" ({self._in_use} of {self.sizes.max_size} are in use)"
        error = errors.PoolTimeout(text)
        error.__cause__ = self.last_error
        return error

    def give_back(self, slot: Slot[_C], now: float) -> None:
        """Take a connection back that is clean, or closed."""
        self._in_use -= 1
        self._use_total += max(now - slot.taken_at, 0.0)
        if self.closed:
            self._retired.append(slot.connection)
        elif self._is_usable(slot, now):
            self._offer(slot, now)

    def _offer(self, slot: Slot[_C], now: float) -> None:
        if self._waiters:
            self._grant(self._waiters.popleft(), slot, now)
        else:
            slot.idle_since = now
            self._idle.append(slot)

    # For the worker.

    def duty(self, now: float) -> Make | Close[_C] | Sleep:
        """What is to be done next."""
        self._prune(now)
        if self._retired:
            retired, self._retired = self._retired, []
            return Close(retired)
        if self.closed:
            return Sleep(None)
        wake_at = [slot.expires_at for slot in self._idle if slot.expires_at != float("inf")]
        if self.size < self._wanted():
            if self._retry_at is None or self._retry_at <= now:
                self._making += 1
                return Make(self._generation)
            wake_at.append(self._retry_at)
        if self.sizes.max_idle is not None and self.size > self.sizes.min_size:
            idle_since = self._idle[0].idle_since if self._idle else now
            wake_at.append(idle_since + self.sizes.max_idle)
        return Sleep(max(min(wake_at) - now, 0.0) if wake_at else None)

    def _wanted(self) -> int:
        wanted = max(self.sizes.min_size, self._in_use + len(self._waiters))
        return min(wanted, self.sizes.max_size)

    @property
    def has_duty(self) -> bool:
        """Whether there is something to be done now, as far as can be told without the time."""
        return bool(self._retired) or self.size < self._wanted()

    def _prune(self, now: float) -> None:
        """Retire idle connections that are old, or that nobody has needed."""
        for slot in list(self._idle):
            if not self._is_usable(slot, now):
                self._idle.remove(slot)
        if self.sizes.max_idle is None:
            return
        while self._idle and self.size > self.sizes.min_size:
            if self._idle[0].idle_since + self.sizes.max_idle > now:
                return
            self._counts["closed_idle"] += 1
            self._retired.append(self._idle.popleft().connection)

    def made(self, connection: _C, now: float, generation: int = 0) -> None:
        """A connection was made."""
        self._making -= 1
        self._counts["connections_made"] += 1
        self._retry_at = None
        self._backoff = BACKOFF_FIRST
        self.last_error = None
        if self.closed:
            self._retired.append(connection)
            return
        lifetime = self.sizes.max_lifetime
        # Those made together do not all grow old together: the golden ratio spreads them evenly.
        spread = 1.0 - 0.1 * (self._counts["connections_made"] * 0.6180339887 % 1.0)
        expires_at = float("inf") if lifetime is None else now + lifetime * spread
        slot = Slot(connection, expires_at, generation)
        if self._is_usable(slot, now):
            self._offer(slot, now)

    def make_failed(self, error: Exception, now: float) -> None:
        """A connection could not be made. It is tried again, after a while.

        Whoever waits goes on waiting, for servers come back, unless it is of no use.
        """
        self._making -= 1
        self._counts["connections_failed"] += 1
        self.last_error = error
        self._retry_at = now + self._backoff
        self._backoff = min(self._backoff * 2, BACKOFF_MAX)
        if is_hopeless(error) and not self._in_use and not self._idle:
            self._fail_waiters(error)

    def _fail_waiters(self, error: Exception) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            waiter.error = error
            waiter.wake()

    def drain(self) -> None:
        """Replace all connections: idle ones now, others when they come back or are made."""
        self._generation += 1
        self._counts["closed_drained"] += len(self._idle)
        self._retired += [slot.connection for slot in self._idle]
        self._idle.clear()

    def close(self) -> None:
        """Refuse all that comes; connections that are idle, or come back, are to be closed."""
        self.closed = True
        self._retired += [slot.connection for slot in self._idle]
        self._idle.clear()
        self._fail_waiters(errors.PoolClosed(f"pool {self.name} was closed meanwhile"))


def is_hopeless(error: Exception) -> bool:
    """Whether trying to connect again would lead to the same error: it is one of configuration."""
    if not isinstance(error, errors.Error):
        return True
    if isinstance(error, errors.ConfigurationError | errors.LedgerError):
        return True
    # Who may connect, and to which database.
    return (error.sqlstate or "")[:2] in ("28", "3D")
