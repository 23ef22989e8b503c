"""A primary and its hot standbys: how they are set up, found by an application, and change roles.

Only a primary that has standbys waits for them: one that was promoted because the other is gone
does not, until the other has come back. The superuser comes in over the Unix socket only, in a
directory that nobody else may enter: an open superuser on loopback would be a door for every user
of the machine.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Concatenate, Literal, ParamSpec, TypeVar

from segue.testing import _binaries, _server, _workdir
from segue.testing._control import Rows
from segue.testing._problem import ClusterError
from segue.testing._processes import Owner
from segue.testing._server import Server

Replication = Literal["sync", "async", "remote_apply"]

ATTACH_TIMEOUT = 30.0
REPLICATION_MODES = ("sync", "async", "remote_apply")

SETTINGS = {
    # A process that is killed loses nothing without it; a machine without power would.
    "fsync": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "wal_keep_size": "128MB",
    "checkpoint_timeout": "30min",
    # pg_rewind needs it.
    "wal_log_hints": "on",
    # How long a standby rests between attempts to reach its primary.
    "wal_retrieve_retry_interval": "100ms",
    "wal_receiver_status_interval": "1s",
    # In the data directory, so that a killed server leaves nothing in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
    "log_line_prefix": "%m [%p] %q%a ",
    "log_timezone": "UTC",
    "timezone": "UTC",
}

HBA = """\
local all postgres trust
local replication all trust
host replication all all reject
host all postgres all reject
host all repl all reject
local all all trust
host all all all trust
"""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _one_at_a_time(
    method: Callable[Concatenate[Cluster, _P], _R],
) -> Callable[Concatenate[Cluster, _P], _R]:
    """Roles change in one thread at a time; tests like to kill from a thread of their own."""

    @functools.wraps(method)
    def locked(self: Cluster, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self._lock:
            self._check_open()
            return method(self, *args, **kwargs)

    return locked


class Cluster:
    """A real primary and its hot standbys, running until `close()`, or until this process ends.

        with segue.testing.Cluster() as cluster:
            conn = segue.connect(cluster.uri)
            cluster.failover()

    `standbys`: how many. `replication`: "sync" (a commit waits until one standby has it; while all
    standbys are down it waits for ever, as PostgreSQL does), "remote_apply" (until one standby
    shows it to readers) or "async". `settings`: of postgresql.conf, for all servers.
    `hba`: lines of pg_hba.conf that are looked at before the cluster's own.

    Servers are numbered from 0, the first primary. The application's role is `app`, which owns
    the database `app` and needs no password.
    """

    __module__ = "segue.testing"

    def __init__(
        self,
        standbys: int = 1,
        *,
        replication: Replication = "sync",
        settings: Mapping[str, object] | None = None,
        hba: str = "",
    ) -> None:
        if standbys < 0:
            raise ValueError("standbys must not be negative")
        if replication not in REPLICATION_MODES:
            raise ValueError(f"replication must be one of {', '.join(REPLICATION_MODES)}")
        self._lock = threading.RLock()
        self._replication = replication
        self._settings = SETTINGS | {key: str(value) for key, value in (settings or {}).items()}
        if replication == "remote_apply":
            self._settings.setdefault("synchronous_commit", "remote_apply")
        self._hba = hba.rstrip() + "\n" + HBA
        self._owner = Owner.find()
        self._binaries = _workdir.usable_by(self._owner, _binaries.find())
        self.directory: Path = _workdir.make(self._owner)
        """Holds all data and logs; goes away with the cluster."""
        self.servers: list[Server] = []
        self._primary = 0
        # Not through self, which could then never be collected.
        self._end = weakref.finalize(self, _end, os.getpid(), self.directory, self.servers)
        try:
            self._start(1 + standbys)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._end.alive else " (closed)"
        return f"<Cluster of {len(self.servers)}, primary {self._primary}{state}>"

    def close(self) -> None:
        """Kills all servers and removes their directory. Closing twice does nothing."""
        with self._lock:
            self._end()

    # Where it is.

    @property
    def version(self) -> int:
        """PostgreSQL's major version."""
        return self._binaries.major

    @property
    def primary(self) -> Server:
        """The first primary, or whom a promotion has made it since; running or not."""
        return self.servers[self._primary]

    @property
    def standbys(self) -> list[Server]:
        """All others, running or not."""
        return [server for server in self.servers if server.number != self._primary]

    @property
    def uri(self) -> str:
        """A URI with all servers, over TCP."""
        return _server.uri(self.servers)

    @property
    def dsn(self) -> str:
        """A keyword string with all servers, over TCP."""
        return _server.conninfo(self.servers)

    @property
    def dsn_unix(self) -> str:
        """A keyword string with all servers, over Unix sockets."""
        return _server.conninfo(self.servers, unix=True)

    @property
    def dsn_superuser(self) -> str:
        """As `dsn_unix`, for the superuser."""
        return self.dsn_unix.replace(f" user={_workdir.USER} ", " user=postgres ")

    def sql(self, server: int | Server, text: str) -> Rows:
        """Runs SQL as superuser, over the Unix socket; the rows of all statements, as text."""
        self._check_open()
        return self._at(server).sql(text)

    def logs(self, lines: int = 40) -> str:
        """The end of every server's log."""
        return "\n".join(f"--- server {s.number}\n{s.log_tail(lines)}" for s in self.servers)

    # What happens to it.

    @_one_at_a_time
    def kill(self, server: int | Server, *, leave_backends: bool = False) -> None:
        """SIGKILL to all processes of a server, as when its machine loses power.

        With `leave_backends` to the postmaster alone, as when the kernel is out of memory: its
        backends live on for a moment, and under asynchronous replication acknowledge commits that
        nobody will see again.
        """
        self._at(server).kill(leave_backends=leave_backends)

    def kill_primary(self, *, leave_backends: bool = False) -> Server:
        """As `kill`. Returns the server that was killed; nobody is promoted."""
        primary = self.primary
        self.kill(primary, leave_backends=leave_backends)
        return primary

    @_one_at_a_time
    def stop(self, server: int | Server, mode: str = "fast") -> None:
        """As `pg_ctl stop -m MODE`: smart, fast or immediate. Waits for the end."""
        self._at(server).stop(mode)

    @_one_at_a_time
    def start(self, server: int | Server, *, as_it_was: bool = False) -> None:
        """Starts a server that is down; waits until it is ready, and a standby until it streams.

        A former primary comes back as a standby of the present one (by pg_rewind, or by a new base
        backup where that fails); `as_it_was`: as the primary that it was, which is then a second
        one.
        """
        server = self._at(server)
        if as_it_was or server is self.primary:
            server.launch()
            server.wait_until_ready()
        else:
            self._rejoin(server)

    @_one_at_a_time
    def pause(self, server: int | Server) -> None:
        """SIGSTOP to all processes of a server: connections stay open, and nobody answers."""
        self._at(server).pause()

    @_one_at_a_time
    def resume(self, server: int | Server) -> None:
        """Lets a server go on after `pause`."""
        self._at(server).resume()

    @contextlib.contextmanager
    def paused(self, server: int | Server) -> Iterator[Server]:
        """Pauses a server for the time of a `with` block."""
        paused = self._at(server)
        self.pause(paused)
        try:
            yield paused
        finally:
            if paused.is_running:
                self.resume(paused)

    @_one_at_a_time
    def promote(self, server: int | Server | None = None, *, timeout: float = 30) -> Server:
        """Makes a standby the primary (by default the one that has received most).

        The other running standbys follow it. The old primary is left as it is: if it runs, there
        are two.
        """
        chosen = self._most_advanced() if server is None else self._at(server)
        if chosen is self.primary:
            raise ClusterError(f"server {chosen.number} is the primary already")
        old = self.primary
        chosen.promote(timeout)
        self._primary = chosen.number
        followers = [s for s in self.standbys if s is not old and s.is_running]
        for follower in followers:
            self._follow(follower)
        if followers:
            self._wait_for_standbys_from_now_on(followers)
        return chosen

    @_one_at_a_time
    def failover(self, *, timeout: float = 30) -> Server:
        """Kills the primary and promotes a standby. Returns the new primary."""
        if self.primary.is_running:
            self._most_advanced()
            self.primary.kill()
        return self.promote(timeout=timeout)

    @_one_at_a_time
    def switchover(self, to: int | Server | None = None, *, timeout: float = 30) -> Server:
        """Moves the primary on purpose: stops it, promotes a standby, brings it back as a standby.

        No commit is lost, whatever the replication. Returns the new primary.
        """
        old = self.primary
        self.wait_for_standbys(timeout=timeout)
        chosen = self._most_advanced() if to is None else self._at(to)
        # A fast stop sends all there is to the standbys before it ends.
        old.stop("fast", timeout=timeout)
        self.promote(chosen, timeout=timeout)
        self._rejoin(old)
        return chosen

    def wait_for_standbys(self, *, timeout: float = ATTACH_TIMEOUT) -> None:
        """Waits until all running standbys stream, and have replayed what the primary has now."""
        self._check_open()
        names = [s.name for s in self.standbys if s.is_running]
        if not names:
            return
        [(lsn,)] = self.primary.sql("SELECT pg_current_wal_insert_lsn()")
        listed = ", ".join(f"'{name}'" for name in names)
        self.primary.wait_for(
            f"SELECT count(*) = {len(names)} FROM pg_stat_replication WHERE state = 'streaming' "
            f"AND application_name IN ({listed}) AND replay_lsn >= '{lsn}'",
            timeout,
        )

    # How it is done.

    def _start(self, count: int) -> None:
        for number in range(count):
            directory = self.directory / f"s{number}"
            self._owner.make_directory(directory)
            self.servers.append(Server(number, directory, self._binaries, self._owner))
        first = self.primary.data
        _workdir.copy(self._owner, _workdir.template(self._binaries, self._owner), first)
        with (first / "postgresql.conf").open("a") as conf:
            for key, value in self._settings.items():
                conf.write(f"{key} = {_quoted(value)}\n")
        self._owner.write(first / "pg_hba.conf", self._hba)
        # A standby is a copy of the primary before its first start: the same system identifier and
        # timeline, and nothing to catch up with.
        for standby in self.standbys:
            _workdir.copy(self._owner, first, standby.data)
            self._make_standby(standby)
        if self.standbys and self._replication != "async":
            line = f"synchronous_standby_names = {_quoted(_any_of(self.standbys))}\n"
            self._owner.write(first / "postgresql.auto.conf", line)
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait_until_ready()
        self.wait_for_standbys()

    def _make_standby(self, server: Server) -> None:
        """Writes what makes a stopped server a standby of the primary."""
        line = f"primary_conninfo = {_quoted(self._conninfo_for(server))}\n"
        self._owner.write(server.data / "postgresql.auto.conf", line)
        self._owner.write(server.data / "standby.signal", "")

    def _conninfo_for(self, standby: Server) -> str:
        primary = self.primary
        place = f"host={primary.directory} port={primary.port}"
        return f"{place} user=repl application_name={standby.name}"

    def _follow(self, server: Server) -> None:
        """Lets a running standby follow the primary of now."""
        setting = _quoted(self._conninfo_for(server))
        server.sql(f"ALTER SYSTEM SET primary_conninfo = {setting}")
        server.sql("SELECT pg_reload_conf()")
        self._wait_until_attached(server)

    def _rejoin(self, server: Server) -> None:
        if server.is_running:
            raise ClusterError(f"server {server.number} is running already")
        primary = self.primary
        was_standby = (server.data / "standby.signal").exists()
        if not was_standby:
            # pg_rewind reads the timeline from the control file, which a promotion updates only
            # with its first checkpoint.
            primary.sql("CHECKPOINT")
            self._rewind(server)
        self._make_standby(server)
        server.launch()
        server.wait_until_ready()
        self._wait_until_attached(server)
        self._wait_for_standbys_from_now_on([s for s in self.standbys if s.is_running])

    def _rewind(self, server: Server) -> None:
        # The backends that a killed postmaster leaves behind, and pg_rewind's own start of the
        # server in single-user mode, must not meet.
        _workdir.end_processes(server.data)
        primary = self.primary
        source = f"host={primary.directory} port={primary.port} user=postgres dbname=postgres"
        try:
            self._owner.run(
                self._binaries.path("pg_rewind"),
                *("--no-sync", "--target-pgdata", server.data, "--source-server", source),
                cwd=server.data,
            )
        except ClusterError:
            shutil.rmtree(server.data)
            self._owner.run(
                self._binaries.path("pg_basebackup"),
                *("--no-sync", "--checkpoint=fast", "--wal-method=stream", "--no-slot"),
                *("-D", server.data, "-d", self._conninfo_for(server)),
            )

    def _wait_until_attached(self, server: Server) -> None:
        self.primary.wait_for(
            "SELECT count(*) = 1 FROM pg_stat_replication "
            f"WHERE application_name = '{server.name}' AND state = 'streaming'",
            ATTACH_TIMEOUT,
        )

    def _wait_for_standbys_from_now_on(self, standbys: list[Server]) -> None:
        """Makes a promoted primary wait for those that follow it, as the first one did."""
        if self._replication == "async":
            return
        names = _quoted(_any_of(standbys))
        self.primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = {names}")
        self.primary.sql("SELECT pg_reload_conf()")
        self.primary.wait_for(
            "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state IN ('quorum', 'sync')",
            ATTACH_TIMEOUT,
        )

    def _most_advanced(self) -> Server:
        running = [standby for standby in self.standbys if standby.is_running]
        if not running:
            raise ClusterError("the cluster has no running standby")
        if len(running) == 1:
            return running[0]
        # After a restart nothing counts as received until it streams again.
        received = (
            "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), '0/0') - '0/0'"
        )
        return max(running, key=lambda s: int(s.sql(received)[0][0] or 0))

    def _at(self, server: int | Server) -> Server:
        if isinstance(server, Server):
            return server
        if not 0 <= server < len(self.servers):
            raise ClusterError(f"there is no server {server}; there are {len(self.servers)}")
        return self.servers[server]

    def _check_open(self) -> None:
        if not self._end.alive:
            raise ClusterError("the cluster is closed")


def _end(pid: int, directory: Path, servers: list[Server]) -> None:
    # After a fork the cluster is still the parent's.
    if os.getpid() != pid:
        return
    for server in servers:
        server.release()
    _workdir.remove(directory)


def _any_of(standbys: list[Server]) -> str:
    return f"ANY 1 ({', '.join(standby.name for standby in standbys)})"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
