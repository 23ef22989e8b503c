"""Handlers for the server's notices, of connections that block and of those of an event loop."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest
from aiotools import LOOPS, run

import segue
from segue import aio, errors
from segue.testing import Cluster

SAY = "DO $$ BEGIN RAISE NOTICE 'one' USING HINT = 'h'; RAISE WARNING 'two'; END $$"


def test_a_handler_is_called_before_execute_returns(uri: str) -> None:
    seen: list[errors.Diagnostic] = []
    with segue.connect(uri, autocommit=True) as conn, segue.connect(uri) as other:
        conn.add_notice_handler(seen.append)
        conn.execute(SAY)
        assert [(d.severity, d.message_primary) for d in seen] == [
            ("NOTICE", "one"),
            ("WARNING", "two"),
        ]
        assert seen[0].message_hint == "h"
        assert seen[0].sqlstate == "00000"
        # With an error, too; and those of other connections are others'.
        with pytest.raises(errors.RaiseException):
            conn.execute("DO $$ BEGIN RAISE NOTICE 'three'; RAISE EXCEPTION 'no'; END $$")
        other.execute(SAY)
        assert [d.message_primary for d in seen] == ["one", "two", "three"]
        again: list[errors.Diagnostic] = []
        conn.add_notice_handler(again.append)
        conn.remove_notice_handler(seen.append)
        conn.execute(SAY)
        assert (len(seen), len(again)) == (3, 2)
        with pytest.raises(ValueError):
            conn.remove_notice_handler(seen.append)


def test_a_handler_may_use_the_connection(uri: str) -> None:
    answers: list[Any] = []
    with segue.connect(uri, autocommit=True) as conn:

        def handle(diag: errors.Diagnostic) -> None:
            answers.append(conn.execute("SELECT %s::text", (diag.message_primary,)).fetchone())

        conn.add_notice_handler(handle)
        conn.execute(SAY)
        assert answers == [("one",), ("two",)]


def test_what_a_handler_raises_is_unraisable(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    seen: list[errors.Diagnostic] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    def fail(diag: errors.Diagnostic) -> None:
        raise ZeroDivisionError

    with segue.connect(uri, autocommit=True) as conn:
        conn.add_notice_handler(fail)
        conn.add_notice_handler(seen.append)
        conn.execute(SAY)
        assert [type(t.exc_value) for t in told] == [ZeroDivisionError] * 2
        assert len(seen) == 2


def test_a_handler_keeps_no_connection_alive(uri: str) -> None:
    def used() -> weakref.ref[segue.Connection]:
        conn = segue.connect(uri)
        conn.add_notice_handler(lambda diag: conn.cursor().close())
        conn.execute(SAY)
        conn.close()
        return weakref.ref(conn)

    ref = used()
    gc.collect()
    assert ref() is None


def test_handlers_outlive_a_server(segue_cluster: Cluster) -> None:
    seen: list[errors.Diagnostic] = []
    with segue.connect(segue_cluster.uri, autocommit=True) as conn:
        conn.add_notice_handler(seen.append)
        segue_cluster.failover()
        # DO may commit inside, so its outcome would be unknown if it were the first to find out.
        conn.execute("SELECT 1")
        conn.execute(SAY)
        assert [d.message_primary for d in seen] == ["one", "two"]


@pytest.mark.parametrize("loop", LOOPS)
def test_asyncio(uri: str, loop: str) -> None:
    seen: list[errors.Diagnostic] = []

    async def main() -> None:
        async with await aio.connect(uri, autocommit=True) as conn:
            conn.add_notice_handler(seen.append)
            await conn.execute(SAY)
            assert [d.message_primary for d in seen] == ["one", "two"]
            conn.remove_notice_handler(seen.append)
            await conn.execute(SAY)
            assert len(seen) == 2

    run(main(), loop)
