"""One PostgreSQL server: where it is, and its life: started, stopped, killed, paused, resumed.

It knows nothing of other servers. Crash recovery is never helped along: starting after a kill
removes nothing.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

from segue.testing import _processes, _workdir
from segue.testing._binaries import Binaries
from segue.testing._control import Control, Rows, SqlError
from segue.testing._ports import PortLease
from segue.testing._problem import ClusterError
from segue.testing._processes import Owner, Process

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
ORPHAN_TIMEOUT = 3.0
"""How long the backends of a killed postmaster may take to notice before they are killed."""
CONTROL_TIMEOUT = 30.0
ADDRESS = "127.0.0.1"


class Server:
    """One server of a `Cluster`, which makes it. Its number never changes, its role may."""

    __module__ = "segue.testing"

    def __init__(self, number: int, directory: Path, binaries: Binaries, owner: Owner) -> None:
        self.number = number
        self.name = f"s{number}"
        """Also the `application_name` of its replication."""
        self.directory = directory
        """Holds its Unix socket: what `host=` takes."""
        self._binaries = binaries
        self._owner = owner
        self._lease = PortLease()
        self._process: Process | None = None

    def __repr__(self) -> str:
        state = "running" if self.is_running else "down"
        return f"<Server {self.number} on port {self.port}, {state}>"

    @property
    def port(self) -> int:
        """Its port, which stays the same over restarts."""
        return self._lease.port

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """Its log file."""
        return self.directory / "log"

    @property
    def dsn(self) -> str:
        """A keyword string for this server alone, over TCP."""
        return conninfo([self])

    @property
    def uri(self) -> str:
        """A URI for this server alone, over TCP."""
        return uri([self])

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def is_running(self) -> bool:
        """Whether its postmaster runs (a paused one does)."""
        return self.pid is not None

    def sql(self, text: str, *, timeout: float = CONTROL_TIMEOUT) -> Rows:
        """Runs SQL as superuser over the Unix socket; the rows of all statements, as text."""
        with self.control(timeout) as control:
            return control.sql(text)

    def control(self, timeout: float = CONTROL_TIMEOUT) -> Control:
        """A superuser's connection that ends with the timeout."""
        return Control(self.directory, self.port, _workdir.DATABASE, timeout)

    def in_recovery(self) -> bool:
        """Whether it is a standby."""
        return self.sql("SELECT pg_is_in_recovery()") == [("t",)]

    def log_tail(self, lines: int = 40) -> str:
        """The end of its log."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            return ""
        return _processes.last_lines(text, lines)

    def launch(self) -> None:
        """Starts it without waiting for it."""
        if self.is_running:
            raise ClusterError(f"server {self.number} is running already")
        # PostgreSQL refuses to start while backends of a former postmaster hold its shared memory.
        gone = _processes.wait_until(
            lambda: not _processes.standing_in(self.data), timeout=ORPHAN_TIMEOUT
        )
        if not gone:
            _workdir.end_processes(self.data)
        # On the command line, since pg_rewind copies the files of another server.
        settings = {
            "port": self.port,
            "listen_addresses": ADDRESS,
            "unix_socket_directories": self.directory,
            "cluster_name": self.name,
        }
        options = [f"-c{key}={value}" for key, value in settings.items()]
        postgres = self._binaries.path("postgres")
        with self.log.open("ab") as log:
            self._process = self._owner.start(
                postgres, "-D", self.data, *options, output=log, cwd=self.data
            )

    def wait_until_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Waits until a launched server accepts connections (a standby: read-only ones)."""
        deadline = time.monotonic() + timeout
        while not self._says_ready():
            problem = None
            if self._process is None:
                problem = "it was not launched"
            elif self._process.poll() is not None:
                problem = f"it ended ({self._process.returncode})"
            elif time.monotonic() > deadline:
                problem = f"it was not ready after {timeout:g} s"
            if problem is not None:
                raise ClusterError(
                    f"server {self.number} did not start: {problem}; its log ends:\n"
                    f"{self.log_tail(20)}"
                )
            time.sleep(0.005)

    def stop(self, mode: str = "fast", *, timeout: float = STOP_TIMEOUT) -> None:
        """As `pg_ctl stop -m MODE`: smart, fast or immediate. Waits for the end."""
        signals = {
            "smart": signal.SIGTERM,
            "fast": signal.SIGINT,
            "immediate": signal.SIGQUIT,
        }
        if mode not in signals:
            raise ValueError(f"mode must be one of {', '.join(signals)}, not {mode!r}")
        process = self._running()
        _processes.send(process.pid, signals[mode])
        if not _processes.wait_until(lambda: process.poll() is not None, timeout):
            raise ClusterError(f"server {self.number} did not stop within {timeout:g} s")
        self._process = None

    def kill(self, *, leave_backends: bool = False) -> None:
        """SIGKILL to all of its processes, as when its machine loses power.

        With `leave_backends` to the postmaster alone: its backends live on for a moment and, under
        asynchronous replication, acknowledge commits that nobody will see again.
        """
        process = self._running()
        if not leave_backends:
            # Stopped first, so that nobody notices the postmaster's death.
            _processes.signal_all(self.data, signal.SIGSTOP, first=process.pid)
            _processes.signal_all(self.data, signal.SIGKILL, first=process.pid)
        process.kill()
        process.wait()
        self._process = None

    def pause(self) -> None:
        """Stops all of its processes with SIGSTOP: connections stay open, and nobody answers."""
        # The postmaster first, so that no new process appears.
        _processes.signal_all(self.data, signal.SIGSTOP, first=self._running().pid)

    def resume(self) -> None:
        """Lets it go on after `pause`."""
        _processes.signal_all(self.data, signal.SIGCONT, first=self._running().pid)

    def end(self) -> None:
        """Ends it in whatever way works, running or not."""
        if self._process is not None:
            self._process.kill()
        _workdir.end_processes(self.data)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def release(self) -> None:
        """Ends it, and gives its port up."""
        self.end()
        self._lease.release()

    def wait_for(self, condition: str, timeout: float = CONTROL_TIMEOUT) -> None:
        """Asks until a SELECT of one boolean is true; errors on the way are part of the waiting."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                answer = str(self.sql(condition, timeout=max(left, 0.1)))
                if answer == "[('t',)]":
                    return
            except ClusterError as error:
                answer = str(error)
            if left <= 0:
                raise ClusterError(
                    f"not within {timeout:g} s on server {self.number}: {condition} ({answer})"
                )
            time.sleep(0.01)

    def promote(self, timeout: float) -> None:
        """Promotes it and waits until it is writable."""
        deadline = time.monotonic() + timeout
        with self.control(timeout) as control:
            while True:
                try:
                    # Asked for again and again: a single request right after the primary's death
                    # may be swallowed by the walreceiver's restart, and then takes five seconds.
                    control.sql("SELECT pg_promote(false)")
                except SqlError as error:
                    # "recovery is not in progress": an earlier request has succeeded.
                    if error.sqlstate != "55000":
                        raise
                if control.sql("SELECT pg_is_in_recovery()") == [("f",)]:
                    return
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"server {self.number} was not promoted within {timeout:g} s"
                    )
                time.sleep(0.01)

    def _running(self) -> Process:
        if self._process is None or self._process.poll() is not None:
            raise ClusterError(f"server {self.number} is not running")
        return self._process

    def _says_ready(self) -> bool:
        """What pg_ctl reads too: line 1 of postmaster.pid is the process, line 8 its state."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0].strip() == str(self.pid) and lines[7].strip() == "ready"


def conninfo(servers: list[Server], *, unix: bool = False) -> str:
    """A keyword string for several servers, for the application's role."""
    hosts = ",".join(str(server.directory) if unix else ADDRESS for server in servers)
    ports = ",".join(str(server.port) for server in servers)
    return (
        f"host={hosts} port={ports} user={_workdir.USER} dbname={_workdir.DATABASE} sslmode=disable"
    )


def uri(servers: list[Server]) -> str:
    """The same as a URI, over TCP."""
    hosts = ",".join(f"{ADDRESS}:{server.port}" for server in servers)
    return f"postgresql://{_workdir.USER}@{hosts}/{_workdir.DATABASE}?sslmode=disable"
