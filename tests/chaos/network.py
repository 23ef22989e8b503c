"""A bridge with a network namespace for each machine; cables can be cut in one direction or both."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from typing import Literal

from .sandbox import NETNS

CLIENTS = "10.99.0.1"
"""Where the clients, HAProxy, the prober and the harness live: the bridge itself."""

Direction = Literal["in", "out", "both"]


def run(*words: str, stdin: str | None = None) -> None:
    """Runs a tool that has to succeed."""
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


def make_bridge() -> None:
    """Sets up the clients' end. The namespace is the harness's own, so the names are free."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "hub", "type", "bridge")
    run("ip", "addr", "add", f"{CLIENTS}/24", "dev", "hub")
    run("ip", "link", "set", "hub", "up")


def add_machine(name: str, address: str) -> None:
    """Makes a network namespace with that address, plugged into the bridge."""
    run("ip", "netns", "add", name)
    run("ip", "link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
    run("ip", "link", "set", f"v{name}", "master", "hub", "up")
    run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    run("ip", "-n", name, "link", "set", "eth0", "up")
    run("ip", "-n", name, "link", "set", "lo", "up")


def cut(name: str, peers: Iterable[str], direction: Direction) -> None:
    """Drops a machine's packets from (in), to (out), or from and to (both) its peers.

    All in one moment, as when a cable is pulled: the rules are loaded together.
    """
    rules = ["*filter"]
    for peer in peers:
        if direction in ("in", "both"):
            rules.append(f"-A INPUT -s {peer} -j DROP")
        if direction in ("out", "both"):
            rules.append(f"-A OUTPUT -d {peer} -j DROP")
    rules.append("COMMIT\n")
    _in_netns(name, "iptables-restore", "-w", "--noflush", stdin="\n".join(rules))


def mend(name: str) -> None:
    """Undoes `cut`."""
    _in_netns(name, "iptables", "-w", "-F")


def _in_netns(name: str, *words: str, stdin: str | None = None) -> None:
    run("nsenter", f"--net={NETNS / name}", *words, stdin=stdin)
