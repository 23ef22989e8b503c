"""The pool: its books without a server, and its connections with real ones."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import segue
from segue._pool import Make, PoolCore, Sizes, Sleep, Slot, Waiter
from segue.errors import PoolClosed, PoolFull, PoolTimeout
from segue.testing import Cluster


class Fake:
    """A connection of which the books know whether it is closed."""

    def __init__(self) -> None:
        self.closed = False


class Woken(Waiter[Fake]):
    woken = 0

    def wake(self) -> None:
        self.woken += 1


class Books:
    """Drives the books by hand, at a time of its own."""

    def __init__(
        self,
        min_size: int = 0,
        max_size: int = 2,
        *,
        max_waiting: int = 0,
        max_lifetime: float | None = None,
        max_idle: float | None = None,
    ) -> None:
        sizes = Sizes(min_size, max_size, max_waiting, max_lifetime, max_idle)
        self.core: PoolCore[Fake] = PoolCore(sizes, "books")
        self.now = 1000.0
        self.closed: list[Fake] = []
        self.open: set[Fake] = set()

    def work(self) -> Sleep:
        """Does what is to be done, until that is to sleep."""
        while True:
            duty = self.core.duty(self.now)
            if isinstance(duty, Sleep):
                return duty
            if isinstance(duty, Make):
                made = Fake()
                self.open.add(made)
                self.core.made(made, self.now, duty.generation)
            else:
                for connection in duty.connections:
                    connection.closed = True
                    self.open.remove(connection)
                self.closed += duty.connections

    def request(self) -> Woken:
        waiter = Woken()
        self.core.request(waiter, self.now)
        return waiter

    def take(self) -> Slot[Fake]:
        waiter = self.request()
        self.work()
        assert waiter.slot is not None
        assert waiter.woken == 1
        return waiter.slot

    def give(self, slot: Slot[Fake]) -> None:
        self.core.give_back(slot, self.now)


def test_books_grow_to_the_maximum_only() -> None:
    books = Books(1, 2)
    assert books.work() == Sleep(None)
    assert books.core.stats().idle == 1
    first, second = books.take(), books.take()
    third = books.request()
    assert books.work() == Sleep(None)
    assert not third.done
    stats = books.core.stats()
    assert (stats.size, stats.in_use, stats.idle, stats.waiting) == (2, 2, 0, 1)
    books.now += 3
    books.give(first)
    assert third.slot is first
    assert third.woken == 1
    stats = books.core.stats()
    assert (stats.in_use, stats.waiting, stats.requests, stats.requests_queued) == (2, 0, 3, 2)
    assert (stats.wait_total, stats.wait_longest, stats.use_total) == (3, 3, 3)
    books.give(second)
    books.give(first)
    assert books.core.stats().idle == 2


def test_books_are_fair() -> None:
    books = Books(0, 1)
    slot = books.take()
    waiters = [books.request() for _ in range(5)]
    for waiter in waiters:
        assert not waiter.done
        books.give(slot)
        assert waiter.slot is slot
    # Nobody overtakes those who wait.
    late = books.request()
    assert not late.done
    books.give(slot)
    assert late.slot is slot


def test_books_give_what_was_used_last() -> None:
    books = Books(0, 3, max_idle=60)
    slots = [books.take() for _ in range(3)]
    for slot in slots:
        books.give(slot)
    for _ in range(5):
        taken = books.take()
        assert taken is slots[2]
        books.now += 20
        books.give(taken)
        books.work()
    # The others have grown idle meanwhile.
    assert books.core.stats().size == 1
    assert books.core.stats().closed_idle == 2
    assert set(books.closed) == {slots[0].connection, slots[1].connection}


def test_books_keep_the_minimum() -> None:
    books = Books(2, 4, max_idle=10, max_lifetime=100)
    slots = [books.take() for _ in range(4)]
    for slot in slots:
        books.give(slot)
    sleep = books.work()
    assert sleep == Sleep(10)
    books.now += 10
    books.work()
    assert books.core.stats().idle == 2
    books.now += 100
    books.work()
    stats = books.core.stats()
    assert (stats.idle, stats.closed_lifetime, stats.connections_made) == (2, 2, 6)


def test_books_retire_what_comes_back_old_or_closed() -> None:
    books = Books(0, 1, max_lifetime=100)
    slot = books.take()
    books.now += 101
    waiter = books.request()
    books.give(slot)
    assert not waiter.done
    assert books.core.has_duty
    books.work()
    assert waiter.slot is not None and waiter.slot is not slot
    assert books.closed == [slot.connection]
    waiter.slot.connection.closed = True
    books.give(waiter.slot)
    assert books.core.stats().closed_bad == 1
    assert books.take().connection.closed is False


def test_books_try_again_after_a_while() -> None:
    books = Books(0, 2)
    waiter = books.request()
    rests = []
    for _ in range(9):
        assert books.core.duty(books.now) == Make()
        books.core.make_failed(segue.OperationalError("gone"), books.now)
        sleep = books.core.duty(books.now)
        assert isinstance(sleep, Sleep)
        assert sleep.seconds is not None
        rests.append(round(sleep.seconds, 6))
        books.now += sleep.seconds
    assert rests == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert not waiter.done
    books.work()
    assert waiter.slot is not None
    assert books.core.last_error is None
    assert books.core.stats().connections_failed == 9


def test_books_tell_at_once_what_does_not_pass() -> None:
    books = Books(0, 2)
    waiter = books.request()
    assert books.core.duty(books.now) == Make()
    error = segue.errors.InvalidPassword("no")
    books.core.make_failed(error, books.now)
    assert waiter.error is error
    assert waiter.woken == 1
    assert books.core.stats().waiting == 0


def test_books_pass_on_what_was_given_too_late() -> None:
    books = Books(0, 1)
    slot = books.take()
    first, second, third = books.request(), books.request(), books.request()
    books.core.give_up(second, books.now)
    books.give(slot)
    assert first.slot is slot
    books.core.give_up(first, books.now)
    assert first.slot is None
    assert third.slot is slot
    assert not second.done


def test_books_limit_who_waits() -> None:
    books = Books(0, 1, max_waiting=1)
    books.take()
    books.request()
    with pytest.raises(PoolFull):
        books.request()
    assert books.core.stats().requests_refused == 1


def test_books_that_are_closed() -> None:
    books = Books(2, 3)
    books.work()
    slot = books.take()
    books.take()
    books.take()
    waiter = books.request()
    books.core.close()
    assert isinstance(waiter.error, PoolClosed)
    books.give(slot)
    assert books.work() == Sleep(None)
    assert books.closed == [slot.connection]
    with pytest.raises(PoolClosed):
        books.request()


def test_books_that_are_drained() -> None:
    books = Books(2, 3)
    books.work()
    slot = books.take()
    # One is being made meanwhile.
    books.core.request(Woken(), books.now)
    waiter = books.request()
    duty = books.core.duty(books.now)
    assert duty == Make()
    books.core.drain()
    books.core.made(Fake(), books.now, duty.generation)
    assert not waiter.done
    books.give(slot)
    assert not waiter.done
    books.open.add(books.core._retired[-2])
    books.work()
    assert waiter.slot is not None and waiter.slot is not slot
    assert slot.connection.closed
    stats = books.core.stats()
    # The other idle one had been given to the first who asked.
    assert (stats.closed_drained, stats.size) == (2, 2)


@pytest.mark.parametrize("seed", range(40))
def test_books_always_balance(seed: int) -> None:
    """Whatever happens in whatever order: nobody waits for nothing, and nothing is lost."""
    rng = random.Random(seed)
    low = rng.randint(0, 3)
    books = Books(
        low,
        max(low, rng.randint(1, 5)),
        max_lifetime=rng.choice([None, 50.0]),
        max_idle=rng.choice([None, 5.0]),
    )
    taken: list[Slot[Fake]] = []
    waiting: list[Woken] = []
    for _ in range(600):
        books.now += rng.choice([0.0, 0.1, 3.0])
        action = rng.randrange(6)
        if rng.random() < 0.02:
            books.core.drain()
        if action <= 1:
            waiting.append(books.request())
        elif action <= 3 and taken:
            slot = taken.pop(rng.randrange(len(taken)))
            if rng.random() < 0.1:
                slot.connection.closed = True
                books.open.remove(slot.connection)
            books.give(slot)
        elif action == 4 and waiting and rng.random() < 0.3:
            books.core.give_up(waiting.pop(rng.randrange(len(waiting))), books.now)
        elif rng.random() < 0.8:
            books.work()
        done = [waiter for waiter in waiting if waiter.done]
        # Granted in the order in which they asked.
        assert done == waiting[: len(done)]
        waiting = waiting[len(done) :]
        for waiter in done:
            assert waiter.woken == 1
            assert waiter.slot is not None
            assert not waiter.slot.connection.closed
            taken.append(waiter.slot)
        assert len({slot.connection for slot in taken}) == len(taken)
        stats = books.core.stats()
        assert stats.in_use == len(taken)
        assert stats.waiting == len(waiting)
        assert not (stats.waiting and stats.idle)
        assert stats.size <= stats.max_size
    while taken or waiting:
        for slot in taken:
            books.give(slot)
        books.work()
        taken = [waiter.slot for waiter in waiting if waiter.slot is not None]
        waiting = [waiter for waiter in waiting if not waiter.done]
    books.work()
    stats = books.core.stats()
    assert stats.min_size <= stats.size == stats.idle == len(books.open)
    books.core.close()
    books.work()
    assert not books.open


@pytest.mark.parametrize(
    "sizes",
    [
        {"min_size": -1},
        {"min_size": 3, "max_size": 2},
        {"min_size": 0, "max_size": 0},
        {"max_waiting": -1},
        {"max_idle": 0},
        {"max_lifetime": -1.0},
    ],
)
def test_sizes_that_make_no_sense(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        segue.Pool("host=localhost", open=False, **sizes)


# With real servers.


def wait_until(condition: Callable[[], object], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


@contextmanager
def pool_of(uri: str, *args: Any, **options: Any) -> Iterator[segue.Pool]:
    with segue.Pool(uri, *args, **options) as pool:
        pool.wait()
        yield pool


def test_a_block_commits_or_rolls_back(segue_cluster: Cluster) -> None:
    with pool_of(segue_cluster.uri, min_size=1) as pool:
        with pool.connection() as conn:
            conn.execute("CREATE TABLE work (id int)")
            conn.execute("INSERT INTO work VALUES (1)")
        with pytest.raises(ZeroDivisionError), pool.connection() as again:
            assert again is conn
            again.execute("INSERT INTO work VALUES (2)")
            raise ZeroDivisionError
        with pool.connection() as conn:
            assert conn.execute("SELECT id FROM work").fetchall() == [(1,)]
        stats = pool.stats()
        assert (stats.size, stats.idle, stats.requests, stats.in_use) == (1, 1, 3, 0)
        assert stats.as_dict()["connections_made"] == 1


def test_it_takes_what_connect_takes(uri: str) -> None:
    with (
        pool_of(
            uri,
            min_size=1,
            autocommit=True,
            row_factory=segue.rows.dict_row,
            application_name="pooled",
        ) as pool,
        pool.connection() as conn,
    ):
        assert conn.autocommit
        row = conn.execute("SELECT current_setting('application_name') AS name").fetchone()
        assert row == {"name": "pooled"}
        assert pool.client.number == conn.client.number


def test_it_grows_and_shrinks(uri: str) -> None:
    with pool_of(uri, min_size=1, max_size=4, max_idle=0.3) as pool:
        taken = [pool.getconn() for _ in range(4)]
        assert len(set(map(id, taken))) == 4
        assert pool.stats().size == 4
        with pytest.raises(PoolTimeout, match="4 of 4"):
            pool.getconn(timeout=0.05)
        for conn in taken:
            pool.putconn(conn)
        wait_until(lambda: pool.stats().size == 1)
        stats = pool.stats()
        assert (stats.closed_idle, stats.requests_timed_out, stats.waiting) == (3, 1, 0)
        assert sum(conn.closed for conn in taken) >= 2
        pool.resize(3)
        wait_until(lambda: pool.stats().idle == 3)
        assert (pool.min_size, pool.max_size) == (3, 4)


def test_threads_are_served_in_turn(uri: str) -> None:
    order: list[int] = []
    with pool_of(uri, min_size=1, max_size=1) as pool:
        held = pool.getconn()

        def work(number: int) -> None:
            with pool.connection() as conn:
                order.append(number)
                conn.execute("SELECT 1")

        threads = []
        for number in range(8):
            thread = threading.Thread(target=work, args=(number,), daemon=True)
            threads.append(thread)
            thread.start()
            wait_until(lambda: pool.stats().waiting == len(threads))
        pool.putconn(held)
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert order == list(range(8))


def test_many_threads(uri: str) -> None:
    def work(number: int) -> int:
        with pool.connection() as conn:
            row = conn.execute("SELECT %s::int", (number,)).fetchone()
            assert row is not None
            return int(row[0])

    with pool_of(uri, min_size=0, max_size=5) as pool, ThreadPoolExecutor(20) as threads:
        assert list(threads.map(work, range(1000))) == list(range(1000))
        stats = pool.stats()
        assert stats.requests == 1000
        assert 1 <= stats.connections_made <= 5
        assert stats.in_use == 0
        assert stats.wait_longest <= stats.wait_total


def test_old_connections_are_replaced(uri: str) -> None:
    with pool_of(uri, min_size=2, max_lifetime=0.3) as pool:
        with pool.connection() as conn:
            pass
        wait_until(lambda: pool.stats().closed_lifetime >= 2)
        wait_until(lambda: conn.closed)
        wait_until(lambda: pool.stats().idle == 2)
        held = pool.getconn()
        time.sleep(0.4)
        assert held.execute("SELECT 1").fetchone() == (1,)
        held.commit()
        pool.putconn(held)
        wait_until(lambda: held.closed)


def test_drain_replaces_all(uri: str) -> None:
    with pool_of(uri, min_size=2) as pool:
        held = pool.getconn()
        pool.drain()
        assert held.execute("SELECT 1").fetchone() == (1,)
        held.commit()
        wait_until(lambda: pool.stats().idle == 1)
        with pool.connection() as conn:
            assert conn is not held
        pool.putconn(held)
        wait_until(lambda: held.closed and pool.stats().idle == 2)
        stats = pool.stats()
        assert (stats.closed_drained, stats.connections_made) == (2, 4)


def test_an_open_transaction_is_rolled_back(
    segue_cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    with pool_of(segue_cluster.uri, min_size=1, max_size=1) as pool:
        with pool.connection() as conn:
            conn.execute("CREATE TABLE work (id int)")
        conn = pool.getconn()
        conn.execute("INSERT INTO work VALUES (1)")
        pool.putconn(conn)
        conn = pool.getconn()
        with pytest.raises(segue.errors.UndefinedTable):
            conn.execute("SELECT 1 FROM nowhere")
        pool.putconn(conn)
        with pool.connection() as again:
            assert again is conn
            assert again.execute("SELECT id FROM work").fetchall() == []
    records = [r for r in caplog.records if r.name == "segue.pool"]
    assert [r.levelno for r in records] == [logging.WARNING] * 2
    assert "transaction open" in records[0].message


def test_what_is_not_the_pools_is_refused(uri: str) -> None:
    with pool_of(uri, min_size=1) as pool, segue.connect(uri) as stranger:
        with pytest.raises(segue.InterfaceError):
            pool.putconn(stranger)
        conn = pool.getconn()
        pool.putconn(conn)
        with pytest.raises(segue.InterfaceError):
            pool.putconn(conn)
        assert pool.stats().in_use == 0


def test_a_closed_connection_is_replaced(uri: str) -> None:
    with pool_of(uri, min_size=1, max_size=1) as pool:
        with pool.connection() as conn:
            conn.close()
        with pool.connection() as other:
            assert other is not conn
            assert other.execute("SELECT 1").fetchone() == (1,)
        assert pool.stats().closed_bad == 1


def test_a_connection_with_a_block_open_is_replaced(uri: str) -> None:
    with pool_of(uri, min_size=1, max_size=1) as pool:
        conn = pool.getconn()
        block = conn.transaction()
        block.__enter__()
        pool.putconn(conn)
        assert conn.closed
        with pool.connection() as other:
            assert other.execute("SELECT 1").fetchone() == (1,)
        assert pool.stats().closed_bad == 1


def test_configure_check_and_reset(uri: str) -> None:
    calls: list[str] = []
    bad: list[segue.Connection] = []

    def configure(conn: segue.Connection) -> None:
        calls.append("configure")
        conn.execute("SET search_path = 'somewhere'")

    def check(conn: segue.Connection) -> None:
        calls.append("check")
        segue.Pool.check_connection(conn)
        if conn in bad:
            raise ZeroDivisionError

    def reset(conn: segue.Connection) -> None:
        calls.append("reset")
        conn.execute("SET search_path = 'somewhere'")

    with pool_of(
        uri, min_size=1, max_size=1, configure=configure, check=check, reset=reset
    ) as pool:
        with pool.connection() as conn:
            assert conn.info.transaction_status == segue.TransactionStatus.IDLE
            assert conn.execute("SHOW search_path").fetchone() == ("somewhere",)
            conn.execute("SET search_path = 'elsewhere'")
        assert calls == ["configure", "check", "reset"]
        with pool.connection() as conn:
            assert conn.execute("SHOW search_path").fetchone() == ("somewhere",)
        bad.append(conn)
        with pool.connection() as other:
            assert other is not conn
        assert conn.closed
        assert pool.stats().closed_bad == 1


def test_a_reset_that_fails_costs_the_connection_only(uri: str) -> None:
    def reset(conn: segue.Connection) -> None:
        raise ZeroDivisionError

    with pool_of(uri, min_size=1, max_size=1, reset=reset) as pool:
        for _ in range(3):
            with pool.connection() as conn:
                assert conn.execute("SELECT 1").fetchone() == (1,)
            assert conn.closed
        wait_until(lambda: pool.stats().idle == 1)
        assert pool.stats().connections_made == 4


def test_a_configure_that_fails_is_told(uri: str) -> None:
    def configure(conn: segue.Connection) -> None:
        raise ZeroDivisionError("configure")

    with segue.Pool(uri, min_size=1, max_size=1, configure=configure) as pool:
        with pytest.raises(ZeroDivisionError):
            pool.wait()
        started = time.monotonic()
        with pytest.raises(ZeroDivisionError):
            pool.getconn(timeout=30)
        assert time.monotonic() - started < 20


def test_a_database_that_is_not_there_is_told(cluster: Cluster) -> None:
    uri = cluster.uri.replace("/app", "/nowhere")
    with segue.Pool(uri, min_size=1) as pool:
        with pytest.raises(segue.Error, match="nowhere"):
            pool.wait()
        with pytest.raises(segue.Error, match="nowhere"):
            pool.getconn()
    with pytest.raises(segue.errors.ConfigurationError):
        segue.Pool("host=localhost nonsense=1")


def test_opening_and_closing(uri: str) -> None:
    pool = segue.Pool(uri, min_size=1, open=False)
    assert pool.closed
    for use in pool.getconn, pool.wait:
        with pytest.raises(PoolClosed, match="not open"):
            use()
    pool.open(wait=True)
    assert not pool.closed
    held = pool.getconn()
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            pool.getconn()
        except PoolClosed as error:
            failed.append(error)

    pool.resize(1, 1)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    wait_until(lambda: pool.stats().waiting == 1)
    pool.close()
    pool.close()
    thread.join(30)
    assert len(failed) == 1
    assert held.execute("SELECT 1").fetchone() == (1,)
    held.rollback()
    pool.putconn(held)
    assert held.closed
    for use in pool.getconn, pool.wait, pool.open:
        with pytest.raises(PoolClosed):
            use()
    assert "closed" in repr(pool)


def test_pool_errors_are_in_the_db_api_tree() -> None:
    for cls in PoolTimeout, PoolClosed, PoolFull:
        assert issubclass(cls, segue.OperationalError)
    assert PoolTimeout("late").is_retryable
    assert not PoolClosed("closed").is_retryable


def test_a_forgotten_pool_leaves_nothing(uri: str) -> None:
    pool = segue.Pool(uri, min_size=1, max_idle=0.1)
    pool.wait()
    pool.resize(0, 2)
    [worker] = [t for t in threading.enumerate() if t.name == f"segue-{pool.name}"]
    del pool
    worker.join(30)
    assert not worker.is_alive()


def test_a_server_that_is_not_there_yet(segue_cluster: Cluster) -> None:
    """Whoever asks waits for the server too, and a timeout says why there was no connection."""
    segue_cluster.kill_primary()
    with segue.Pool(segue_cluster.uri, min_size=1, failover_timeout_ms=300) as pool:
        with pytest.raises(PoolTimeout, match="attempt to connect failed") as caught:
            pool.getconn(timeout=3)
        assert isinstance(caught.value.__cause__, segue.OperationalError)
        segue_cluster.promote()
        with pool.connection(timeout=30) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
        assert pool.stats().connections_failed >= 1


@pytest.mark.parametrize("check", [None, segue.Pool.check_connection])
def test_a_failover_is_no_error(
    segue_cluster: Cluster, check: Callable[[segue.Connection], object] | None
) -> None:
    """Twenty threads, eight connections, one failover: each insert is there exactly once."""
    done: list[int] = []
    errors: list[BaseException] = []
    stop = threading.Event()
    lock = threading.Lock()
    numbers = iter(range(10**9))

    def work() -> None:
        try:
            while not stop.is_set():
                with lock:
                    number = next(numbers)
                with pool.connection() as conn:
                    conn.execute("INSERT INTO work VALUES (%s)", (number,))
                with lock:
                    done.append(number)
        except BaseException as error:
            errors.append(error)
            stop.set()

    with pool_of(segue_cluster.uri, min_size=2, max_size=8, check=check) as pool:
        with pool.connection() as conn:
            conn.execute("CREATE TABLE work (id int)")
        threads = [threading.Thread(target=work, daemon=True) for _ in range(20)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(done) > 100 or errors)
        segue_cluster.failover()
        so_far = len(done)
        wait_until(lambda: len(done) > so_far + 200 or errors)
        stop.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert not errors
        stats = pool.stats()
        assert (stats.requests_timed_out, stats.closed_bad, stats.connections_failed) == (0, 0, 0)
        assert pool.client.stats().links_lost >= 2
    rows = segue_cluster.primary.sql("SELECT id FROM work ORDER BY id")
    assert [int(row[0] or 0) for row in rows] == sorted(done)


def test_an_interrupt_leaves_nothing_behind(uri: str) -> None:
    script = """
