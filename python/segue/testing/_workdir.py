"""Directories: those of clusters, removed with them, and the template that servers are copied from.

A cluster's directory carries the process that made it (id and start time) in its name, so that it
is only ever taken for a leftover when that very process is gone. initdb takes most of a second, a
copy a tenth of it; so there is a template for each user, installation and day.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from segue.testing import _processes
from segue.testing._binaries import Binaries
from segue.testing._problem import ClusterError
from segue.testing._processes import Owner

USER = "app"
DATABASE = "app"

PREFIX = "segue-cluster-"
TEMPLATE_PREFIX = "segue-pytemplate-"
FORMAT = 1
"""Raised whenever what is in a template changes."""
SOCKET_PATH_MAX = 107
"""What a Unix socket's path may measure, without its closing zero."""
SECONDS_A_DAY = 86_400
MEMORY = Path("/dev/shm")
MEMORY_MIN = 2 << 30
"""So much has to be free in memory for data to go there; a container's 64 MiB will not do."""

_numbers = itertools.count()


def make(owner: Owner) -> Path:
    """A fresh directory for one cluster; what dead processes have left behind goes away."""
    top = base(owner)
    number = next(_numbers)
    if number == 0:
        for place in _bases():
            _sweep(place)
    pid = os.getpid()
    path = top / f"{PREFIX}{pid}-{_processes.start_time(pid) or 0}-{number}"
    owner.make_directory(path)
    return path


def base(owner: Owner, *, for_programs: bool = False) -> Path:
    """Where directories are made: TMPDIR where that is set, else in memory, else in /tmp.

    In memory because copying a thousand small files takes a loaded disk seconds; not for programs,
    which may be forbidden to run there.
    """
    longest = f"/{PREFIX}4194304-18446744073709551615-999/s99/.s.PGSQL.65535"
    for path in _bases():
        if path == MEMORY and (for_programs or _free(path) < MEMORY_MIN):
            continue
        if len(str(path)) + len(longest) <= SOCKET_PATH_MAX and reachable(path, owner):
            return path
    raise ClusterError(
        "no temporary directory that the servers' user can reach: neither TMPDIR nor /tmp"
    )


def _bases() -> list[Path]:
    own = os.environ.get("TMPDIR")
    return ([Path(own).resolve()] if own else []) + [MEMORY, Path("/tmp").resolve()]


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def reachable(path: Path, owner: Owner) -> bool:
    """Whether the owner may enter it and all that it stands in."""
    try:
        stats = [place.stat() for place in (path, *path.parents)]
    except OSError:
        return False
    return all(s.st_mode & (0o100 if s.st_uid == owner.uid else 0o001) for s in stats)


def remove(path: Path) -> None:
    """Ends all servers below and removes the directory."""
    for data in path.glob("*/data"):
        end_processes(data)
    shutil.rmtree(path, ignore_errors=True)


def end_processes(data: Path) -> None:
    """Kills whatever stands in a data directory, and frees the shared memory that it leaves."""
    _processes.signal_all(data, signal.SIGKILL)
    _processes.wait_until(lambda: not _processes.standing_in(data), timeout=5)
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return
    # Line 7: key and id of the System V segment.
    segment = lines[6].split()[1] if len(lines) > 6 and " " in lines[6].strip() else ""
    if segment.isdigit() and (ipcrm := shutil.which("ipcrm")):
        subprocess.run([ipcrm, "-m", segment], capture_output=True)


def template(binaries: Binaries, owner: Owner) -> Path:
    """An initialised data directory; never to be started, only to be copied."""
    top = base(owner)
    installation = f"{binaries.directory} {binaries.version}".encode()
    key = hashlib.sha256(installation).hexdigest()[:16]
    day = int(time.time()) // SECONDS_A_DAY
    path = top / f"{TEMPLATE_PREFIX}{owner.uid}-{FORMAT}-{key}-{day}"
    if _is_owners(path, owner):
        return path
    # Made under another name and then renamed, so that nobody copies a half-made one.
    draft = top / f"{TEMPLATE_PREFIX}{owner.uid}-draft-{secrets.token_hex(8)}"
    try:
        _initialise(binaries, owner, draft)
        draft.rename(path)
    except OSError:
        # Somebody else may have been faster; theirs is as good.
        if not _is_owners(path, owner):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return path


