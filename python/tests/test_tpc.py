"""Two-phase commit, by the DB-API's methods, through both faces."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import segue
import segue.aio
from segue._tpc import Xid
from segue.testing import Cluster


@pytest.fixture(scope="module")
def servers() -> Iterator[Cluster]:
    with Cluster(standbys=0, settings={"max_prepared_transactions": "20"}) as cluster:
        with segue.connect(cluster.uri, autocommit=True) as conn:
            conn.execute("CREATE TABLE t (id text)")
        yield cluster


class Face:
    """Calls what is awaited with one face, and not with the other."""

    def __init__(self, conn: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self.conn, self._loop = conn, loop

    def __call__(self, name: str, *args: Any) -> Any:
        made = getattr(self.conn, name)(*args)
        return made if self._loop is None else self._loop.run_until_complete(made)

    def ids(self, like: str) -> list[str]:
        cur = self("execute", "SELECT id FROM t WHERE id LIKE %s ORDER BY id", (like,))
        rows = cur.fetchall()
        if self._loop is not None:
            rows = self._loop.run_until_complete(rows)
        self("rollback")
        return [id for (id,) in rows]


@pytest.fixture(params=["sync", "aio"])
def face(servers: Cluster, request: pytest.FixtureRequest) -> Iterator[Face]:
    if request.param == "sync":
        with segue.connect(servers.uri) as conn:
            yield Face(conn, None)
        return
    loop = asyncio.new_event_loop()
    other = loop.run_until_complete(segue.aio.connect(servers.uri))
    try:
        yield Face(other, loop)
    finally:
        loop.run_until_complete(other.close())
        loop.close()


@pytest.fixture
def xid(face: Face) -> Xid:
    made: Xid = face.conn.xid(4711, f"it's {uuid.uuid4().hex}", "branch")
    return made


def insert(face: Face, xid: Xid) -> None:
    face("execute", "INSERT INTO t VALUES (%s)", (xid.gtrid,))


@pytest.mark.parametrize("prepare", [True, False])
@pytest.mark.parametrize("end", ["tpc_commit", "tpc_rollback"])
def test_from_end_to_end(face: Face, xid: Xid, end: str, prepare: bool) -> None:
    face("tpc_begin", xid)
    insert(face, xid)
    if prepare:
        face("tpc_prepare")
        [found] = [it for it in face("tpc_recover") if it == xid]
        assert (found.format_id, found.gtrid, found.bqual) == (4711, xid.gtrid, "branch")
        assert found.prepared is not None
        assert found.owner
        assert found.database
    face(end)
    assert face.ids(xid.gtrid) == ([xid.gtrid] if end == "tpc_commit" else [])
    assert xid not in face("tpc_recover")
    # The connection is as it was before.
    assert not face.conn.autocommit
    face("execute", "SELECT 1")
    face("rollback")


@pytest.mark.parametrize("end", ["tpc_commit", "tpc_rollback"])
def test_another_connection_ends_it(servers: Cluster, face: Face, xid: Xid, end: str) -> None:
    with segue.connect(servers.uri) as first:
        first.tpc_begin(xid)
        first.execute("INSERT INTO t VALUES (%s)", (xid.gtrid,))
        first.tpc_prepare()
        with pytest.raises(segue.ProgrammingError, match="tpc_commit"):
            first.commit()
        first._tpc = None
    face(end, str(xid))
    assert face.ids(xid.gtrid) == ([xid.gtrid] if end == "tpc_commit" else [])
    with pytest.raises(segue.errors.UndefinedObject):
        face(end, xid)
    assert not face.conn.autocommit


def test_a_transaction_that_has_failed(face: Face, xid: Xid) -> None:
    """PREPARE TRANSACTION would roll it back and say nothing."""
    face("tpc_begin", xid)
    with pytest.raises(segue.errors.UndefinedTable):
        face("execute", "INSERT INTO nowhere VALUES (1)")
    with pytest.raises(segue.errors.TransactionFailed):
        face("tpc_prepare")
    assert xid not in face("tpc_recover")
    # It is over: there is nothing left to commit.
    with pytest.raises(segue.ProgrammingError, match="behind tpc_begin"):
        face("tpc_commit")
    face("tpc_begin", xid)
    face("tpc_rollback")


def test_what_the_server_refuses(face: Face, xid: Xid) -> None:
    face("tpc_begin", xid)
    face("execute", "CREATE TEMP TABLE gone ()")
    with pytest.raises(segue.errors.FeatureNotSupported):
        face("tpc_prepare")
    assert face.conn.info.transaction_status is segue.TransactionStatus.IDLE


def test_out_of_turn(face: Face, xid: Xid) -> None:
    for call in ("tpc_prepare", "tpc_commit", "tpc_rollback"):
        with pytest.raises(segue.ProgrammingError, match="behind tpc_begin"):
            face(call)
    face("tpc_begin", xid)
    for call, *args in (
        ("tpc_begin", xid),
        ("commit",),
        ("rollback",),
        ("tpc_commit", xid),
        ("tpc_rollback", "other"),
    ):
        with pytest.raises(segue.ProgrammingError):
            face(call, *args)
    insert(face, xid)
    face("tpc_prepare")
    with pytest.raises(segue.ProgrammingError, match="already"):
        face("tpc_prepare")
    face("execute", "SELECT 1")
    with pytest.raises(segue.ProgrammingError, match="no other transaction"):
        face("tpc_commit")
    face("execute", "ROLLBACK")
    face("tpc_rollback")
    face("execute", "SELECT 1")
    with pytest.raises(segue.ProgrammingError, match="no transaction is open"):
        face("tpc_begin", xid)
    face("rollback")
    face("set_autocommit", True) if face._loop is not None else face.conn.set_autocommit(True)
    with pytest.raises(segue.ProgrammingError, match="autocommit"):
        face("tpc_begin", xid)


def test_isolation_is_the_connection_s(face: Face, xid: Xid) -> None:
    face.conn.isolation_level = segue.IsolationLevel.SERIALIZABLE
    face("tpc_begin", xid)
    cur = face("execute", "SHOW transaction_isolation")
    row = cur.fetchone()
    row = row if face._loop is None else face._loop.run_until_complete(row)
    assert row == ("serializable",)
    face("tpc_rollback")


@pytest.mark.segue_cluster(settings={"max_prepared_transactions": "5"})
def test_a_failover_before_it_is_prepared(segue_cluster: Cluster) -> None:
    """Until then it is replayed as any other, and what is prepared is on the standby as well."""
    with segue.connect(segue_cluster.uri) as conn:
        conn.execute("CREATE TABLE t (id int)")
        conn.commit()
        conn.tpc_begin("one")
        conn.execute("INSERT INTO t VALUES (1)")
        segue_cluster.failover()
        conn.execute("INSERT INTO t VALUES (2)")
        conn.tpc_prepare()
        assert [str(it) for it in conn.tpc_recover()] == ["one"]
        conn.tpc_commit()
        assert conn.execute("SELECT count(*) FROM t").fetchone() == (2,)


def test_names() -> None:
    xid = Xid.from_parts(1, "g", "b")
    assert str(xid) == "1_Zw==_Yg=="
    assert Xid.from_string(str(xid)) == xid
    assert [xid[i] for i in range(len(xid))] == [1, "g", "b"]
    assert repr(xid) == "Xid(1, 'g', 'b')"
    for text in ("plain", "1_x_y", "1_Zw==_", "99999999999_Zw==_Yg==", "1_Zw_Yg"):
        assert str(Xid.from_string(text)) == text
        assert Xid.from_string(text).format_id in (None, 1)
    for parts in (
        (-1, "g", "b"),
        (2**31, "g", "b"),
        (1, "ü", "b"),
        (1, "g", "b" * 65),
        (1, "\n", ""),
    ):
        with pytest.raises(ValueError, match=r"format_id|gtrid|bqual"):
            Xid.from_parts(*parts)
