"""What the tests of `segue.aio` share: loops of both kinds, and conditions that are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from segue.testing import Server

T = TypeVar("T")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(main: Coroutine[Any, Any, T], loop: str = "asyncio", timeout: float = 60) -> T:
    """Run a test; it fails if it takes too long, or leaves a task or a callback's error."""
    event_loop = LOOPS[loop]()
    problems: list[dict[str, Any]] = []
    event_loop.set_exception_handler(lambda _, context: problems.append(context))
    try:
        result = event_loop.run_until_complete(asyncio.wait_for(main, timeout))
        event_loop.run_until_complete(event_loop.shutdown_asyncgens())
        left = asyncio.all_tasks(event_loop)
    finally:
        event_loop.close()
    assert not left, left
    assert not problems, problems
    return result


async def until(server: Server, condition: str, timeout: float = 30) -> None:
    """Wait until a query says true, asked past the driver."""
    await asyncio.to_thread(server.wait_for, condition, timeout=timeout)


async def until_asleep(server: Server, name: str, count: int = 1) -> None:
    """Wait until so many statements of an application sleep."""
    await until(
        server,
        f"SELECT count(*) = {count} FROM pg_stat_activity WHERE application_name = '{name}' "
        "AND wait_event = 'PgSleep'",
    )