def copy(owner: Owner, source: Path, target: Path) -> None:
    """Copies a data directory whose server is down."""
    owner.run("cp", "-a", "--reflink=auto", source, target)


def usable_by(owner: Owner, binaries: Binaries) -> Binaries:
    """The same programs, in a place where the owner can execute them.

    A wheel in root's home is closed to everybody else; it is copied, once a day.
    """
    if not owner.steps_down or reachable(binaries.directory, owner):
        return binaries
    key = hashlib.sha256(f"{binaries.root} {binaries.version}".encode()).hexdigest()[:16]
    day = int(time.time()) // SECONDS_A_DAY
    top = base(owner, for_programs=True)
    path = top / f"{TEMPLATE_PREFIX}{owner.uid}-programs-{key}-{day}"
    moved = path / "wheel" / binaries.root.name
    if not _is_owners(path, owner):
        draft = path.with_name(f"{TEMPLATE_PREFIX}{owner.uid}-draft-{secrets.token_hex(8)}")
        try:
            draft.mkdir(mode=0o700)
            shutil.copytree(binaries.root, draft / "wheel" / binaries.root.name, symlinks=True)
            if binaries.libraries is not None and binaries.libraries.is_dir():
                # Where the programs' $ORIGIN/../../../<name>.libs leads.
                shutil.copytree(binaries.libraries, draft / binaries.libraries.name)
            owner.hand_over(draft, 0o700)
            for place in draft.rglob("*"):
                if not place.is_symlink():
                    owner.hand_over(
                        place, 0o700 if place.is_dir() else place.stat().st_mode & 0o755
                    )
            draft.rename(path)
        except OSError:
            if not _is_owners(path, owner):
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return Binaries(
        moved / binaries.directory.relative_to(binaries.root),
        binaries.version,
        binaries.major,
        moved,
        None,
    )


def _is_owners(path: Path, owner: Owner) -> bool:
    """A directory of that name that somebody else made in a shared /tmp is not to be trusted."""
    try:
        stat = path.lstat()
    except OSError:
        return False
    return path.is_dir() and stat.st_uid == owner.uid and not stat.st_mode & 0o077


def _initialise(binaries: Binaries, owner: Owner, data: Path) -> None:
    owner.make_directory(data)
    owner.run(
        binaries.path("initdb"),
        *("--no-sync", "--no-instructions", "-A", "trust", "-E", "UTF8", "-U", "postgres"),
        # Small segments make promotion quicker.
        *("--locale=C.UTF-8", "--wal-segsize=1"),
        *("-D", data),
    )
    _single_user(
        binaries,
        owner,
        data,
        "postgres",
        f"CREATE ROLE {USER} LOGIN",
        "CREATE ROLE repl LOGIN REPLICATION",
        f"CREATE DATABASE {DATABASE} OWNER {USER}",
    )
    grant = f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer) TO {USER}"
    _single_user(binaries, owner, data, DATABASE, grant)


def _single_user(
    binaries: Binaries, owner: Owner, data: Path, database: str, *statements: str
) -> None:
    """Runs statements without a server, one a line; an ERROR in its output is what tells."""
    with tempfile.TemporaryFile() as script:
        script.write("\n".join((*statements, "")).encode())
        script.seek(0)
        postgres = binaries.path("postgres")
        said = owner.run(postgres, "--single", "-F", "-D", data, database, stdin=script)
    if "ERROR:" in said:
        raise ClusterError(f"the template database could not be prepared:\n{said}")


def _sweep(top: Path) -> None:
    """Removes directories of processes that are gone, and templates of days past."""
    for path in _own_directories(top):
        name = path.name
        try:
            old = time.time() - path.lstat().st_mtime > 2 * SECONDS_A_DAY
        except OSError:
            continue
        if name.startswith(TEMPLATE_PREFIX):
            if old:
                shutil.rmtree(path, ignore_errors=True)
        elif _maker_is_gone(name.removeprefix(PREFIX)):
            remove(path)


def _own_directories(top: Path) -> Iterator[Path]:
    for prefix in (PREFIX, TEMPLATE_PREFIX):
        for path in top.glob(f"{prefix}*"):
            # Not following links: what carries our name may be somebody else's trap.
            if path.is_dir() and not path.is_symlink():
                yield path


def _maker_is_gone(rest: str) -> bool:
    """`rest` is PID-START-NUMBER."""
    parts = rest.split("-")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        return False
    return _processes.start_time(int(parts[0])) != int(parts[1])
