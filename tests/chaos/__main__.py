"""`python -m chaos`: runs the clients and the nemesis for some minutes, then judges and reports."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import plan, sandbox
from .clientlog import now_us
from .clients import Clients, Program
from .cluster import HAPROXY_PORT, Cluster, Settings
from .nemesis import Nemesis
from .report import write_report

ACCOUNTS = 12
WORKERS_MAX = 100
BALANCE = 1_000_000
SCHEMA = f"""
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 50);
CREATE TABLE payment (id bigint NOT NULL, kind text NOT NULL, src int, dst int, amount bigint NOT NULL);
CREATE INDEX ON payment (id);
INSERT INTO account SELECT n, {BALANCE} FROM generate_series(1, {ACCOUNTS}) AS n;
INSERT INTO account SELECT n, {BALANCE} FROM generate_series(1000, {1000 + 2 * WORKERS_MAX - 1}) AS n;
"""
TOTAL = BALANCE * (ACCOUNTS + 2 * WORKERS_MAX)


def _absolute(path: str) -> Path:
    return Path(path).resolve()


def _kinds(text: str) -> dict[str, int]:
    """Kinds of faults and how often each is chosen, relative to the others."""
    kinds = {}
    for word in text.split(","):
        kind, _, weight = word.partition("=")
        if kind not in plan.KINDS:
            raise argparse.ArgumentTypeError(f"there is no kind of fault called {kind!r}")
        kinds[kind] = int(weight) if weight else plan.KINDS[kind]
    return kinds


def options() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--failovers", type=int, help="go on until so many are survived, instead")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--mode", choices=["sync", "async"], default="sync", help="of replication")
    parser.add_argument("--clients", default="rust,c,python,aio,psycopg-libpq,psycopg-haproxy")
    parser.add_argument(
        "--faults",
        type=_kinds,
        help="only these kinds, with commas, each with =WEIGHT or its usual one: " + ", ".join(plan.KINDS),
    )
    parser.add_argument(
        "--segue-options",
        default="",
        help="of every client of Segue's: autocommit_reply=before_commit, retry_conflicts=3",
    )
    parser.add_argument(
        "--submit-options",
        default="",
        help="of the client that hands payments over: commit_ack=backup, on_commits_lost=reapply",
    )
    parser.add_argument("--pace-ms", type=int, default=40, help="a worker's rest between transactions")
    parser.add_argument("--rust", type=_absolute, help="the Rust client's program")
    parser.add_argument("--c", type=_absolute, help="the C client's program")
    parser.add_argument("--build", default="", help="what was built, for the report: a commit")
    parser.add_argument("--output", type=Path, help="a directory for logs and report")
    parser.add_argument("--schedule", type=int, help="print so many faults of the seed's, and end")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


class Diary:
    """What the harness does, with times: on the terminal and in a file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._begun = now_us()

    def note(self, kind: str, text: str) -> None:
        """One line."""
        now = now_us()
        os.write(self._file, f"{now} {kind} {text}\n".encode())
        if kind != "whole":
            print(f"{(now - self._begun) / 1e6:8.1f} {kind:8} {text}", flush=True)


def programs(cluster: Cluster, given: argparse.Namespace) -> list[Program]:
    """The client programs that were asked for."""
    # The server gives a link up that was cut off for 10 s, and the replies on it with it: docs/failover.md.
    patient = "options='-c tcp_user_timeout=120000' tcp_user_timeout=120000"
    segue = (
        f"host={cluster.hosts} user=app dbname=bank sslmode=disable failover_timeout_ms=120000 ledger=require"
        f" {patient} {given.segue_options}"
    )
    tcp = (
        "keepalives_idle=5 keepalives_interval=3 keepalives_count=3 tcp_user_timeout=15000 connect_timeout=2"
    )
    libpq = f"host={cluster.hosts} user=app dbname=bank target_session_attrs=read-write {tcp}"
    haproxy = f"host=127.0.0.1 port={HAPROXY_PORT} user=app dbname=bank {tcp}"
    python = [sys.executable, "-m"]
    known = {
        "rust": Program(
            "rust", [str(given.rust)], segue, 10, 5, journal=True, submit_options=given.submit_options
        ),
        "c": Program("c", [str(given.c)], segue, 20, 3),
        "python": Program("python", [*python, "chaos.app_segue"], segue, 30, 3),
        "aio": Program("aio", [*python, "chaos.app_segue"], segue, 40, 2),
        "psycopg-libpq": Program("psycopg-libpq", [*python, "chaos.app_psycopg"], libpq, 50, 3),
        "psycopg-haproxy": Program("psycopg-haproxy", [*python, "chaos.app_psycopg"], haproxy, 60, 3),
    }
    chosen = []
    for name in given.clients.split(","):
        program = known[name]
        if program.command[0] != "None":
            chosen.append(program)
    return chosen


