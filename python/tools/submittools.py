"""What the tests of submissions share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import segue
from segue.testing import Cluster


def wait_until(condition: Callable[[], object], timeout: float = 60) -> None:
    """Wait for something that is certain to come."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def script(source: str, *args: object) -> subprocess.Popen[str]:
    """Run Python in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", source, *map(str, args)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def create(cluster: Cluster, name: str) -> None:
    """Make a table whose ids must be unique, and that knows in which order they came."""
    with segue.connect(cluster.uri, autocommit=True) as conn:
        conn.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, at bigserial)")


def ids(cluster: Cluster, name: str) -> list[int]:
    """Give its ids in that order, asked past the driver."""
    return [
        int(id or -1)
        for (id,) in cluster.sql(cluster.primary, f"SELECT id FROM {name} ORDER BY at")
    ]
