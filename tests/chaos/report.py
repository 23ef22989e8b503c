"""The report of a run, from its files alone: `python -m chaos.report DIRECTORY` makes it again."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from . import pauses
from .clientlog import parse_all
from .page import Bar, Page, render
from .prober import read
from .verdict import Database, Face, judge

FAILURES = {
    "duplicated": "payments are there more than once",
    "present_though_not_committed": "payments are there though they were told not committed",
    "decoys_present": "payments are there though their savepoint was rolled back",
    "accepted_missing": "submissions were accepted and are missing",
    "named_and_there": "submissions were named as lost and are there",
    "named_twice": "submissions were named as lost twice",
    "wrong_content": "payments are there with other content",
    "findings": "times a client saw what cannot be",
}


def is_segue(face: str) -> bool:
    """Whether a face is under test, or the status quo beside it."""
    return not face.startswith("psycopg")


def violations(faces: dict[str, Face], facts: dict[str, Any], wrong: list[str]) -> list[str]:
    """What must not be, in words; nothing is said of the status quo."""
    said = []
    for name, face in faces.items():
        if not is_segue(name):
            continue
        for attribute, text in FAILURES.items():
            if count := getattr(face, attribute):
                said.append(f"{name}: {count} {text}")
        lost = face.lost if facts["mode"] == "sync" else face.lost_unreported
        if lost:
            what = "payments told committed are lost"
            said.append(f"{name}: {lost} {what}{'' if facts['mode'] == 'sync' else ', unreported'}")
    said += wrong
    said += [f"a client crashed: {crash}" for crash in facts["crashes"] if is_segue(crash)]
    said += [f"a worker got no answer: {name}" for name in facts["stuck"]]
    said += [f"a client did not end: {name}" for name in facts["late"] if is_segue(name)]
    if facts["broken"]:
        said.append(f"the harness gave up: {facts['broken']}")
    return said


def shortfalls(faces: dict[str, Face]) -> list[str]:
    """What is allowed to be, and is not wanted."""
    said = []
    for name, face in faces.items():
        if not is_segue(name):
            continue
        if face.told_unknown:
            said.append(f"{name}: {face.told_unknown} outcomes unknown")
        if errors := face.errors - face.errors_disk_full:
            said.append(f"{name}: {errors} errors seen by applications")
    return said


def write_report(run: Path) -> int:
    """Writes report.json and report.html; the exit status of the run."""
    facts = json.loads((run / "facts.json").read_text())
    begun, faults, kills = _diary(run / "diary.log")
    logs = parse_all(run / "clients")
    database = Database.read(run, facts["balance"])
    verdict = judge(logs, database, begun)
    sights = read(run / "prober.log")
    outages = pauses.outages(sights)
    failovers = [outage for outage in outages if outage.is_failover]
    waits = pauses.pauses(logs, failovers)
    wrong = list(verdict.wrong_balances)
    wrong += [f"payment {id_} was intended by nobody" for id_ in verdict.foreign]
    bad = violations(verdict.faces, facts, wrong)
    short = shortfalls(verdict.faces)
    cluster = pauses.summary([outage.end - outage.start for outage in failovers])
    by_kind = _by_kind(faults, failovers, begun)
    report: dict[str, Any] = {
        "facts": facts,
        "violations": bad,
        "shortfalls": short,
        "failovers": facts["failovers"],
        "cluster_without_primary": cluster,
        "faults_by_kind": by_kind,
        "pauses": pauses.by_face(waits),
        **verdict.as_dict(),
        "outages": pauses.as_dicts(outages),
        "waits": pauses.waits_by_face(waits),
    }
    (run / "report.json").write_text(json.dumps(report, indent=1))
    throughput: dict[str, Counter[int]] = {}
    longest: dict[str, list[tuple[int, int]]] = {}
    end = max((log.last_time for log in logs), default=begun)
    for log in logs:
        counter = throughput.setdefault(log.face, Counter())
        spans = longest.setdefault(log.face, [])
        for operation in log.operations.values():
            if operation.ended is None:
                continue
            counter[(operation.ended - begun) // 1_000_000] += 1
            if operation.accepted is None and not operation.is_read:
                spans.append((operation.begun - begun, operation.ended - begun))
    page = Page(
        facts=facts,
        violations=bad,
        shortfalls=short,
        faces=verdict.faces,
        pauses=report["pauses"],
        cluster=cluster,
        seconds=(end - begun) / 1e6,
        throughput=throughput,
        spans=longest,
        roles=_roles(sights, begun, end),
        faults=faults,
        by_kind=by_kind,
        client_kills=kills,
    )
    (run / "report.html").write_text(render(page))
    _print(report, verdict.faces, run)
    return 1 if bad or short else 0


def _diary(path: Path) -> tuple[int, list[Bar], list[float]]:
    """When it began, the faults from their beginning to their end, the times of clients' deaths."""
    begun: int | None = None
    faults: list[Bar] = []
    kills: list[float] = []
    for line in path.read_text().splitlines():
        time_, kind, text = line.split(" ", 2)
        time = int(time_)
        if kind == "cluster":
            begun = time
        if begun is None:
            continue
        at = (time - begun) / 1e6
        if kind == "fault":
            faults.append(Bar(at, at, text.split()[1], text))
        elif kind == "over" and faults:
            last = faults[-1]
            faults[-1] = Bar(last.start, at, last.kind, last.text)
        elif kind == "client":
            kills.append(at)
    return begun or 0, faults, kills


