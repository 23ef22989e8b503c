"""Loopback ports for servers, leased so that nobody takes one while its server is down.

A lease is an abstract Unix socket whose name has the port in it: the kernel gives it up when the
process dies, so no stale lease survives. It binds other clusters on this machine; strangers are
kept away by choosing outside the kernel's ephemeral range and by trying to bind first.
"""

from __future__ import annotations

import random
import socket

from segue.testing._problem import ClusterError

FIRST = 18_000
COUNT = 14_000


class PortLease:
    """A port that is ours until it is released."""

    def __init__(self) -> None:
        # Not the global generator: a test may have seeded it, and so may its neighbours.
        chance = random.SystemRandom()
        for _ in range(200):
            port = FIRST + chance.randrange(COUNT)
            lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # The name is that of the Rust testkit, so that the two avoid each other.
                lock.bind(f"\0segue-testkit-port-{port}")
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
                    trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    trial.bind(("127.0.0.1", port))
            except OSError:
                lock.close()
                continue
            self.port = port
            self._lock = lock
            return
        raise ClusterError(f"no free TCP port between {FIRST} and {FIRST + COUNT - 1}")

    def release(self) -> None:
        """Gives the port up."""
        self._lock.close()
