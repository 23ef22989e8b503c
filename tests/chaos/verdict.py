"""Compares what the clients were told with what the database has. Nothing here knows of Segue."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .clientlog import COMMITTED, NOT_COMMITTED, UNKNOWN, ClientLog, Operation

EXAMPLES = 20


@dataclass(frozen=True)
class Payment:
    """A row of the table `payment`."""

    id: int
    kind: str
    src: int | None
    dst: int | None
    amount: int


@dataclass
class Database:
    """What is there in the end."""

    payments: list[Payment]
    balances: dict[int, int]
    opening: int
    """Each account's balance in the beginning."""

    @classmethod
    def read(cls, run: Path, opening: int) -> Database:
        """Reads what COPY has written."""

        def number(text: str) -> int | None:
            return None if text == "\\N" else int(text)

        payments = []
        for line in (run / "payment.tsv").read_text().splitlines():
            id_, kind, src, dst, amount = line.split("\t")
            payments.append(Payment(int(id_), kind, number(src), number(dst), int(amount)))
        balances = {}
        for line in (run / "account.tsv").read_text().splitlines():
            account, balance = line.split("\t")
            balances[int(account)] = int(balance)
        return cls(payments, balances, opening)

    def wrong_balances(self) -> list[str]:
        """Accounts whose balance is not what the payments to and from them make of it."""
        moved: Counter[int] = Counter()
        for payment in self.payments:
            if payment.src is not None and payment.dst is not None:
                moved[payment.src] -= payment.amount
                moved[payment.dst] += payment.amount
        return [
            f"account {account} has {balance}, its payments make {self.opening + moved[account]}"
            for account, balance in sorted(self.balances.items())
            if balance != self.opening + moved[account]
        ]


@dataclass
class Face:
    """How the clients of one kind fared."""

    face: str
    run_begun: int = 0
    """Times in examples are seconds since then, as in the drawing."""
    lives: int = 0
    reads: int = 0
    payments: int = 0
    told_committed: int = 0
    told_not_committed: int = 0
    told_unknown: int = 0
    told_nothing: int = 0
    """The client was killed before it heard."""
    errors: int = 0
    errors_disk_full: int = 0
    """Of these, those of class 53: the server is out of room, says so itself, and nothing is committed."""
    errors_by_sqlstate: dict[str, int] = field(default_factory=dict)
    error_examples: list[str] = field(default_factory=list)
    retries: int = 0
    lost: int = 0
    lost_reported: int = 0
    """Of these, as many as CommitsLost has named, and the submissions that SubmissionsLost has."""
    lost_unheard: int = 0
    """Of these, those of clients that were killed before they met the new primary."""
    lost_unreported: int = 0
    named_and_there: int = 0
    """Submissions that SubmissionsLost has named although they are there."""
    named_twice: int = 0
    duplicated: int = 0
    present_though_not_committed: int = 0
    decoys_present: int = 0
    accepted_missing: int = 0
    wrong_content: int = 0
    findings: int = 0
    findings_explained: int = 0
    """Balances that are older than they must be, after payments of that worker were lost."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    divergences: list[str] = field(default_factory=list)
    connect_errors: int = 0

    def at(self, time: int | None) -> str:
        """A time, for people."""
        return "never" if time is None else f"{(time - self.run_begun) / 1e6:.3f} s"

    def example(self, name: str, text: str) -> None:
        """Keeps some of what is counted, to look for."""
        kept = self.examples.setdefault(name, [])
        if len(kept) < EXAMPLES:
            kept.append(text)


@dataclass
class Verdict:
    """The whole."""

    faces: dict[str, Face]
    foreign: list[int]
    """Payments that no client has intended."""
    wrong_balances: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def judge(logs: Sequence[ClientLog], database: Database, begun: int = 0) -> Verdict:
    """Every promise that was made, against the rows that are there. Examples' times count from `begun`."""
    there = Counter(payment.id for payment in database.payments)
    kinds = {payment.id: payment.kind for payment in database.payments}
    intended: set[int] = set()
    faces: dict[str, Face] = {}
    lost_of: dict[tuple[str, int, int], list[Operation]] = defaultdict(list)
    for log in logs:
        face = faces.setdefault(log.face, Face(log.face, begun))
        face.lives += 1
        for operation in log.operations.values():
            intended.add(operation.id)
            if _judge_operation(face, log, operation, there[operation.id], kinds):
                lost_of[log.face, log.worker, log.incarnation].append(operation)
        for decoy in log.decoys:
            intended.add(decoy)
            if there[decoy]:
                face.decoys_present += 1
                face.example("decoys_present", f"{log.name}: {decoy}")
        for time, text in log.findings:
            own = lost_of.get((log.face, log.worker, log.incarnation), [])
            if text.startswith("own balances") and any((o.ended or 0) < time for o in own):
                face.findings_explained += 1
            else:
                face.findings += 1
                face.example("findings", f"{log.name} at {face.at(time)}: {text}")
        _take_events(face, log)
    named = _named(faces, logs, there)
    _losses(faces, logs, lost_of, named)
    foreign = sorted(id_ for id_ in there if id_ not in intended)
    return Verdict(faces, foreign, database.wrong_balances())