def _by_kind(faults: list[Bar], failovers: list[pauses.Outage], begun: int) -> dict[str, dict[str, Any]]:
    """How many faults there were of each kind, the failovers after them, and the time without a primary."""
    counts = Counter(fault.kind for fault in faults)
    took: dict[str, list[int]] = {kind: [] for kind in counts}
    for failover in failovers:
        # That of the last fault that had begun when the new primary took writes.
        before = [fault for fault in faults if begun + fault.start * 1e6 <= failover.end]
        if before:
            took[before[-1].kind].append(failover.end - failover.start)
    return {
        kind: {"faults": count, "failovers": len(took[kind]), **_without_count(pauses.summary(took[kind]))}
        for kind, count in counts.most_common()
    }


def _without_count(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key != "count"}


def _roles(sights: list[Any], begun: int, end: int) -> dict[str, list[Bar]]:
    """What each node was from when to when."""
    roles: dict[str, list[Bar]] = {}
    for sight in sights:
        at = max(0.0, (sight.time - begun) / 1e6)
        state = "primary" if sight.state == "write" else sight.state
        text = f"{sight.node}: {state}, timeline {sight.timeline}"
        bars = roles.setdefault(sight.node, [])
        if bars and bars[-1].text == text:
            continue
        if bars:
            bars[-1] = Bar(bars[-1].start, at, bars[-1].kind, bars[-1].text)
        bars.append(Bar(at, (end - begun) / 1e6, state, text))
    return roles


def _print(report: dict[str, Any], faces: dict[str, Face], run: Path) -> None:
    facts = report["facts"]
    cluster = report["cluster_without_primary"]
    print(
        f"\n{facts['failovers']} failovers by {facts['faults']} faults in {facts['seconds']:.0f} s,"
        f" {facts['mode']}hronous replication, seed {facts['seed']}; without a primary"
        f" p50 {cluster['p50_ms']} ms, max {cluster['max_ms']} ms"
    )
    head = ["", "payments", "errors", "disk full", "lost", "twice", "unknown", "untold", "p50", "p99", "max"]
    print("".join(f"{word:>10}" if word else f"{word:16}" for word in head) + "  ms beyond the cluster's")
    for name, face in faces.items():
        share = report["pauses"].get(name, {}).get("share", {})
        row = [
            face.payments,
            face.errors - face.errors_disk_full,
            face.errors_disk_full,
            face.lost,
            face.duplicated,
            face.told_unknown,
        ]
        row += [face.told_nothing, *(share.get(f"{key}_ms", "") for key in ("p50", "p99", "max"))]
        print(f"{name:16}" + "".join(f"{value:>10}" for value in row))
    for text in report["violations"]:
        print(f"VIOLATION {text}")
    for text in report["shortfalls"]:
        print(f"short of the target: {text}")
    print(f"{run / 'report.html'}\n{run / 'report.json'}")


if __name__ == "__main__":
    sys.exit(write_report(Path(sys.argv[1])))
