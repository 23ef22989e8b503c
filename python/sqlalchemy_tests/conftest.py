"""Starts the cluster that SQLAlchemy's compliance suite runs on, and names it to the suite."""

import sys
from pathlib import Path

import pytest

from segue.sqlalchemy import engine_url
from segue.testing import Cluster

# The suite looks for its requirements by name.
sys.path.insert(0, str(Path(__file__).parent))

CLUSTER = pytest.StashKey[Cluster]()


def pytest_addoption(parser):
    """Add the option that chooses the dialect for asyncio."""
    parser.addoption("--segue-async", action="store_true", help="test the dialect for asyncio")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Start the cluster before the suite's plugin asks where the database is."""
    if config.option.dburi or config.option.collectonly:
        return
    # The suite tests two-phase commit, and no failover.
    cluster = Cluster(standbys=0, settings={"max_prepared_transactions": "10"})
    config.stash[CLUSTER] = cluster
    url = engine_url(cluster.uri)
    if config.option.segue_async:
        url = url.set(drivername="postgresql+segue_async")
    for schema in ("test_schema", "test_schema_2"):
        cluster.primary.sql(f"CREATE SCHEMA {schema} AUTHORIZATION app")
    config.option.dburi = [url.render_as_string(hide_password=False)]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Add what the server wrote to its log to what is said of a failed test."""
    outcome = yield
    report = outcome.get_result()
    cluster = item.config.stash.get(CLUSTER, None)
    if report.failed and cluster is not None:
        report.sections.append(("server log", cluster.logs(60)))


def pytest_unconfigure(config):
    """End the cluster."""
    cluster = config.stash.get(CLUSTER, None)
    if cluster is not None:
        cluster.close()
