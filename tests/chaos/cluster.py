"""Three nodes of Patroni, one etcd, HAProxy: each in a network of its own, its disk a small tmpfs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import network, sandbox

ETCD = "10.99.0.2"
HAPROXY_PORT = 5000
DISK_BYTES = 1 << 30


@dataclass(frozen=True)
class Settings:
    """What distinguishes one cluster from another."""

    synchronous: bool
    ttl: int = 8
    loop_wait: int = 1
    retry_timeout: int = 3


def postgres_bin() -> Path:
    """The directory of the newest server that is installed, or that of SEGUE_PG_BIN."""
    named = os.environ.get("SEGUE_PG_BIN")
    if named:
        return Path(named)
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if not found:
        raise RuntimeError("no PostgreSQL server in /usr/lib/postgresql; run make setup")
    return max(found, key=lambda path: float(path.parent.name))


@dataclass
class Node:
    """A machine: Patroni and the PostgreSQL that it keeps."""

    name: str
    address: str
    disk: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    init: int | None = None
    stopped: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Switches the machine on."""
        # Process 1 is a shell that starts Patroni again, as systemd would: PostgreSQL outlives it.
        loop = 'while :; do "$@"; sleep 3; done'
        command = ["sh", "-c", loop, "sh", "/usr/bin/patroni", str(self.disk / "patroni.json")]
        self.process = sandbox.spawn(command, self.log, network=self.name, own_processes=True)
        deadline = time.monotonic() + 10
        while (init := sandbox.init_of(self.process)) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start; see {self.log}")
            time.sleep(0.01)
        self.init = init

    def kill(self) -> None:
        """Pulls the plug: every process of the machine ends in the same moment."""
        if self.init is not None:
            sandbox.kill(self.init, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        self.init = None
        self.stopped.clear()

    def processes(self) -> dict[int, str]:
        """What runs on it, with command lines."""
        return {} if self.init is None else sandbox.processes_of(self.init)

    def postmaster(self) -> int | None:
        """The postmaster's pid, if there is one."""
        for pid, command in self.processes().items():
            if "/bin/postgres -D" in command:
                return pid
        return None

    def postgres_processes(self) -> list[int]:
        """The postmaster and all its children."""
        return [
            pid
            for pid, command in self.processes().items()
            if command.startswith("postgres: ") or "/bin/postgres -D" in command
        ]

    def backends(self) -> list[int]:
        """The server processes of clients."""
        return [
            pid
            for pid, command in self.processes().items()
            if command.startswith("postgres: ") and f" {network.CLIENTS}(" in command
        ]

    def patroni_processes(self) -> list[int]:
        """Patroni without PostgreSQL."""
        found = self.processes().items()
        return [pid for pid, command in found if "python3 /usr/bin/patroni" in command]

    def freeze(self, pids: list[int]) -> None:
        """SIGSTOP, until `thaw`."""
        for pid in pids:
            if sandbox.kill(pid, signal.SIGSTOP):
                self.stopped.append(pid)

    def thaw(self) -> None:
        """SIGCONT for all that was frozen."""
        for pid in self.stopped:
            sandbox.kill(pid, signal.SIGCONT)
        self.stopped.clear()

    def fill_disk(self) -> None:
        """Takes all that is left on its disk."""
        usage = os.statvfs(self.disk)
        path = self.disk / "filler"
        with path.open("wb") as file:
            left = usage.f_bavail * usage.f_frsize
            while left > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, left)
                    break
                except OSError:
                    left -= 1 << 16  # Somebody else has taken a piece meanwhile.

    def free_disk(self) -> None:
        """Gives it back."""
        (self.disk / "filler").unlink(missing_ok=True)


