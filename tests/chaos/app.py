"""What the Python clients have in common: arguments, the choice of what comes next, ids, the log."""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .clientlog import Log, first_id

PIPELINE = 5
TRANSFER = "UPDATE account SET balance = balance + $2 WHERE id = $1"
INSERT = "INSERT INTO payment (id, kind, src, dst, amount) VALUES ($1, $2, $3, $4, $5)"
OWN = "SELECT id, balance FROM account WHERE id IN ($1, $2) ORDER BY id FOR UPDATE"
SUM = "SELECT sum(balance)::bigint FROM account"
STREAM_ROWS = 2000
STREAM = f"SELECT n FROM generate_series(1, {STREAM_ROWS}) AS n"

KINDS = ["transfer", "transfer", "own", "savepoint", "insert", "insert", "pipeline"]


@dataclass(frozen=True)
class Arguments:
    """The command line of every client program, in whatever language."""

    conninfo: str
    face: str
    logs: Path
    worker: int
    incarnation: int
    seed: int
    accounts: int
    total: int
    pace_ms: int
    stop: Path


def arguments() -> Arguments:
    """Reads the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--conninfo", required=True)
    parser.add_argument("--face", required=True, help="the name in the log files")
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--worker", type=int, required=True, help="the number of its first worker")
    parser.add_argument("--incarnation", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--accounts", type=int, required=True, help="shared accounts, from 1")
    parser.add_argument("--total", type=int, required=True, help="the sum of all balances, always")
    parser.add_argument("--pace-ms", type=int, required=True, help="rest between transactions")
    parser.add_argument("--stop", type=Path, required=True, help="the program ends once it exists")
    parser.add_argument("--journal-dir", type=Path, help="for those that submit")
    values = vars(parser.parse_args())
    del values["journal_dir"]
    return Arguments(**values)


def own_accounts(worker: int) -> tuple[int, int]:
    """The two accounts that only this worker touches."""
    return 1000 + 2 * worker, 1001 + 2 * worker


class Worker:
    """One thread or task: its random numbers, its ids, its log."""

    def __init__(self, arguments: Arguments, index: int) -> None:
        self.arguments = arguments
        self.number = arguments.worker + index
        self.random = random.Random(f"{arguments.seed}/{self.number}/{arguments.incarnation}")
        self.log = Log(arguments.logs, arguments.face, self.number, arguments.incarnation)
        self.expected: dict[int, int] | None = None
        self._last_id = first_id(self.number, arguments.incarnation)

    @property
    def stops(self) -> bool:
        """Whether the harness wants it to end."""
        return self.arguments.stop.exists()

    def next_id(self) -> int:
        """A fresh id."""
        self._last_id += 1
        return self._last_id

    def kind(self) -> str:
        """What comes next."""
        return self.random.choice(KINDS)

    def amount(self) -> int:
        """How much is paid."""
        return self.random.randint(1, 100)

    def two_accounts(self) -> tuple[int, int]:
        """Whence and where to, among the shared accounts."""
        src, dst = self.random.sample(range(1, self.arguments.accounts + 1), 2)
        return src, dst

    def begin(self, kind: str) -> int:
        """Logs the intention."""
        id_ = self.next_id()
        self.log.write("B", id_, kind)
        return id_

    def end(self, id_: int, outcome: str, sqlstate: str = "00000", message: str = "") -> None:
        """Logs what the application was told."""
        self.log.write("E", id_, outcome, sqlstate, message)

    def check_own(self, rows: list[tuple[int, int]]) -> None:
        """Compares balances that nobody else changes with what they must be."""
        seen = dict(rows)
        if self.expected is not None and seen != self.expected:
            self.log.write("F", f"own balances are {seen}, and must be {self.expected}")
        self.expected = seen

    def check_total(self, total: object) -> None:
        """The sum of all balances never changes."""
        if total != self.arguments.total:
            self.log.write("F", f"the sum is {total}, and must be {self.arguments.total}")

    @property
    def pause(self) -> float:
        """The rest until the next transaction, in seconds."""
        return self.random.uniform(0.2, 1.8) * self.arguments.pace_ms / 1000


def in_threads(workers: list[Worker], work: Callable[[Worker], None]) -> None:
    """Runs each worker in a thread; each says when it has ended by itself."""

    def run(worker: Worker) -> None:
        work(worker)
        worker.log.write("Q")

    threads = [threading.Thread(target=run, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def rest(worker: Worker) -> None:
    """Sleeps until the next transaction."""
    time.sleep(worker.pause)
