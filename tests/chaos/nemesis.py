"""Carries out the plan, one fault after the other, and sees to it that the cluster is whole between them."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from collections.abc import Callable

from . import network, sandbox
from .clients import Clients
from .cluster import ETCD, Cluster, Node, rest_post
from .network import CLIENTS, Direction
from .plan import Fault

Note = Callable[[str, str], None]
HEALING_S = 90.0


class Nemesis:
    """What can be done to a cluster and its clients."""

    def __init__(self, cluster: Cluster, clients: Clients, seed: int, note: Note) -> None:
        self._cluster = cluster
        self._programs = clients
        self._seed = seed
        self._note = note
        self.faults = 0
        self.stuck: list[str] = []
        self.repairs: list[str] = []

    def strike(self, fault: Fault) -> None:
        """One fault from its beginning to the moment in which all is well again."""
        primary = self._cluster.primary()
        if primary is None:
            # What came before has an effect that came late, as when Patroni demotes long after etcd died.
            self._note("late", f"{fault.number}: no primary yet")
            self.heal()
            primary = self._cluster.primary()
        if primary is None:
            self._note("skip", f"{fault.number}: no primary")
            return
        self.faults += 1
        standbys = [node for node in self._cluster.nodes if node is not primary]
        standby = standbys[fault.candidate]
        killer = threading.Thread(target=self._kill_clients, args=(fault,))
        killer.start()
        self._note("fault", f"{fault} (primary {primary.name})")
        try:
            act = getattr(self, "_" + fault.kind.replace("-", "_"))
            act(fault, primary, standby)
        finally:
            self._note("over", f"{fault.number} {fault.kind}")
            killer.join()
            self.heal()
        time.sleep(fault.rest)

    def heal(self) -> None:
        """Undoes everything and waits until the cluster is whole and the clients go on."""
        for node in self._cluster.nodes:
            network.mend(node.name)
            node.thaw()
            node.free_disk()
            if node.init is None or node.process is None or node.process.poll() is not None:
                node.kill()
                node.start()
        if self._cluster.etcd is None or self._cluster.etcd.poll() is not None:
            self._cluster.start_etcd()
        self._wait()
        stuck = self._programs.stuck()
        if stuck:
            self._note("stuck", " ".join(stuck))
            self.stuck += stuck
        self._note("whole", f"{self._cluster.members()}")

    def _wait(self) -> None:
        """Patroni mends most by itself; what it does not is done by hand, as an operator would."""
        for remedy in (self._restart_standbys, self._rebuild_standbys):
            try:
                self._cluster.wait_until_healed(HEALING_S)
            except TimeoutError as error:
                self._note("repair", f"{error}; {remedy.__name__.strip('_')}")
                self.repairs.append(str(error))
                remedy()
            else:
                return
        self._cluster.wait_until_healed(HEALING_S)

    def _restart_standbys(self) -> None:
        primary = self._cluster.primary()
        for node in self._cluster.nodes:
            if node is not primary:
                node.kill()
                node.start()

    def _rebuild_standbys(self) -> None:
        primary = self._cluster.primary()
        if primary is None:
            raise RuntimeError("there is no primary to build standbys from")
        for node in self._cluster.nodes:
            if node is not primary:
                node.kill()
                shutil.rmtree(node.disk / "data", ignore_errors=True)
                node.start()

    def _kill_clients(self, fault: Fault) -> None:
        choice = random.Random(f"{self._seed}/clients/{fault.number}")
        if fault.clients == 0:
            return
        time.sleep(fault.clients_after)
        for _ in range(fault.clients):
            name = self._programs.kill(choice.randrange(1000), choice.uniform(0, 3))
            self._note("client", f"killed {name}")

    # What follows is named as the kinds of `plan.KINDS` are.

    def _kill_postmaster(self, fault: Fault, primary: Node, standby: Node) -> None:
        if pid := primary.postmaster():
            sandbox.kill(pid, signal.SIGKILL)
        time.sleep(fault.duration)

    def _kill_node(self, fault: Fault, primary: Node, standby: Node) -> None:
        primary.kill()
        time.sleep(fault.duration)

    def _kill_two_nodes(self, fault: Fault, primary: Node, standby: Node) -> None:
        primary.kill()
        standby.kill()
        time.sleep(fault.duration)

    def _kill_standby(self, fault: Fault, primary: Node, standby: Node) -> None:
        standby.kill()
        time.sleep(fault.duration)

    def _kill_backends(self, fault: Fault, primary: Node, standby: Node) -> None:
        for pid in primary.backends()[:1]:
            sandbox.kill(pid, signal.SIGKILL)
        time.sleep(fault.duration)

    def _kill_patroni(self, fault: Fault, primary: Node, standby: Node) -> None:
        # PostgreSQL goes on; the next Patroni finds it running three seconds later.
        for pid in primary.patroni_processes():
            sandbox.kill(pid, signal.SIGKILL)
        time.sleep(fault.duration)

    def _stop_postgres(self, fault: Fault, primary: Node, standby: Node) -> None:
        primary.freeze(primary.postgres_processes())
        time.sleep(fault.duration)

    def _stop_node(self, fault: Fault, primary: Node, standby: Node) -> None:
        primary.freeze(list(primary.processes()))
        time.sleep(fault.duration)

    def _stop_patroni(self, fault: Fault, primary: Node, standby: Node) -> None:
        # The old primary goes on as one while another is promoted: nothing fences it.
        primary.freeze(primary.patroni_processes())
        time.sleep(fault.duration + self._cluster.settings.ttl)

    def _partition(self, fault: Fault, primary: Node, standby: Node) -> None:
        others = [node.address for node in self._cluster.nodes if node is not primary]
        peers: list[str] = []
        for name in fault.peers.split("+"):
            peers += {
                "standbys": others,
                "etcd": [ETCD],
                "clients": [CLIENTS],
                "everybody": [*others, ETCD, CLIENTS],
            }[name]
        direction: Direction = "in" if fault.direction == "in" else "both"
        if fault.direction == "out":
            direction = "out"
        network.cut(primary.name, peers, direction)
        time.sleep(fault.duration)

    def _switchover(self, fault: Fault, primary: Node, standby: Node) -> None:
        said = self._cluster.switch_over(None if self._cluster.settings.synchronous else standby)
        self._note("patroni", said)
        time.sleep(fault.duration)

    def _restart(self, fault: Fault, primary: Node, standby: Node) -> None:
        self._note("patroni", rest_post(primary.address, "/restart", {}))
        time.sleep(fault.duration)

    def _fill_disk(self, fault: Fault, primary: Node, standby: Node) -> None:
        primary.fill_disk()
        time.sleep(fault.duration)

    def _kill_etcd(self, fault: Fault, primary: Node, standby: Node) -> None:
        self._cluster.kill_etcd()
        time.sleep(fault.duration)

    def _clients(self, fault: Fault, primary: Node, standby: Node) -> None:
        time.sleep(fault.duration)
