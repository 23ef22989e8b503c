"""How long the cluster had no primary, and how much longer its clients waited."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .clientlog import ClientLog
from .prober import Sight

HICCUP_US = 500_000
"""A shorter gap between two writes on the same timeline is no outage."""
NEAR = 100
"""More payments than a worker ends in `LATE_US`."""
LATE_US = 1_500_000
"""The prober may see the new primary later than the clients do, by its period and its patience."""


@dataclass(frozen=True)
class Outage:
    """From the last write that was acknowledged to the first one afterwards."""

    start: int
    end: int
    old_node: str
    new_node: str
    old_timeline: int
    new_timeline: int

    @property
    def is_failover(self) -> bool:
        """Whether somebody was promoted."""
        return self.new_timeline > self.old_timeline


@dataclass(frozen=True)
class Pause:
    """The longest wait of one worker around one outage."""

    face: str
    worker: int
    start: int
    end: int
    whole_us: int
    cluster_us: int
    share_us: int
    """What was left once the new primary took writes."""


def outages(sights: Iterable[Sight]) -> list[Outage]:
    """Writes on an older timeline than was seen before are those of a primary that was left behind."""
    found: list[Outage] = []
    last: Sight | None = None
    for sight in sorted(sights, key=lambda sight: sight.time):
        if sight.state != "write" or (last is not None and sight.timeline < last.timeline):
            continue
        if last is not None and (sight.timeline > last.timeline or sight.time - last.time > HICCUP_US):
            found.append(Outage(last.time, sight.time, last.node, sight.node, last.timeline, sight.timeline))
        last = sight
    return found


def pauses(logs: Iterable[ClientLog], failovers: Sequence[Outage]) -> list[Pause]:
    """Each worker's longest wait for each failover. Workers that were dead or resting then have none.

    An answer before the prober's first write is a share of 0.
    """
    operations: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for log in logs:
        for operation in log.operations.values():
            # Submissions are accepted at once, and reads may be answered by a standby.
            if operation.ended is None or operation.is_read or operation.accepted is not None:
                continue
            operations[log.face, log.worker].append((operation.begun, operation.ended))
    found = []
    for (face, worker), spans in sorted(operations.items()):
        spans.sort()
        ends = sorted(ended for _, ended in spans)
        for outage in failovers:
            # One worker does one thing at a time, so spans are in the same order by begin and by end.
            position = bisect_left(ends, max(outage.start, outage.end - LATE_US))
            half = (outage.end - outage.start) // 2
            waited = [
                (begun, ended)
                for begun, ended in spans[position : position + NEAR]
                if begun < outage.end and (ended >= outage.end or ended - begun >= half)
            ]
            if not waited:
                continue
            begun, ended = max(waited, key=lambda span: span[1] - span[0])
            found.append(
                Pause(
                    face,
                    worker,
                    begun,
                    ended,
                    ended - begun,
                    max(0, min(ended, outage.end) - max(begun, outage.start)),
                    max(0, ended - max(outage.end, begun)),
                )
            )
    return found


def quantile(values: Sequence[int], share: float) -> int:
    """The nearest-rank quantile; 0 of nothing."""
    if not values:
        return 0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def summary(values: Sequence[int]) -> dict[str, Any]:
    """p50, p99 and the longest, in milliseconds."""
    return {
        "count": len(values),
        "p50_ms": round(quantile(values, 0.5) / 1000, 1),
        "p99_ms": round(quantile(values, 0.99) / 1000, 1),
        "max_ms": round(max(values, default=0) / 1000, 1),
    }


def by_face(found: Iterable[Pause]) -> dict[str, dict[str, Any]]:
    """The split for each face."""
    groups: dict[str, list[Pause]] = defaultdict(list)
    for pause in found:
        groups[pause.face].append(pause)
    return {
        face: {
            "whole": summary([pause.whole_us for pause in group]),
            "cluster": summary([pause.cluster_us for pause in group]),
            "share": summary([pause.share_us for pause in group]),
        }
        for face, group in sorted(groups.items())
    }


def waits_by_face(found: Iterable[Pause]) -> dict[str, dict[str, list[int]]]:
    """All of them, so that several runs can be taken together."""
    groups: dict[str, dict[str, list[int]]] = {}
    for pause in found:
        group = groups.setdefault(pause.face, {"whole_us": [], "share_us": []})
        group["whole_us"].append(pause.whole_us)
        group["share_us"].append(pause.share_us)
    return groups


def as_dicts(found: Iterable[Outage]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(outage) | {"failover": outage.is_failover} for outage in found]
