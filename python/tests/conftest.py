"""What all tests share: one cluster for those that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from segue.testing import Cluster

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A primary and a standby for tests that do it no harm; harm takes `segue_cluster`."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def uri(cluster: Cluster) -> str:
    """Where the shared cluster is."""
    return cluster.uri
