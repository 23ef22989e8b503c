"""What drivers cost before they do anything: the time of their import, and their installed size.

    target/venv/bin/python python/benchmarks/footprint.py [runs]

Each import is measured in an interpreter of its own, in turn, by `python -X importtime`; a figure
is the median of cumulative times. The first run of each, which may compile, does not count.
A size is that of all files of the distributions that make the driver work, without caches.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

DRIVERS = {
    "segue": ["segue"],
    "segue.aio": ["segue"],
    "psycopg": ["psycopg", "psycopg-binary", "typing-extensions"],
    "asyncpg": ["asyncpg"],
}


def import_us(module: str) -> tuple[int, int]:
    """Measure the import of a module: its time, and how many modules it brought."""
    done = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", "-c", f"import {module}"],
        check=True,
        capture_output=True,
        text=True,
    )
    total = count = 0
    within = False
    for line in done.stderr.splitlines():
        _, _, rest = line.partition("import time:")
        parts = rest.split("|")
        if len(parts) != 3 or not parts[1].strip().isdigit():
            continue
        name = parts[2].rstrip("\n")
        # What the interpreter imports for itself ends with `site`.
        if name.strip() == "site":
            within, count = True, 0
            continue
        if within:
            count += 1
            if len(name) - len(name.lstrip()) == 1:
                total += int(parts[1])
    return total, count


def installed_bytes(distribution: str) -> int:
    """Give the size of all files of a distribution."""
    files = metadata.files(distribution) or []
    paths = (Path(str(file.locate())) for file in files if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    """Measure, and print a table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    seen: dict[str, list[tuple[int, int]]] = {name: [] for name in DRIVERS}
    for run in range(runs + 1):
        for name in DRIVERS:
            figures = import_us(name)
            if run:
                seen[name].append(figures)
    print("| | import, ms | modules | installed, MB |")
    print("| --- | --- | --- | --- |")
    for name, distributions in DRIVERS.items():
        ms = statistics.median(us for us, _ in seen[name]) / 1000
        size = sum(map(installed_bytes, distributions)) / 1e6
        print(f"| {name} | {ms:.1f} | {seen[name][0][1]} | {size:.1f} |")


if __name__ == "__main__":
    main()
