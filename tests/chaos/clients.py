"""The client programs: started, killed, started again, and looked after."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import sandbox

PATIENCE_S = 45.0
CRASHES_MAX = 10


@dataclass(frozen=True)
class Program:
    """A client program and its place in the numbering of workers."""

    face: str
    command: Sequence[str]
    conninfo: str
    worker: int
    workers: int
    journal: bool = False
    submit_options: str = ""
    """More of the connection string, where payments are handed over to the journal."""

    @property
    def is_segue(self) -> bool:
        """Whether it is under test, or the status quo beside it."""
        return not self.face.startswith("psycopg")


@dataclass
class Client:
    """A program and its current life."""

    program: Program
    incarnation: int = 0
    process: subprocess.Popen[bytes] | None = None
    restart_at: float | None = None


class Clients:
    """All of them. A thread of its own starts again what was killed."""

    def __init__(
        self,
        programs: Sequence[Program],
        run: Path,
        journals: Path,
        arguments: Sequence[str],
        note: Callable[[str, str], None],
    ) -> None:
        self._clients = [Client(program) for program in programs]
        self._logs = run / "clients"
        self._logs.mkdir(exist_ok=True)
        self._journals = journals
        self._stop = run / "stop"
        self._arguments = arguments
        self._note = note
        self._lock = threading.Lock()
        self._over = False
        self.crashes: list[str] = []
        self.kills = 0
        for client in self._clients:
            self._start(client)
        self._thread = threading.Thread(target=self._look_after, daemon=True)
        self._thread.start()

    @property
    def faces(self) -> list[str]:
        """What they are called."""
        return [client.program.face for client in self._clients]

    def kill(self, index: int, restart_after: float) -> str:
        """SIGKILL, and a new life after a while. Its name."""
        with self._lock:
            client = self._clients[index % len(self._clients)]
            if client.process is None or client.restart_at is not None:
                return f"{client.program.face} (dead already)"
            client.process.send_signal(signal.SIGKILL)
            client.process.wait()
            client.restart_at = time.monotonic() + restart_after
            self.kills += 1
            return client.program.face

    def stuck(self, patience: float = PATIENCE_S) -> list[str]:
        """Waits until every worker of Segue's has got an answer since now; those that have not."""
        if len(self.crashes) > CRASHES_MAX:
            raise RuntimeError("clients end by themselves again and again")
        before = self._sizes()
        deadline = time.monotonic() + patience
        while True:
            now = self._sizes()
            waiting = [name for name, size in before.items() if name in now and now[name] <= size]
            if not waiting or time.monotonic() > deadline:
                return waiting
            time.sleep(0.1)

    def finish(self, patience: float = 120) -> list[str]:
        """Asks all to end; those that did not and were killed."""
        with self._lock:
            self._over = True
        self._thread.join()
        for client in self._clients:
            if client.restart_at is not None:
                # It has to see what has become of its submissions.
                self._start(client)
        self._stop.touch()
        deadline = time.monotonic() + patience
        late = []
        for client in self._clients:
            if client.process is None:
                continue
            try:
                status = client.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                late.append(client.program.face)
                client.process.kill()
                client.process.wait()
            else:
                if status != 0:
                    self.crashes.append(f"{client.program.face} ended with {status}")
        return late

    def _sizes(self) -> dict[str, int]:
        sizes = {}
        with self._lock:
            for client in self._clients:
                program = client.program
                if client.restart_at is not None or not program.is_segue:
                    continue
                for worker in range(program.worker, program.worker + program.workers):
                    name = f"{program.face}.{worker}.{client.incarnation}.log"
                    path = self._logs / name
                    sizes[name] = path.stat().st_size if path.exists() else 0
        return sizes

    def _start(self, client: Client) -> None:
        program = client.program
        client.incarnation += 1
        client.restart_at = None
        command = [
            *program.command, "--conninfo", program.conninfo, "--face", program.face,
            "--logs", str(self._logs), "--worker", str(program.worker),
            "--incarnation", str(client.incarnation), "--stop", str(self._stop), *self._arguments,
        ]  # fmt: skip
        if program.journal:
            command += ["--journal-dir", str(self._journals / program.face)]
            command += ["--submit-options", program.submit_options]
        client.process = sandbox.spawn(command, self._logs / f"{program.face}.output", as_root=True)

    def _look_after(self) -> None:
        while True:
            time.sleep(0.1)
            with self._lock:
                if self._over:
                    return
                for client in self._clients:
                    if client.restart_at is not None:
                        if time.monotonic() >= client.restart_at:
                            self._start(client)
                    elif client.process is not None and client.process.poll() is not None:
                        crash = f"{client.program.face} ended with {client.process.returncode}"
                        self.crashes.append(crash)
                        self._note("crash", crash)
                        client.restart_at = time.monotonic() + 1