import os, signal, sys, threading, time, segue
pool = segue.Pool(sys.argv[1], min_size=1, max_size=1)
held = pool.getconn()
def interrupt():
    while pool.stats().waiting == 0:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    pool.getconn()
except KeyboardInterrupt:
    pass
else:
    sys.exit("no interrupt")
assert pool.stats().waiting == 0
pool.putconn(held)
with pool.connection() as conn:
    assert conn is held
pool.close()
"""
    run(script, uri)


def test_a_child_has_connections_of_its_own(uri: str) -> None:
    script = """
import os, sys, warnings, segue
warnings.simplefilter("ignore", DeprecationWarning)
pool = segue.Pool(sys.argv[1], min_size=2)
pool.wait()
held = pool.getconn()
pid = os.fork()
if pid == 0:
    code = 9
    try:
        with pool.connection() as conn:
            assert conn is not held
            assert conn.execute("SELECT 1").fetchone() == (1,)
        pool.putconn(held)
        assert pool.stats().in_use == 0
        pool.close()
        code = 0
    finally:
        os._exit(code)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert held.execute("SELECT 1").fetchone() == (1,)
held.rollback()
pool.putconn(held)
for _ in range(5):
    with pool.connection() as conn:
        assert conn.execute("SELECT 2").fetchone() == (2,)
assert pool.stats().connections_made == 2
"""
    run(script, uri)


def test_a_fork_while_connections_are_made(uri: str) -> None:
    """As servers do that load the application first. The threads of the parent are amid anything:

    a child once waited for ever to import a module that one of them had been importing.
    """
    script = """
import os, sys, warnings, segue
warnings.simplefilter("ignore", DeprecationWarning)
pool = segue.Pool(sys.argv[1], min_size=3)
pids = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            with pool.connection() as conn:
                assert conn.execute("SELECT 1").fetchone() == (1,)
            pool.close()
            code = 0
        finally:
            os._exit(code)
    pids.append(pid)
for pid in pids:
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
pool.wait()
"""
    for _ in range(3):
        run(script, uri)


def run(script: str, uri: str) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", script, uri], env=env, cwd="/", check=True, timeout=60
    )
