"""The report as one HTML page: no script, nothing from elsewhere, drawings as inline SVG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from .verdict import Face

LEFT = 160
MIN_WIDTH = 1130
COLOURS = ["#1b6ca8", "#1a936f", "#7d4cb2", "#3aa6b9", "#c0392b", "#e08e0b"]
FAULT = "#555"
KILL = "#c0392b"
STATES = {"primary": "#2e9e5b", "standby": "#9cc3e6", "silent": "#c9c9c9", "down": "#d9534f"}
STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1340px; color: #222;
       background: #fff; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.1em; margin-top: 2em }
table { border-collapse: collapse } th, td { padding: .25em .55em; border-bottom: 1px solid #ddd;
       text-align: right; vertical-align: bottom; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left; white-space: nowrap }
tr + tr th:first-child { text-align: right }
tr.other td { color: #777 } th.group { text-align: center } td.bad { color: #c0392b; font-weight: 600 }
.good { color: #2e7d4f } .bad { color: #c0392b } .draw { overflow-x: auto }
svg text { font: 11px system-ui, sans-serif; fill: #444 } svg .small { font-size: 9px }
details { margin: .4em 0 }
li { overflow-wrap: anywhere } .key span { display: inline-block; margin-right: 1.2em }
.key i { display: inline-block; width: .9em; height: .9em; margin-right: .3em; border-radius: 2px }
"""


@dataclass(frozen=True)
class Bar:
    """Something that lasted, in seconds from the beginning."""

    start: float
    end: float
    kind: str
    text: str


@dataclass
class Page:
    """What the page shows."""

    facts: dict[str, Any]
    violations: Sequence[str]
    shortfalls: Sequence[str]
    faces: dict[str, Face]
    pauses: dict[str, dict[str, Any]]
    cluster: dict[str, Any]
    seconds: float
    throughput: dict[str, Counter[int]]
    """For each face, what ended in which second."""
    spans: dict[str, list[tuple[int, int]]]
    """For each face, from when to when each payment took, in microseconds from the beginning."""
    roles: dict[str, list[Bar]]
    faults: list[Bar]
    by_kind: dict[str, dict[str, Any]]
    """For each kind of fault: how many, failovers, and the time without a primary."""
    client_kills: list[float]


def render(page: Page) -> str:
    """The whole page."""
    facts = page.facts
    title = f"Chaos: {facts['failovers']} failovers, {facts['mode']}hronous replication"
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>",
        f"<p>Seed {facts['seed']}, {facts['faults']} faults in {facts['seconds']:.0f} s,"
        f" {facts['client_kills']} clients killed{_build(facts)}.</p>",
        _verdict(page),
        "<h2>What the clients met</h2>",
        _table(page),
        "<h2>Over time</h2>",
        _key(),
        f'<div class="draw">{_drawing(page)}</div>',
        "<h2>Faults</h2>",
        _faults(page),
        _details(page),
        "</body></html>",
    ]
    return "\n".join(parts)


def _build(facts: dict[str, Any]) -> str:
    build = facts.get("build")
    return f". Built from {escape(build)}" if build else ""


def _verdict(page: Page) -> str:
    if not page.violations and not page.shortfalls:
        return (
            '<p class="good"><b>Segue&rsquo;s clients: nothing lost, nothing twice, no error,'
            " nothing unknown.</b></p>"
        )
    lines = [f'<li class="bad"><b>{escape(text)}</b></li>' for text in page.violations]
    lines += [f"<li>{escape(text)}</li>" for text in page.shortfalls]
    return f"<ul>{''.join(lines)}</ul>"


