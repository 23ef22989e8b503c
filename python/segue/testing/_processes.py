"""Processes of servers: who owns them, starting them so that they die with us, signalling them.

PostgreSQL's children call setsid(), and after the postmaster's death they belong to init, so
neither process group nor parent finds them all. Their working directory does: every process of a
server stands in its data directory.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pwd
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from segue.testing._problem import ClusterError

Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Owner:
    """The user that the servers run as: PostgreSQL refuses to run as root."""

    uid: int
    gid: int
    steps_down: bool

    @staticmethod
    @functools.cache
    def find() -> Owner:
        """`postgres` (or else `nobody`) when this process is root, and oneself otherwise."""
        if os.geteuid() != 0:
            return Owner(os.geteuid(), os.getegid(), steps_down=False)
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return Owner(entry.pw_uid, entry.pw_gid, steps_down=True)
        raise ClusterError(
            "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor "
            "`nobody` to run it as; create one of them, or run as an ordinary user"
        )

    def hand_over(self, path: Path, mode: int) -> None:
        """Gives a file or directory to the owner, and to nobody else."""
        path.chmod(mode)
        if self.steps_down:
            os.chown(path, self.uid, self.gid)

    def make_directory(self, path: Path) -> None:
        """Makes a directory that only the owner may enter."""
        path.mkdir(mode=0o700)
        self.hand_over(path, 0o700)

    def write(self, path: Path, text: str) -> None:
        """Writes a file that only the owner may read."""
        path.write_text(text)
        self.hand_over(path, 0o600)

    def run(
        self, *argv: str | Path, stdin: IO[bytes] | None = None, cwd: Path | None = None
    ) -> str:
        """Runs a program to its end and returns all that it said; ClusterError when it fails."""
        done = subprocess.run(
            self._command(argv),
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            cwd=cwd or "/",
            **self._identity(),
        )
        said: str = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            name = Path(argv[0]).name
            raise ClusterError(f"{name} failed ({done.returncode}):\n{last_lines(said, 20)}")
        return said

    def start(self, *argv: str | Path, output: IO[bytes], cwd: Path) -> Process:
        """Starts a program that the kernel kills when this process dies, however it dies."""

        def spawn() -> Process:
            return subprocess.Popen(
                self._command(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(),
                cwd=cwd,
                # Ctrl-C in a terminal is for the tests, not for the servers under them.
                start_new_session=True,
                **self._identity(),
            )

        return _Nursery.of_this_process().run(spawn)

    def _command(self, argv: tuple[str | Path, ...]) -> list[str]:
        setpriv = _setpriv()
        if setpriv is None:
            return [str(argument) for argument in argv]
        prefix = [setpriv, "--pdeathsig", "KILL"]
        if self.steps_down:
            prefix += ["--reuid", str(self.uid), "--regid", str(self.gid), "--clear-groups"]
        return prefix + [str(argument) for argument in argv]

    def _identity(self) -> dict[str, Any]:
        if _setpriv() is not None:
            return {}
        identity: dict[str, Any] = {"preexec_fn": _die_with_parent()}
        if self.steps_down:
            identity |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return identity


@functools.cache
def _setpriv() -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/bin", "/bin"])
    return shutil.which("setpriv", path=path)


def _die_with_parent() -> Callable[[], object] | None:
    """What setpriv does, for systems without it. Looked up here: a forked child may not import."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _environment() -> dict[str, str]:
    """Without the PG* variables of the caller, which are meant for other servers."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return kept | {"LC_ALL": "C"}


class _Nursery:
    """A thread that lives as long as this process: the kernel's parent-death signal is bound to
    the thread that forked, and a test's own thread may end early.
    """

    _lock = threading.Lock()
    _one: _Nursery | None = None

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="segue-nursery", daemon=True).start()

    @classmethod
    def of_this_process(cls) -> _Nursery:
        with cls._lock:
            if cls._one is None or cls._one._pid != os.getpid():
                cls._one = cls()
            return cls._one

    def run(self, spawn: Callable[[], Process]) -> Process:
        answer: queue.SimpleQueue[Process | Exception] = queue.SimpleQueue()

        def order() -> None:
            try:
                answer.put(spawn())
            except Exception as error:
                answer.put(error)

        self._orders.put(order)
        result = answer.get()
        if isinstance(result, Exception):
            raise ClusterError(f"a server could not be started: {result}") from result
        return result

    def _work(self) -> None:
        while True:
            self._orders.get()()


def standing_in(directory: Path) -> list[int]:
    """All processes whose working directory it is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == directory and _field(int(entry.name), 0) != "Z":
                found.append(int(entry.name))
        except OSError:
            # It has ended, or is none of ours.
            continue
    return found


def signal_all(directory: Path, number: signal.Signals, first: int | None = None) -> None:
    """Signals every process that stands in the directory until no new one turns up."""
    done = set()
    if first is not None:
        send(first, number)
        done.add(first)
    while fresh := set(standing_in(directory)) - done:
        for pid in fresh:
            send(pid, number)
        done |= fresh


def send(pid: int, number: signal.Signals) -> None:
    """Signals one process; one that is gone already is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_until(question: Callable[[], bool], timeout: float, pause: float = 0.005) -> bool:
    """Asks again and again until the answer is yes, or the time is up."""
    deadline = time.monotonic() + timeout
    while not question():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def start_time(pid: int) -> int | None:
    """In clock ticks since boot: with its id this names a process for good."""
    field = _field(pid, 19)
    return int(field) if field is not None else None


def _field(pid: int, index: int) -> str | None:
    """A field of /proc/PID/stat, counted from the one behind the command's closing bracket."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[index]


def last_lines(text: str, count: int) -> str:
    """The end of a text."""
    return "\n".join(text.rstrip().splitlines()[-count:])
