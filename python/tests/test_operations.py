"""What an event loop polls, and what a failover looks like: for both, nothing is lost."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import Any

import pytest

import segue
from segue import _segue
from segue.testing import Cluster

DONE, READ, WRITE, HELP = range(4)


class Loop:
    """The smallest event loop there is."""

    def __init__(self, conn: segue.Connection) -> None:
        self.conn = conn
        self.wants: list[int] = []

    def run(self, operation: Any) -> Any:
        deadline = time.monotonic() + 60
        while (wants := operation.poll()) != DONE:
            assert time.monotonic() < deadline
            self.wants.append(wants)
            if wants == HELP:
                self.conn._help()
                continue
            fd = self.conn._fileno()
            assert fd is not None
            select.select([fd], [fd] if wants == WRITE else [], [], 1)
        return operation

    def execute(self, query: str, params: Any = None) -> segue.Cursor:
        cursor = self.conn.cursor()
        self.run(self.conn._op_execute(query, params)).hand_over(cursor, query)
        return cursor


def test_operations(uri: str) -> None:
    with segue.connect(uri) as conn:
        loop = Loop(conn)
        assert loop.execute("SELECT %s, 'a'", (5,)).fetchall() == [(5, "a")]
        assert READ in loop.wants and HELP not in loop.wants
        with pytest.raises(segue.errors.DivisionByZero):
            loop.execute("SELECT 1/0")
        loop.run(conn._op_rollback())
        loop.run(conn._op_ready())
        cursor = conn.cursor()
        loop.execute("CREATE TEMP TABLE ops (a int, b text)")
        rows = [(i, "x" * 50) for i in range(20000)]
        many = loop.run(conn._op_many("INSERT INTO ops VALUES (%s, %s)", rows))
        many.hand_over(cursor)
        assert cursor.rowcount == 20000
        ticket = loop.run(conn._op_stream_start("SELECT a FROM ops ORDER BY a")).ticket()
        found: list[Any] = []
        while (piece := loop.run(conn._op_stream(ticket)).rows(cursor)) is not None:
            found += piece
        assert found == [(i,) for i in range(20000)]
        ticket = loop.run(conn._op_stream_start("SELECT a FROM ops")).ticket()
        loop.run(conn._op_abandon(ticket))

        begun = loop.run(conn._op_copy_start("COPY ops FROM STDIN"))
        ticket = begun.ticket()
        assert begun.takes_data()
        for number in range(3000):
            loop.run(conn._op_copy_send(ticket, conn._copy_row((number, "y" * 1000))))
        loop.run(conn._op_copy_end(ticket)).hand_over(cursor)
        assert cursor.rowcount == 3000
        begun = loop.run(conn._op_copy_start("COPY (SELECT 1, NULL) TO STDOUT"))
        assert not begun.takes_data()
        assert loop.run(conn._op_copy_piece(begun.ticket())).piece() == b"1\t\\N\n"
        assert loop.run(conn._op_copy_piece(begun.ticket())).piece() is None
        loop.run(conn._op_commit()).check_committed()
        assert conn.info.transaction_status == segue.TransactionStatus.IDLE

        loop.run(conn._op_begin(read_only=True))
        assert loop.execute("SHOW transaction_read_only").fetchone() == ("on",)
        loop.run(conn._op_rollback())
        conn.autocommit = True
        loop.execute("LISTEN ops")
        loop.execute("NOTIFY ops, 'here'")
        assert loop.run(conn._op_notification()).notification()[:2] == ("ops", "here")


def test_executemany_outside_a_transaction_is_all_or_nothing(uri: str) -> None:
    with segue.connect(uri, autocommit=True) as conn:
        conn.execute("DROP TABLE IF EXISTS whole; CREATE TABLE whole (a int PRIMARY KEY)")
        rows = [(i,) for i in range(5000)]
        for bad in (10, 4500):
            with pytest.raises(segue.errors.UniqueViolation):
                conn.cursor().executemany("INSERT INTO whole VALUES (%s)", [*rows[:bad], (0,)])
            assert conn.execute("SELECT count(*) FROM whole").fetchone() == (0,)
        with pytest.raises(segue.DataError):
            conn.cursor().executemany("INSERT INTO whole VALUES (%s)", [*rows, ("a\0",)])
        assert conn.execute("SELECT count(*) FROM whole").fetchone() == (0,)
        loop, cursor = Loop(conn), conn.cursor()
        with pytest.raises(segue.errors.UniqueViolation):
            loop.run(conn._op_many("INSERT INTO whole VALUES (%s)", [*rows, (0,)]))
        assert conn.info.transaction_status == segue.TransactionStatus.IDLE
        # int4 and int8 in turn: requests of their own, one transaction.
        mixed = [(i if i % 2 else i + 2**40,) for i in range(10)]
        with pytest.raises(segue.errors.NumericValueOutOfRange):
            cursor.executemany("INSERT INTO whole VALUES (%s)", mixed)
        assert conn.execute("SELECT count(*) FROM whole").fetchone() == (0,)
        cursor.executemany("INSERT INTO whole VALUES (%s)", iter(rows))
        assert cursor.rowcount == 5000
        assert conn.execute("SELECT count(*) FROM whole").fetchone() == (5000,)


def test_a_transaction_outlives_its_server() -> None:
    with Cluster(standbys=1) as cluster, segue.connect(cluster.uri) as conn:
        conn.execute("CREATE TABLE t (a int)")
        conn.commit()
        conn.execute("INSERT INTO t VALUES (1)")
        cluster.failover()
        conn.execute("INSERT INTO t VALUES (2)")
        conn.commit()
        assert conn.execute("SELECT array_agg(a ORDER BY a) FROM t").fetchone() == ([1, 2],)


def test_ctrl_c_while_there_is_no_server() -> None:
    with Cluster(standbys=0) as cluster:
        conn = segue.connect(cluster.uri, autocommit=True)
        conn.execute("SELECT 1")
        cluster.kill_primary()
        timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            conn.execute("SELECT 2")
        assert time.monotonic() - start < 15
        timer.join()
        conn.close()


def test_the_module_says_its_version() -> None:
    assert segue.__version__ == _segue.__version__