def _judge_operation(
    face: Face, log: ClientLog, operation: Operation, count: int, kinds: dict[int, str]
) -> bool:
    """Counts one operation; tells whether it was told to be committed and is not there."""
    _count_errors(face, log, operation)
    if operation.is_read:
        face.reads += 1
        return False
    face.payments += 1
    where = f"{log.name}: {operation.id} ({operation.kind}, begun at {face.at(operation.begun)})"
    if count > 1:
        face.duplicated += 1
        face.example("duplicated", f"{where}: {count} times")
    if count and kinds[operation.id] != operation.kind:
        face.wrong_content += 1
        face.example("wrong_content", f"{where}: {kinds[operation.id]}")
    if operation.outcome is None:
        face.told_nothing += 1
        if operation.accepted is not None and count == 0:
            face.accepted_missing += 1
            face.example("accepted_missing", where)
    elif operation.outcome == COMMITTED:
        face.told_committed += 1
        if count == 0:
            face.lost += 1
            face.example("lost", f"{where}, told at {face.at(operation.ended)}")
            return True
    elif operation.outcome == NOT_COMMITTED:
        face.told_not_committed += 1
        if count:
            face.present_though_not_committed += 1
            face.example("present_though_not_committed", f"{where}: {operation.message}")
    else:
        face.told_unknown += 1
        face.example("told_unknown", f"{where}, there {count} times: {operation.message}")
    return False


def _count_errors(face: Face, log: ClientLog, operation: Operation) -> None:
    seen = list(operation.retries)
    face.retries += len(seen)
    if operation.sqlstate != "00000" and operation.ended is not None:
        seen.append((operation.ended, operation.sqlstate, operation.message))
    for time, state, message in seen:
        face.errors += 1
        if state.startswith("53") and operation.outcome != UNKNOWN:
            face.errors_disk_full += 1
        face.errors_by_sqlstate[state] = face.errors_by_sqlstate.get(state, 0) + 1
        if face.errors_by_sqlstate[state] <= 5:
            text = f"{log.name} at {face.at(time)}, {operation.id} ({operation.kind}): {state} {message}"
            face.error_examples.append(text)


def _take_events(face: Face, log: ClientLog) -> None:
    for event in log.events:
        if event.name == "connect_error":
            face.connect_errors += 1
            continue
        face.events[event.name] = face.events.get(event.name, 0) + 1
        if event.name == "replay_diverged":
            face.divergences.append(f"{log.name} at {face.at(event.time)}: {event.text}")


def _named(faces: dict[str, Face], logs: Iterable[ClientLog], there: Counter[int]) -> set[int]:
    """The submissions that were named as lost; nothing else may be named, and nothing twice."""
    named: set[int] = set()
    for log in logs:
        face = faces[log.face]
        for id_ in log.named_lost:
            if id_ in named:
                face.named_twice += 1
                face.example("named_twice", f"{log.name}: {id_}")
            if there[id_]:
                face.named_and_there += 1
                face.example("named_and_there", f"{log.name}: {id_}")
            named.add(id_)
    return named


def _losses(
    faces: dict[str, Face],
    logs: Iterable[ClientLog],
    lost_of: dict[tuple[str, int, int], list[Operation]],
    named: set[int],
) -> None:
    """Which of the lost payments were owned up to.

    Submissions are named one by one. Of sessions' commits events give numbers; they are a process's, so they
    are compared by it.
    """
    reported: Counter[tuple[str, int]] = Counter()
    heard: Counter[tuple[str, int]] = Counter()
    for log in logs:
        process = (log.face, log.incarnation)
        for event in log.events:
            if event.name == "commits_lost":
                reported[process] += event.last - event.first + 1
        lost = lost_of.get((log.face, log.worker, log.incarnation), [])
        gone = {operation.id for operation in lost}
        survivors = [
            operation.ended
            for operation in log.operations.values()
            if operation.ended is not None
            and operation.outcome == COMMITTED
            and operation.id not in gone
            and not operation.is_read
        ]
        for operation in lost:
            if operation.accepted is not None:
                if operation.id in named:
                    faces[log.face].lost_reported += 1
                elif any(answer > (operation.ended or 0) for answer in survivors):
                    faces[log.face].lost_unreported += 1
                    where = f"{log.name}: {operation.id}, told at {faces[log.face].at(operation.ended)}"
                    faces[log.face].example("lost_unreported", where)
                else:
                    faces[log.face].lost_unheard += 1
                continue
            # A loss is noticed on the way to the next answer; a client that got none cannot know.
            if any(answer > (operation.ended or 0) for answer in survivors):
                heard[process] += 1
            else:
                faces[log.face].lost_unheard += 1
    for process, count in heard.items():
        face = faces[process[0]]
        face.lost_reported += min(count, reported[process])
        face.lost_unreported += max(0, count - reported[process])
