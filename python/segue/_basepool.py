"""What pools for threads and pools for an event loop have in common.

Nothing here waits or locks: what does is in `segue.pool` and `segue.aio.pool`.
"""

from __future__ import annotations

import itertools
from typing import Any, Generic, TypeVar

from segue._base import TransactionStatus
from segue._pool import Closable, PoolCore, Sizes
from segue.client import Client
from segue.errors import PoolClosed

# What `_transaction_status` gives.
IDLE = TransactionStatus.IDLE.value
CLOSED = TransactionStatus.UNKNOWN.value
OPEN = (TransactionStatus.INTRANS.value, TransactionStatus.INERROR.value)

_numbers = itertools.count(1)

C = TypeVar("C", bound=Closable)


class BasePool(Generic[C]):
    """Settings of a pool, and what is known of it."""

    name: str
    timeout: float
    _core: PoolCore[C]
    _client: Client | None

    def _name(self, name: str | None) -> None:
        self.name = name or f"pool-{next(_numbers)}"

    @property
    def closed(self) -> bool:
        """Whether no connections can be had: it is not open yet, or was closed."""
        return self._client is None or self._core.closed

    def _check_open(self) -> None:
        if self._core.closed:
            raise PoolClosed(f"pool {self.name} is closed")
        if self._client is None:
            raise PoolClosed(f"pool {self.name} is not open yet")

    @property
    def client(self) -> Client:
        """The cluster that its connections are on: status, counters, events."""
        client = self._client
        if client is None:
            raise PoolClosed(f"pool {self.name} is not open yet")
        return client

    @property
    def min_size(self) -> int:
        """So many connections there are at least."""
        return self._core.sizes.min_size

    @property
    def max_size(self) -> int:
        """So many connections there are at most."""
        return self._core.sizes.max_size

    def _resize(self, min_size: int, max_size: int | None) -> None:
        old = self._core.sizes
        self._core.sizes = Sizes(
            min_size,
            max(min_size, old.max_size) if max_size is None else max_size,
            old.max_waiting,
            old.max_lifetime,
            old.max_idle,
        )

    def __repr__(self) -> str:
        core = self._core
        state = "closed" if self.closed else f"{core.size} of {core.sizes.max_size}"
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} {self.name!r} [{state}]>"


def sizes_of(
    min_size: int,
    max_size: int | None,
    max_waiting: int,
    max_lifetime: float | None,
    max_idle: float | None,
) -> Sizes:
    """Sizes with their defaults; ValueError where they make no sense."""
    if max_size is None:
        max_size = max(min_size, 10)
    return Sizes(min_size, max_size, max_waiting, max_lifetime, max_idle)


def connect_arguments(**given: Any) -> dict[str, Any]:
    """What `connect` is given besides the configuration."""
    return {name: value for name, value in given.items() if value is not None}
