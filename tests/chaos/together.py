"""Several runs taken together, in Markdown: `python -m chaos.together DIRECTORY...`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import pauses
from .report import is_segue

COUNTED = {
    "payments": "payments",
    "errors": "errors",
    "errors_disk_full": "of a full disk",
    "lost": "lost",
    "lost_unreported": "of these unreported",
    "duplicated": "twice",
    "told_unknown": "unknown",
    "told_nothing": "not told",
}


def count(report: dict[str, Any], faces: Sequence[str]) -> Counter[str]:
    """What the clients of these kinds met."""
    total: Counter[str] = Counter()
    for face in faces:
        seen = report["faces"].get(face, {})
        for name in COUNTED:
            total[name] += seen.get(name, 0)
        # As everywhere: errors are those that are not of a full disk.
        total["errors"] -= seen.get("errors_disk_full", 0)
    return total


def together(reports: Sequence[dict[str, Any]]) -> str:
    """A row for each run, their sum, the same for the status quo, pauses and kinds of faults of all."""
    names = sorted({face for report in reports for face in report["faces"]})
    segue = [name for name in names if is_segue(name)]
    parts = [_runs(reports, segue)]
    parts += [_runs(reports, [name], name) for name in names if not is_segue(name)]
    parts.append(_pauses(reports, names))
    parts.append(_kinds(reports))
    bad = [text for report in reports for text in (*report["violations"], *report["shortfalls"])]
    parts.append("\n".join(bad) if bad else "No violations, and nothing short of the target.")
    return "\n\n".join(parts) + "\n"


def _runs(reports: Sequence[dict[str, Any]], faces: Sequence[str], title: str = "Segue") -> str:
    rows = [["seed", "mode", "failovers", "faults", *COUNTED.values()]]
    total: Counter[str] = Counter()
    for report in reports:
        facts = report["facts"]
        seen = count(report, faces)
        seen.update(failovers=report["failovers"], faults=facts["faults"])
        numbers = [f"{seen[name]:,}" for name in ("failovers", "faults", *COUNTED)]
        rows.append([str(facts["seed"]), facts["mode"], *numbers])
        total += seen
    rows.append(["all", "", *(f"{total[name]:,}" for name in ("failovers", "faults", *COUNTED))])
    return f"{title}:\n\n{_markdown(rows)}"


def _pauses(reports: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    rows = [["", "count", "p50 ms", "p99 ms", "longest ms"]]

    def row(title: str, values: list[int]) -> None:
        seen = pauses.summary(values)
        rows.append([title, *(f"{seen[key]:,}" for key in ("count", "p50_ms", "p99_ms", "max_ms"))])

    outages = [outage for report in reports for outage in report["outages"] if outage["failover"]]
    row("no primary", [outage["end"] - outage["start"] for outage in outages])
    groups = [("Segue", [name for name in names if is_segue(name)])] + [(name, [name]) for name in names]
    for title, faces in groups:
        for part, what in (("whole_us", "pause"), ("share_us", "beyond the cluster's")):
            waits = [report["waits"].get(face, {}).get(part, []) for report in reports for face in faces]
            row(f"{title}, {what}", [value for some in waits for value in some])
    return _markdown(rows)


def _kinds(reports: Sequence[dict[str, Any]]) -> str:
    faults: Counter[str] = Counter()
    failovers: Counter[str] = Counter()
    for report in reports:
        for kind, seen in report["faults_by_kind"].items():
            faults[kind] += seen["faults"]
            failovers[kind] += seen["failovers"]
    rows = [["kind", "faults", "failovers"]]
    rows += [[kind, f"{number:,}", f"{failovers[kind]:,}"] for kind, number in faults.most_common()]
    return _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, f"|{' --- |' * len(rows[0])}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(together([json.loads((Path(run) / "report.json").read_text()) for run in sys.argv[1:]]))