class Cluster:
    """The machines and what is asked of them. Everything dies with the sandbox."""

    def __init__(self, base: Path, logs: Path, settings: Settings) -> None:
        self.base = base
        self.logs = logs
        self.settings = settings
        self.bin = postgres_bin()
        self.etcd: subprocess.Popen[bytes] | None = None
        self.haproxy: subprocess.Popen[bytes] | None = None
        self.nodes = [Node(f"n{i}", f"10.99.0.1{i}", base / f"n{i}", logs / f"n{i}.log") for i in (1, 2, 3)]

    def start(self) -> None:
        """Builds the network, bootstraps the cluster, and waits until all three are in place."""
        uid, gid = sandbox.user_ids()
        network.make_bridge()
        network.add_machine("dcs", ETCD)
        etcd_disk = self.base / "etcd"
        etcd_disk.mkdir()
        os.chown(etcd_disk, uid, gid)
        self.start_etcd()
        for node in self.nodes:
            network.add_machine(node.name, node.address)
            node.disk.mkdir()
            options = f"size={DISK_BYTES},mode=0700,uid={uid},gid={gid}"
            network.run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(node.disk))
            config = node.disk / "patroni.json"
            config.write_text(json.dumps(self._patroni(node), indent=1))
            config.chmod(0o644)
            node.start()
        self.wait_until_healed(120)
        self._start_haproxy()

    def start_etcd(self) -> None:
        """Starts etcd, with what it has kept."""
        here = f"http://{ETCD}:2379"
        peer = f"http://{ETCD}:2380"
        command = [
            "etcd", "--name", "dcs", "--data-dir", str(self.base / "etcd/data"),
            "--listen-client-urls", here, "--advertise-client-urls", here,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"dcs={peer}", "--log-level", "warn",
            "--enable-v2=true", "--snapshot-count", "10000",
        ]  # fmt: skip
        self.etcd = sandbox.spawn(command, self.logs / "etcd.log", network="dcs")

    def kill_etcd(self) -> None:
        """SIGKILL."""
        if self.etcd is not None:
            sandbox.kill(self.etcd.pid, signal.SIGKILL)
            self.etcd.wait()

    def members(self, timeout: float = 1.0) -> list[dict[str, Any]]:
        """What Patroni says of its members; from the first node that answers."""
        for node in self.nodes:
            answer = rest(node.address, "/cluster", timeout=timeout)
            if answer is not None:
                members = answer.get("members", [])
                if members:
                    return list(members)
        return []

    def primary(self) -> Node | None:
        """The node that Patroni calls the leader."""
        for member in self.members():
            if member.get("role") in ("leader", "master") and member.get("state") == "running":
                return self.node(member["name"])
        return None

    def node(self, name: str) -> Node:
        """By name."""
        return next(node for node in self.nodes if node.name == name)

    def trouble(self) -> str | None:
        """What keeps the cluster from being called whole; None if it is."""
        members = self.members()
        leaders = [m for m in members if m.get("role") in ("leader", "master")]
        if len(members) != 3:
            return f"{len(members)} of 3 members"
        if len(leaders) != 1 or leaders[0].get("state") != "running":
            return "no running leader"
        timeline = leaders[0].get("timeline")
        for member in members:
            name = member["name"]
            if member.get("state") not in ("running", "streaming"):
                return f"{name} is {member.get('state')}"
            if member.get("timeline") != timeline:
                return f"{name} is on timeline {member.get('timeline')}, the leader on {timeline}"
            if member is not leaders[0] and member.get("lag") not in (0, None):
                return f"{name} lags by {member.get('lag')} bytes"
        roles = {member.get("role") for member in members}
        if self.settings.synchronous and "sync_standby" not in roles:
            return "no synchronous standby"
        answer = self.query("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
        if answer != "2":
            return f"{answer} standbys stream"
        return None

    def wait_until_healed(self, timeout: float) -> None:
        """Waits until the cluster is whole; raises with the reason if it does not become so."""
        deadline = time.monotonic() + timeout
        while (trouble := self.trouble()) is not None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the cluster is not whole after {timeout:.0f} s: {trouble}")
            time.sleep(0.25)

    def switch_over(self, candidate: Node | None) -> str:
        """Asks Patroni for a switchover; its answer."""
        primary = self.primary()
        if primary is None:
            return "no primary"
        request = {"leader": primary.name}
        if candidate is not None:
            request["candidate"] = candidate.name
        return rest_post(primary.address, "/switchover", request)

    def query(self, sql: str, node: Node | None = None, timeout: float = 5) -> str | None:
        """Asks a node, or the primary, by psql. None if it does not answer."""
        node = node or self.primary()
        if node is None:
            return None
        command = [
            str(self.bin / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d",
            f"host={node.address} user=postgres dbname=postgres connect_timeout=3", "-c", sql,
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    @property
    def hosts(self) -> str:
        """The nodes' addresses, as a connection string lists them."""
        return ",".join(node.address for node in self.nodes)

    def _patroni(self, node: Node) -> dict[str, Any]:
        settings = self.settings
        return {
            "scope": "chaos",
            "name": node.name,
            "log": {"level": "INFO"},
            "restapi": {"listen": f"{node.address}:8008", "connect_address": f"{node.address}:8008"},
            # Not etcd3: Patroni 3.0.2 puts its name on the leader key there without a condition, so that
            # a primary that was frozen takes the lock back from the one that was promoted meanwhile.
            "etcd": {"host": f"{ETCD}:2379"},
            "bootstrap": {
                "dcs": {
                    "ttl": settings.ttl,
                    "loop_wait": settings.loop_wait,
                    "retry_timeout": settings.retry_timeout,
                    "primary_start_timeout": 0,
                    "maximum_lag_on_failover": 1 << 20,
                    "synchronous_mode": settings.synchronous,
                    "synchronous_mode_strict": settings.synchronous,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "use_slots": True,
                        "parameters": {
                            "max_connections": 200,
                            "wal_keep_size": "64MB",
                            "max_wal_size": "192MB",
                            "wal_log_hints": "on",
                            "wal_receiver_timeout": "5s",
                            "wal_sender_timeout": "5s",
                            "wal_retrieve_retry_interval": "500ms",
                            "tcp_keepalives_idle": 5,
                            "tcp_keepalives_interval": 2,
                            "tcp_keepalives_count": 3,
                            "tcp_user_timeout": 10000,
                            "log_line_prefix": "%m [%p] %a ",
                            "shared_buffers": "32MB",
                        },
                    },
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"{node.address}:5432",
                "connect_address": f"{node.address}:5432",
                "data_dir": str(node.disk / "data"),
                "bin_dir": str(self.bin),
                "pgpass": str(node.disk / "pgpass"),
                "authentication": {
                    "superuser": {"username": "postgres"},
                    "replication": {"username": "postgres"},
                    "rewind": {"username": "postgres"},
                },
                "parameters": {"unix_socket_directories": str(node.disk)},
                "pg_hba": [
                    "local all all trust",
                    "host all all 10.99.0.0/24 trust",
                    "host replication all 10.99.0.0/24 trust",
                ],
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
            },
        }

    def _start_haproxy(self) -> None:
        # Patroni's documentation has these lines; checks are more frequent here, as is its own clock.
        servers = "\n".join(
            f"    server {n.name} {n.address}:5432 maxconn 200 check port 8008" for n in self.nodes
        )
        config = self.base / "haproxy.cfg"
        config.write_text(
            "defaults\n"
            "    mode tcp\n    timeout connect 4s\n    timeout client 30m\n"
            "    timeout server 30m\n    timeout check 2s\n    retries 2\n"
            "listen primary\n"
            f"    bind 127.0.0.1:{HAPROXY_PORT}\n"
            "    option httpchk OPTIONS /primary\n    http-check expect status 200\n"
            "    default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions\n"
            f"{servers}\n"
        )
        config.chmod(0o644)
        command = ["/usr/sbin/haproxy", "-db", "-f", str(config)]
        self.haproxy = sandbox.spawn(command, self.logs / "haproxy.log")


def rest(address: str, path: str, timeout: float = 1.0) -> dict[str, Any] | None:
    """GET on Patroni's REST interface, whatever its status; None if it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{address}:8008{path}", timeout=timeout) as answer:
            parsed = json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            parsed = json.load(error)
        except (OSError, ValueError):
            return None
    except (OSError, ValueError):
        return None
    return parsed if isinstance(parsed, dict) else None


def rest_post(address: str, path: str, body: dict[str, str], timeout: float = 15) -> str:
    """POST on Patroni's REST interface; what it said."""
    request = urllib.request.Request(
        f"http://{address}:8008{path}", data=json.dumps(body).encode(), method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return f"{error.code}: {error.read().decode(errors='replace')}"
    except OSError as error:
        return str(error)
