"""What a server is asked: PostgreSQL's simple query protocol over its Unix socket, as superuser.

Independent of the driver under test, and of the network that a test may have broken. Rows come as
text, NULL as None.
"""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from types import TracebackType

from segue.testing._problem import ClusterError

Rows = list[tuple[str | None, ...]]


class SqlError(ClusterError):
    """An error that a server answered with."""

    __module__ = "segue.testing"

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate

    def __reduce__(self) -> tuple[type[SqlError], tuple[str, str]]:
        return SqlError, (str(self), self.sqlstate)


class Control:
    """One connection. Every wait ends with the timeout."""

    def __init__(self, directory: Path, port: int, database: str, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(str(directory / f".s.PGSQL.{port}"))
            options = {
                "user": "postgres",
                "database": database,
                "application_name": "segue-testing",
            }
            words = [word for pair in options.items() for word in pair]
            body = struct.pack("!i", 196608) + b"".join(w.encode() + b"\0" for w in words) + b"\0"
            self._socket.sendall(struct.pack("!i", len(body) + 4) + body)
            self._until_ready()
        except OSError as error:
            self._socket.close()
            raise ClusterError(f"the server cannot be reached: {error}") from error
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def sql(self, text: str) -> Rows:
        """Runs one statement or several; returns the rows of all of them."""
        body = text.encode() + b"\0"
        try:
            self._socket.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
            return self._until_ready()
        except OSError as error:
            raise ClusterError(f"the server did not answer: {error}") from error

    def _until_ready(self) -> Rows:
        rows: Rows = []
        problem: SqlError | None = None
        while True:
            kind, body = self._message()
            if kind == b"D":
                rows.append(_row(body))
            elif kind == b"E":
                fields = {f[:1]: f[1:].decode(errors="replace") for f in body.split(b"\0") if f}
                message = f"{fields.get(b'S', 'ERROR')}: {fields.get(b'M', '')}"
                problem = SqlError(message, fields.get(b"C", ""))
                if fields.get(b"V") in ("FATAL", "PANIC"):
                    raise problem
            elif kind == b"R" and body != struct.pack("!i", 0):
                raise ClusterError("the server asks its superuser for a password")
            elif kind == b"G":
                # COPY FROM STDIN: there is nothing to give.
                self._socket.sendall(b"f\0\0\0\x05\0")
            elif kind == b"Z":
                if problem is not None:
                    raise problem
                return rows

    def _message(self) -> tuple[bytes, bytes]:
        kind, length = struct.unpack("!ci", self._read(5))
        return kind, self._read(length - 4)

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the time is up")
            self._socket.settimeout(left)
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionResetError("it closed the connection")
            self._buffer += received
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken


def _row(body: bytes) -> tuple[str | None, ...]:
    (count,) = struct.unpack_from("!h", body)
    values: list[str | None] = []
    at = 2
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        if length < 0:
            values.append(None)
        else:
            values.append(body[at : at + length].decode(errors="replace"))
            at += length
    return tuple(values)
