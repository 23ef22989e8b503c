"""Namespaces of the harness's own: network, processes, mounts. Nothing outlives it, whatever ends it.

The harness runs as a child of process 1 of a process namespace. When that ends, the kernel kills
whatever runs in it, those inside the nodes' own namespaces included; mounts and networks go with it.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

SERVER_USER = "postgres"
NETNS = Path("/run/netns")
PACKAGES = Path(__file__).resolve().parent.parent


def enter(module: str, arguments: Sequence[str]) -> int:
    """Runs a Python module in fresh namespaces and returns its exit status."""
    command = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # The terminal has told the child as well.


def as_init(work: Callable[[], int]) -> int:
    """Runs `work` in a child and reaps whatever else becomes process 1's own."""
    NETNS.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(NETNS)], check=True)
    child = os.fork()
    if child == 0:
        try:
            status = work()
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 70
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    # The terminal's interrupt reaches the child by itself; SIGTERM is passed on as one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: os.kill(child, signal.SIGINT))
    while True:
        pid, wait_status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(wait_status)


def user_ids() -> tuple[int, int]:
    """The uid and gid that servers run as: they refuse to be root."""
    entry = pwd.getpwnam(SERVER_USER)
    return entry.pw_uid, entry.pw_gid


def spawn(
    command: Sequence[str | Path],
    log: Path,
    *,
    network: str | None = None,
    own_processes: bool = False,
    as_root: bool = False,
) -> subprocess.Popen[bytes]:
    """Starts a program in a network of its own or the harness's, its output appended to a log.

    With `own_processes` it gets a process namespace as well: see `init_of`.
    """
    words: list[str] = []
    if network is not None:
        words += ["nsenter", f"--net={NETNS / network}"]
    if own_processes:
        words += ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
    if not as_root:
        words += ["setpriv", f"--reuid={SERVER_USER}", f"--regid={SERVER_USER}", "--init-groups"]
    words += [str(word) for word in command]
    environment = dict(os.environ)
    environment.update(HOME="/nonexistent", LC_ALL="C.UTF-8", PYTHONPATH=str(PACKAGES))
    for name in [name for name in environment if name.startswith(("PG", "PATRONI", "ETCD"))]:
        del environment[name]
    with log.open("ab") as output:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd="/",
            start_new_session=True,
        )


def init_of(process: subprocess.Popen[bytes]) -> int | None:
    """Process 1 of the namespace that `spawn` has made; killing it kills all in it at once."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def processes_of(init: int) -> dict[int, str]:
    """All processes of the namespace of which `init` is process 1, with their command lines."""
    found = {}
    try:
        namespace = Path(f"/proc/{init}/ns/pid").readlink()
    except OSError:
        return {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "ns/pid").readlink() == namespace:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                found[int(entry.name)] = b" ".join(words).decode(errors="replace").strip()
        except OSError:
            continue
    return found


def kill(pid: int, number: signal.Signals) -> bool:
    """Sends a signal to a process that may be gone; tells whether it was there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
