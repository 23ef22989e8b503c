"""Real PostgreSQL clusters for tests: watch your own application when its server dies.

    def test_orders_survive(segue_cluster):
        place_orders(segue_cluster.uri)
        segue_cluster.failover()

`Cluster` starts a primary and hot standbys in a temporary directory, from the PostgreSQL programs
of this machine or those of `pip install segue[server]`, kills, pauses and promotes them. They die
with this process. The fixture `segue_cluster` is pytest's way to it (see `segue.testing.plugin`).
Linux only; needs nothing but the standard library, and no server extension.
"""

from __future__ import annotations

from segue.testing._cluster import Cluster, Replication
from segue.testing._control import SqlError
from segue.testing._problem import ClusterError
from segue.testing._server import Server

__all__ = ["Cluster", "ClusterError", "Replication", "Server", "SqlError"]