def prepare(cluster: Cluster) -> None:
    """Makes the role, the database, the ledger and the tables."""
    primary = cluster.primary()
    if primary is None:
        raise RuntimeError("no primary to begin with")
    for database, user, sql in (
        ("postgres", "postgres", "CREATE ROLE app LOGIN"),
        ("postgres", "postgres", "CREATE DATABASE bank OWNER app"),
        ("bank", "app", SCHEMA),
    ):
        dsn = f"host={primary.address} user={user} dbname={database}"
        subprocess.run(
            [cluster.bin / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-c", sql], check=True
        )
    import segue

    with segue.Client(f"host={cluster.hosts} user=app dbname=bank sslmode=disable") as client:
        client.setup()


def save_database(cluster: Cluster, run: Path) -> None:
    """Copies what the clients are judged by out of the primary."""
    primary = cluster.primary()
    if primary is None:
        raise RuntimeError("no primary in the end")
    for table, columns in (("payment", "id, kind, src, dst, amount"), ("account", "id, balance")):
        with (run / f"{table}.tsv").open("wb") as file:
            dsn = f"host={primary.address} user=postgres dbname=bank"
            command = f"COPY {table} ({columns}) TO STDOUT"
            subprocess.run([cluster.bin / "psql", "-Xq", "-d", dsn, "-c", command], stdout=file, check=True)


def run_inside(given: argparse.Namespace) -> int:
    """The whole run, inside the sandbox."""
    run: Path = given.output
    diary = Diary(run / "diary.log")
    diary.note("begin", f"seed {given.seed}, {given.mode}, {given.minutes:g} minutes, logs in {run}")
    base = Path(tempfile.mkdtemp(prefix="segue-chaos-"))
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(base)], check=True)
    base.chmod(0o755)
    servers = run / "servers"
    servers.mkdir()
    settings = Settings(synchronous=given.mode == "sync")
    cluster = Cluster(base, servers, settings)
    cluster.start()
    prepare(cluster)
    diary.note("cluster", f"{cluster.members()}")
    probe = run / "prober.log"
    sandbox.spawn(
        [sys.executable, "-m", "chaos.prober", str(probe)]
        + [f"{node.name}={node.address}" for node in cluster.nodes],
        run / "prober.output",
        as_root=True,
    )
    journals = base / "journals"
    journals.mkdir()
    arguments = [
        "--seed", str(given.seed), "--accounts", str(ACCOUNTS), "--total", str(TOTAL),
        "--pace-ms", str(given.pace_ms),
    ]  # fmt: skip
    clients = Clients(programs(cluster, given), run, journals, arguments, diary.note)
    nemesis = Nemesis(cluster, clients, given.seed, diary.note)
    broken = ""
    number = 0
    begun = time.monotonic()
    first_timeline = timeline(cluster)
    try:
        clients.stuck()
        while True:
            if given.failovers is not None:
                if timeline(cluster) - first_timeline >= given.failovers:
                    break
            elif time.monotonic() - begun > given.minutes * 60:
                break
            number += 1
            nemesis.strike(plan.fault(given.seed, number, given.faults))
    except (TimeoutError, RuntimeError, KeyboardInterrupt) as error:
        broken = f"{type(error).__name__}: {error}"
        diary.note("broken", broken)
    late = clients.finish()
    diary.note("end", f"clients have ended{', but for ' + ' '.join(late) if late else ''}")
    try:
        cluster.wait_until_healed(120)
    except TimeoutError as error:
        # The primary alone is enough for the verdict.
        broken = broken or str(error)
    save_database(cluster, run)
    facts = {
        "seed": given.seed,
        "mode": given.mode,
        "seconds": round(time.monotonic() - begun, 1),
        "faults": nemesis.faults,
        "failovers": timeline(cluster) - first_timeline,
        "client_kills": clients.kills,
        "crashes": clients.crashes,
        "stuck": nemesis.stuck,
        "late": late,
        "repairs": nemesis.repairs,
        "broken": broken,
        "build": given.build,
        "options": {
            "weights": given.faults or plan.KINDS,
            "pace_ms": given.pace_ms,
            "minutes": None if given.failovers else given.minutes,
            "failovers": given.failovers,
            "segue_options": given.segue_options,
            "submit_options": given.submit_options,
        },
        "settings": vars(settings),
        "clients": clients.faces,
        "balance": BALANCE,
    }
    (run / "facts.json").write_text(json.dumps(facts, indent=1))
    return write_report(run)


def timeline(cluster: Cluster) -> int:
    """The leader's timeline, as Patroni knows it; 0 if nobody tells."""
    leaders = [m for m in cluster.members() if m.get("role") in ("leader", "master")]
    return int(leaders[0].get("timeline", 0)) if leaders else 0


def main() -> int:
    """Prepares the output, then goes into the sandbox."""
    given = options()
    if given.schedule is not None:
        for number in range(1, given.schedule + 1):
            print(plan.fault(given.seed, number, given.faults))
        return 0
    if given.inside:
        return sandbox.as_init(lambda: run_inside(given))
    if os.geteuid() != 0:
        print("chaos: namespaces need root", file=sys.stderr)
        return 2
    if given.output is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        given.output = Path("target/chaos") / f"{stamp}-{given.mode}-{given.seed}"
    run = given.output.resolve()
    if run.exists() and any(run.iterdir()):
        print(f"chaos: {run} is not empty", file=sys.stderr)
        return 2
    run.mkdir(parents=True, exist_ok=True)
    words = ["--inside", "--output", str(run), "--seed", str(given.seed)]
    if given.faults is not None:
        words += ["--faults", ",".join(f"{kind}={weight}" for kind, weight in given.faults.items())]
    names = ("minutes", "failovers", "mode", "clients", "segue_options", "submit_options", "pace_ms")
    names += ("rust", "c", "build")
    for name in names:
        value = getattr(given, name)
        if value not in (None, ""):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return sandbox.enter("chaos", words)


if __name__ == "__main__":
    sys.exit(main())