def _table(page: Page) -> str:
    may_lose = page.facts["mode"] != "sync"
    head = (
        '<tr><th rowspan="2">client<th rowspan="2">payments<th rowspan="2">told committed'
        '<th rowspan="2">errors seen<th rowspan="2">disk full<th rowspan="2">lost'
        + ('<th rowspan="2">of these unreported' if may_lose else "")
        + '<th rowspan="2">there twice<th rowspan="2">unknown<th rowspan="2">not told'
        '<th rowspan="2">divergences<th colspan="3" class="group">pause, ms'
        '<th colspan="3" class="group">beyond the cluster&rsquo;s, ms</tr>'
        "<tr><th>p50<th>p99<th>longest<th>p50<th>p99<th>longest</tr>"
    )
    rows = []
    # The status quo comes last.
    for name, face in sorted(page.faces.items(), key=lambda item: (_is_other(item[0]), item[0])):
        split = page.pauses.get(name, {})
        cells = [
            f"{face.payments:,}",
            f"{face.told_committed:,}",
            _count(face.errors - face.errors_disk_full),
            f"{face.errors_disk_full:,}",
            # With asynchronous replication a promotion may lose commits, and they must be named.
            f"{face.lost:,}" if may_lose else _count(face.lost),
            *([_count(face.lost_unreported)] if may_lose else []),
            _count(face.duplicated),
            _count(face.told_unknown),
            f"{face.told_nothing:,}",
            _count(face.events.get("replay_diverged", 0)),
        ]
        for part in ("whole", "share"):
            cells += [_milliseconds(split.get(part, {}).get(f"{key}_ms")) for key in ("p50", "p99", "max")]
        marked = [c if c.startswith("<td") else f"<td>{c}" for c in cells]
        kind = ' class="other"' if _is_other(name) else ""
        rows.append(f"<tr{kind}><td>{escape(name)}{''.join(marked)}</tr>")
    notes = (
        "<p>A <i>pause</i> is one payment that had begun before the new primary took writes and ended"
        " afterwards; what is <i>beyond the cluster&rsquo;s</i> is counted from that moment, as an"
        " independent prober has seen it. <i>Disk full</i>: the server was out of room, said so, and nothing"
        " was committed. <i>Not told</i>: the client was killed before it heard.</p>"
        "<p>In grey, for comparison: the same payments through psycopg 3, with a pool and a loop that tries"
        " again after any error. Segue&rsquo;s clients never try again.</p>"
    )
    return f'<div class="draw"><table>{head}{"".join(rows)}</table></div>{notes}'


def _is_other(face: str) -> bool:
    return face.startswith("psycopg")


def _faults(page: Page) -> str:
    head = (
        '<tr><th rowspan="2">kind<th rowspan="2">faults<th rowspan="2">failovers'
        '<th colspan="3" class="group">without a primary then, ms</tr><tr><th>p50<th>p99<th>longest</tr>'
    )
    rows = []
    for kind, seen in page.by_kind.items():
        cells = [f"{seen['faults']:,}", f"{seen['failovers']:,}"]
        cells += [
            _milliseconds(seen[f"{key}_ms"]) if seen["failovers"] else "" for key in ("p50", "p99", "max")
        ]
        rows.append(f"<tr><td>{escape(kind)}{''.join(f'<td>{cell}' for cell in cells)}</tr>")
    cells = [f"{sum(seen[key] for seen in page.by_kind.values()):,}" for key in ("faults", "failovers")]
    cells += [_milliseconds(page.cluster[f"{key}_ms"]) for key in ("p50", "p99", "max")]
    rows.append(f"<tr><td><b>all</b>{''.join(f'<td>{cell}' for cell in cells)}</tr>")
    note = (
        "<p>A failover counts for the last fault before it. The cluster is without a primary from the last"
        " write that the old one acknowledged to the first one of the new one.</p>"
    )
    return f"<table>{head}{''.join(rows)}</table>{note}{_options(page.facts)}"


def _options(facts: dict[str, Any]) -> str:
    options = facts.get("options")
    if options is None:
        return ""
    weights = ", ".join(f"{kind} {weight}" for kind, weight in options["weights"].items())
    return (
        f"<p>Weights of the kinds: {escape(weights)}. A worker rests"
        f" {options['pace_ms']} ms between two payments, on average.</p>"
    )


def _count(number: int) -> str:
    return f'<td class="bad">{number:,}' if number else "0"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def _key() -> str:
    known = {**STATES, "fault": FAULT, "client killed": KILL}
    spans = [f'<span><i style="background:{colour}"></i>{name}</span>' for name, colour in known.items()]
    return f'<p class="key">{"".join(spans)}</p>'


