"""What the nemesis is going to do: a function of the seed alone, so that a run can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass

KINDS: dict[str, int] = {
    "kill-postmaster": 14,
    "kill-node": 12,
    "kill-two-nodes": 3,
    "kill-standby": 4,
    "kill-backends": 4,
    "kill-patroni": 3,
    "stop-postgres": 5,
    "stop-node": 6,
    "stop-patroni": 4,
    "partition": 20,
    "switchover": 10,
    "restart": 3,
    "fill-disk": 4,
    "kill-etcd": 4,
    "clients": 4,
}
"""The kinds of faults and how often each is chosen, relative to the others."""

# From whom the primary is cut off: those it replicates with, etcd, those who use it.
PEERS = ["standbys", "etcd", "clients", "standbys+etcd", "everybody", "everybody"]


@dataclass(frozen=True)
class Fault:
    """One fault, before it is known which node is the primary then."""

    number: int
    kind: str
    duration: float
    """For how long it lasts, in seconds: frozen, cut off, down, full."""
    peers: str
    direction: str
    candidate: int
    """Which of the two standbys is meant, where one is."""
    clients: int
    """How many clients are killed meanwhile."""
    clients_after: float
    rest: float
    """Quiet time once the cluster is whole again."""

    def __str__(self) -> str:
        words = [f"{self.number:4} {self.kind:16} {self.duration:5.1f} s"]
        if self.kind == "partition":
            words.append(f"from {self.peers}, {self.direction}")
        if self.clients:
            words.append(f"and {self.clients} client(s) after {self.clients_after:.1f} s")
        return " ".join(words)


def fault(seed: int, number: int, kinds: dict[str, int] | None = None) -> Fault:
    """The fault of that number."""
    weights = kinds or KINDS
    choice = random.Random(f"{seed}/fault/{number}")
    kind = choice.choices(list(weights), list(weights.values()))[0]
    short = kind in ("kill-postmaster", "kill-backends", "kill-patroni", "switchover", "restart", "clients")
    duration = choice.uniform(0.2, 2) if short else choice.uniform(1, 13)
    peers = choice.choice(PEERS)
    direction = choice.choice(["in", "out", "both", "both"])
    clients = choice.choice([1, 2, 3]) if kind == "clients" else choice.choice([0, 0, 0, 1, 2])
    return Fault(
        number=number,
        kind=kind,
        duration=duration,
        peers=peers,
        direction=direction,
        candidate=choice.randrange(2),
        clients=clients,
        clients_after=choice.uniform(0, max(duration, 3)),
        rest=choice.uniform(0.3, 2),
    )
