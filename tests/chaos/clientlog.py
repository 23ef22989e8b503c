"""What a client intended and what it was told: an append-only text file that its SIGKILL cannot undo.

One line is one write(2). Times are microseconds of CLOCK_MONOTONIC, which all processes of a machine
share. The programs in C and Rust write the same lines:

    B time id kind                          begun: the application intends the payment `id`
    D time id                               a payment inside a savepoint that is rolled back: never there
    A time id                               accepted by submit(): it will be done
    R time id sqlstate message              an error, after which the application tries again
    E time id outcome sqlstate message      the end: committed, not_committed or unknown; 00000 is no error
    V time name session from to pause text  an event of Segue's
    L time key                              a submission that an event names as lost, by its key: "payment ID"
    F time text                             the application has seen what cannot be
    Q time                                  the program ended by itself
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

COMMITTED, NOT_COMMITTED, UNKNOWN = "committed", "not_committed", "unknown"
READS = frozenset({"read", "stream"})
"""Kinds that leave nothing in the database."""

WORKER_IDS = 10**12
INCARNATION_IDS = 10**7


def now_us() -> int:
    """Now, on the clock of all logs."""
    return time.monotonic_ns() // 1000


def first_id(worker: int, incarnation: int) -> int:
    """The id before the first of this worker in this life: ids tell whose they are."""
    return worker * WORKER_IDS + incarnation * INCARNATION_IDS


class Log:
    """Writes one worker's file."""

    def __init__(self, directory: Path, face: str, worker: int, incarnation: int) -> None:
        self.path = directory / f"{face}.{worker}.{incarnation}.log"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, letter: str, *words: object) -> None:
        """One line."""
        text = " ".join(str(word) for word in words).replace("\n", " ")
        os.write(self._file, f"{letter} {now_us()} {text}\n".encode())


@dataclass
class Operation:
    """One payment, or one look at the accounts."""

    id: int
    kind: str
    begun: int
    accepted: int | None = None
    ended: int | None = None
    outcome: str | None = None
    sqlstate: str = "00000"
    message: str = ""
    retries: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def is_read(self) -> bool:
        """Whether it leaves nothing in the database."""
        return self.kind in READS


@dataclass(frozen=True)
class Event:
    """An event of Segue's as the client's callback got it."""

    time: int
    name: str
    session: int
    first: int
    last: int
    pause_us: int
    text: str


@dataclass
class ClientLog:
    """One worker's life: from its start to its end or its SIGKILL."""

    face: str
    worker: int
    incarnation: int
    operations: dict[int, Operation] = field(default_factory=dict)
    decoys: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    named_lost: list[int] = field(default_factory=list)
    """Submissions that an event of this process has named as lost."""
    findings: list[tuple[int, str]] = field(default_factory=list)
    ended: bool = False
    last_time: int = 0

    @property
    def name(self) -> str:
        """Whose it is, for people."""
        return f"{self.face}.{self.worker}.{self.incarnation}"


def parse(path: Path) -> ClientLog:
    """Reads a file. A last line that SIGKILL has cut off counts as not written."""
    face, worker, incarnation = path.name.removesuffix(".log").rsplit(".", 2)
    log = ClientLog(face, int(worker), int(incarnation))
    lines = path.read_bytes().decode(errors="replace").split("\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            _take(log, line)
        except (ValueError, KeyError, IndexError) as error:
            raise ValueError(f"{path}:{number}: {line!r}: {error!r}") from error
    return log


def _take(log: ClientLog, line: str) -> None:
    letter, time_, *rest = line.split(" ", 2)
    at = int(time_)
    log.last_time = max(log.last_time, at)
    text = rest[0] if rest else ""
    words = text.split(" ")
    match letter:
        case "B":
            operation = Operation(int(words[0]), words[1], at)
            if operation.id in log.operations:
                raise ValueError("begun twice")
            log.operations[operation.id] = operation
        case "D":
            log.decoys.append(int(words[0]))
        case "A":
            log.operations[int(words[0])].accepted = at
        case "R":
            retry = (at, words[1], " ".join(words[2:]))
            log.operations[int(words[0])].retries.append(retry)
        case "E":
            operation = log.operations[int(words[0])]
            if operation.outcome is not None:
                raise ValueError("ended twice")
            if words[1] not in (COMMITTED, NOT_COMMITTED, UNKNOWN):
                raise ValueError("no such outcome")
            operation.ended, operation.outcome, operation.sqlstate = at, words[1], words[2]
            operation.message = " ".join(words[3:])
        case "V":
            session, first, last, pause = (int(word) for word in words[1:5])
            message = " ".join(words[5:])
            log.events.append(Event(at, words[0], session, first, last, pause, message))
        case "L":
            log.named_lost.append(int(words[1]))
        case "F":
            log.findings.append((at, text))
        case "Q":
            log.ended = True
        case _:
            raise ValueError("no such letter")


def parse_all(directory: Path) -> list[ClientLog]:
    """All files of a run, in the order of their names."""
    return [parse(path) for path in sorted(directory.glob("*.*.*.log"))]