def _drawing(page: Page) -> str:
    seconds = max(page.seconds, 1.0)
    scale = max((MIN_WIDTH - LEFT) / seconds, 0.6)
    width = LEFT + seconds * scale + 10
    y = 10.0
    out: list[str] = []

    def label(text: str, at: float) -> None:
        out.append(f'<text x="4" y="{at:.1f}">{escape(text)}</text>')

    top = y
    for name, bars in sorted(page.roles.items()):
        label(name, y + 11)
        out += _bars(bars, scale, y, lambda bar: STATES.get(bar.kind, "#eee"))
        y += 20
    label("faults", y + 11)
    out += _bars(page.faults, scale, y, lambda _bar: FAULT)
    out += _names(page.faults, scale, y + 24)
    y += 32
    label("clients killed", y + 11)
    for at in page.client_kills:
        x = LEFT + at * scale
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 14}" stroke="{KILL}"/>')
    y += 30
    for index, (name, counter) in enumerate(sorted(page.throughput.items())):
        out += _curve(
            f"{name}, per s",
            [(second, counter.get(second, 0)) for second in range(int(seconds) + 1)],
            scale, y, COLOURS[index % len(COLOURS)],
        )  # fmt: skip
        y += 60
    for index, (name, spans) in enumerate(sorted(page.spans.items())):
        out += _curve(
            f"{name}, pause ms",
            _longest(spans, int(seconds) + 1),
            scale, y, COLOURS[index % len(COLOURS)],
        )  # fmt: skip
        y += 60
    # Behind all else.
    out[:0] = _grid(seconds, scale, top, y)
    size = f'width="{width:.0f}" height="{y + 20:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{"".join(out)}</svg>'


def _grid(seconds: float, scale: float, top: float, bottom: float) -> list[str]:
    step = next(s for s in (10, 30, 60, 300, 600, 1800, 7200, 10**9) if seconds / s <= 30)
    lines = []
    for tick in range(0, int(seconds) + 1, step):
        x = LEFT + tick * scale
        lines.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="#e4e4e4"/>'
            f'<text x="{x:.1f}" y="{bottom + 12}">{tick:,} s</text>'
        )
    return lines


def _names(bars: Iterable[Bar], scale: float, y: float) -> list[str]:
    """What each bar is called, where there is room for it."""
    names: list[str] = []
    free = 0.0
    for bar in bars:
        x = LEFT + bar.start * scale
        if x >= free:
            names.append(f'<text class="small" x="{x:.1f}" y="{y}">{escape(bar.kind)}</text>')
            free = x + 5.5 * len(bar.kind) + 4
    return names


def _bars(bars: Iterable[Bar], scale: float, y: float, colour: Any) -> list[str]:
    return [
        f'<rect x="{LEFT + bar.start * scale:.1f}" y="{y}"'
        f' width="{max(1.0, (bar.end - bar.start) * scale):.1f}" height="14" fill="{colour(bar)}">'
        f"<title>{escape(bar.text)}</title></rect>"
        for bar in bars
    ]


def _longest(spans: Iterable[tuple[int, int]], seconds: int) -> list[tuple[int, int]]:
    """For each second the longest payment that was under way in it, in milliseconds."""
    longest = [0] * seconds
    for start, end in spans:
        took = (end - start) // 1000
        for second in range(max(0, start // 1_000_000), min(seconds, end // 1_000_000 + 1)):
            longest[second] = max(longest[second], took)
    return list(enumerate(longest))


def _curve(name: str, points: Sequence[tuple[int, int]], scale: float, y: float, colour: str) -> list[str]:
    height = 44
    highest = max((value for _, value in points), default=0) or 1
    # A step for each second; what does not change needs no point of its own.
    steps: list[str] = []
    last: int | None = None
    for second, value in points:
        if value != last:
            at = y + height - value * height / highest
            steps.append(f"H{LEFT + second * scale:.1f}V{at:.1f}")
            last = value
    end = LEFT + len(points) * scale
    line = f"M{LEFT},{y + height:.1f}{''.join(steps)}H{end:.1f}"
    return [
        f'<text x="4" y="{y + 12:.1f}">{escape(name)}</text>',
        f'<text x="4" y="{y + 26:.1f}">0 to {highest:,}</text>',
        f'<path d="{line}V{y + height:.1f}Z" fill="{colour}" fill-opacity="0.12"/>',
        f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="1.2"/>',
    ]


def _details(page: Page) -> str:
    out = ["<h2>What was seen</h2>"]
    for name, face in page.faces.items():
        states = ", ".join(f"{k}: {v}" for k, v in sorted(face.errors_by_sqlstate.items()))
        events = ", ".join(f"{k}: {v}" for k, v in sorted(face.events.items()))
        lines = [f"errors by SQLSTATE: {states}"] if states else []
        lines += [f"events: {events}"] if events else []
        lines += face.error_examples
        lines += face.divergences[:20]
        for kind, examples in face.examples.items():
            lines += [f"{kind}: {text}" for text in examples]
        items = "".join(f"<li>{escape(line[:600])}</li>" for line in lines)
        out.append(f"<details><summary>{escape(name)}</summary><ul>{items}</ul></details>")
    return "".join(out)
