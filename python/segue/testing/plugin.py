"""The pytest plugin: the fixture `segue_cluster`, and the servers' logs where a test fails.

Loaded by pytest in every environment that has segue, so it imports next to nothing by itself.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from segue.testing import Cluster

SCOPES = ("function", "class", "module", "package", "session")
MARKER = "segue_cluster"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the ini option `segue_cluster_scope`."""
    parser.addini(
        "segue_cluster_scope",
        f"scope of the fixture segue_cluster: {', '.join(SCOPES)}",
        default="function",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(standbys=1, *, replication='sync', settings=None): what the cluster of the "
        "fixture segue_cluster is to be like; the arguments of segue.testing.Cluster",
    )


def _scope(fixture_name: str, config: pytest.Config) -> Any:
    scope = config.getini("segue_cluster_scope")
    if scope not in SCOPES:
        raise pytest.UsageError(f"segue_cluster_scope is {scope!r}; may be {', '.join(SCOPES)}")
    return scope


def _cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    from segue.testing import Cluster

    marker = request.node.get_closest_marker(MARKER)
    args, kwargs = (marker.args, marker.kwargs) if marker else ((), {})
    with Cluster(*args, **kwargs) as cluster:
        yield cluster


@pytest.fixture(scope=_scope)
def segue_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A primary and a standby of their own for each test, in about a second.

    The marker `segue_cluster` says what they are to be like, the ini option `segue_cluster_scope`
    how long they live.
    """
    yield from _cluster(request)


@pytest.fixture(scope="module")
def segue_cluster_module(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The same, shared by the tests of a module."""
    yield from _cluster(request)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Puts the end of the servers' logs into the report of a test that failed."""
    report = yield
    if report.failed:
        from segue.testing import Cluster

        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Cluster):
                report.sections.append((f"PostgreSQL logs of {name}", value.logs()))
    return report
