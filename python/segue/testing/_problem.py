"""The one exception of `segue.testing`."""

from __future__ import annotations


class ClusterError(Exception):
    """A server for tests cannot be had, did not start, or did not do as it was told."""

    __module__ = "segue.testing"
