"""SQLAlchemy on Segue: what its own suite does not ask, above all what a failover looks like."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects.postgresql.ranges import MultiRange
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.types import TypeEngine

import segue
from segue.sqlalchemy import SegueDialect, engine_url
from segue.testing import Cluster, Server


class Base(orm.DeclarativeBase):
    pass


class Work(Base):
    __tablename__ = "work"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(unique=True)


def engine_for(cluster: Cluster, **options: Any) -> sa.Engine:
    return sa.create_engine(engine_url(cluster.uri), **options)


def disposed(engine: sa.Engine) -> Iterator[sa.Engine]:
    yield engine
    engine.dispose()


@pytest.fixture
def engine(cluster: Cluster) -> Iterator[sa.Engine]:
    """On the cluster that tests leave as it is, with an empty table `work`."""
    engine = engine_for(cluster)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield from disposed(engine)


@pytest.fixture
def own(segue_cluster: Cluster) -> Iterator[sa.Engine]:
    """On a cluster of the test's own, with a pool of one connection."""
    engine = engine_for(segue_cluster, pool_size=1, max_overflow=0)
    Base.metadata.create_all(engine)
    yield from disposed(engine)


def notes(server: Server) -> list[str | None]:
    return [row[0] for row in server.sql("SELECT note FROM work ORDER BY id")]


# URLs.


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        ("postgresql://", {}),
        ("postgresql://db1/shop", {"host": "db1", "dbname": "shop"}),
        (
            "postgresql://ada:s%2Fecret@db1:5433,db2/shop?ledger=require",
            {
                "user": "ada",
                "password": "s/ecret",
                "host": "db1,db2",
                "port": "5433,",
                "dbname": "shop",
                "ledger": "require",
            },
        ),
        ("postgres://[::1]:5433,10.0.0.1:5434", {"host": "::1,10.0.0.1", "port": "5433,5434"}),
    ],
)
def test_a_uri_with_many_hosts_makes_a_url(uri: str, options: dict[str, object]) -> None:
    args, given = SegueDialect().create_connect_args(engine_url(uri))
    assert "".join(args) == ""
    assert {key: value for key, value in given.items() if value} == options


def test_hosts_are_named_as_in_psycopgs_urls(cluster: Cluster) -> None:
    hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in cluster.servers)
    engine = sa.create_engine(f"postgresql+segue://app@/app?{hosts}&application_name=by+url")
    with engine.connect() as conn:
        assert conn.scalar(sa.text("SHOW application_name")) == "by url"
        driver: Any = conn.connection.driver_connection
        assert len(driver._servers()) == 2
    engine.dispose()


def test_a_url_may_ask_for_a_reader(cluster: Cluster) -> None:
    url = engine_url(cluster.uri).update_query_dict({"writes": "false"})
    engine = sa.create_engine(url)
    with engine.connect() as conn:
        assert conn.scalar(sa.text("SELECT 1")) == 1
    engine.dispose()


@pytest.mark.parametrize("uri", ["mysql://db1", "db1", "", "postgresql:/db1"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(sa.exc.ArgumentError, match="postgresql://"):
        engine_url(uri)


# Failover.


def test_a_session_outlives_its_server(segue_cluster: Cluster, own: sa.Engine) -> None:
    with Session(own) as session, session.begin():
        session.add(Work(note="before"))
        session.flush()
        driver = session.connection().connection.driver_connection
        new = segue_cluster.failover()
        session.add(Work(note="after"))
        assert session.scalars(sa.select(Work.note).order_by(Work.id)).all() == ["before", "after"]
    assert notes(new) == ["before", "after"]
    with own.connect() as conn:
        assert conn.connection.driver_connection is driver


def test_a_commit_in_flight_is_done_once(segue_cluster: Cluster, own: sa.Engine) -> None:
    with Session(own) as session:
        session.add(Work(note="once"))
        session.flush()
        # A commit waits for the standby, which is paused, and so is in flight for sure.
        segue_cluster.pause(segue_cluster.standbys[0])
        with ThreadPoolExecutor(1) as thread:
            commit = thread.submit(session.commit)
            segue_cluster.primary.wait_for(
                "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            )
            segue_cluster.kill_primary()
            segue_cluster.resume(segue_cluster.standbys[0])
            new = segue_cluster.promote()
            commit.result(60)
        assert session.scalar(sa.select(sa.func.count()).select_from(Work)) == 1
    assert notes(new) == ["once"]


def test_the_pool_keeps_its_connections_over_a_failover(
    segue_cluster: Cluster, own: sa.Engine
) -> None:
    engine = engine_for(segue_cluster, pool_size=3, max_overflow=0, pool_pre_ping=True)
    seen: list[str] = []
    for event in ("invalidate", "soft_invalidate", "close"):
        sa.event.listen(engine, event, lambda *_, event=event: seen.append(event))
    held = [engine.connect() for _ in range(3)]
    drivers = {id(conn.connection.driver_connection) for conn in held}
    for conn in held[1:]:
        conn.close()
    segue_cluster.failover()
    held[0].execute(sa.insert(Work).values(note="held"))
    held[0].commit()
    held[0].close()
    again = [engine.connect() for _ in range(3)]
    assert {id(conn.connection.driver_connection) for conn in again} == drivers
    for conn in again:
        assert conn.scalars(sa.select(Work.note)).all() == ["held"]
        conn.close()
    assert seen == []
    engine.dispose()


def test_a_divergence_is_an_error_of_the_transaction_alone(
    segue_cluster: Cluster, own: sa.Engine
) -> None:
    with own.connect() as conn:
        conn.scalar(sa.text("SELECT random()"))
        conn.execute(sa.insert(Work).values(note="never"))
        segue_cluster.failover()
        with pytest.raises(sa.exc.OperationalError) as caught:
            conn.execute(sa.insert(Work).values(note="never either"))
        error = caught.value.orig
        assert isinstance(error, segue.ReplayDiverged)
        assert error.is_retryable
        assert not caught.value.connection_invalidated
        conn.rollback()
        conn.execute(sa.insert(Work).values(note="again"))
        conn.commit()
    assert notes(segue_cluster.primary) == ["again"]


def test_a_stream_goes_on_after_a_failover(segue_cluster: Cluster, own: sa.Engine) -> None:
    query = sa.text("SELECT g, repeat('x', 2000) FROM generate_series(1, 20000) g")
    with own.connect().execution_options(yield_per=100) as conn:
        result = conn.execute(query)
        first = result.fetchone()
        assert first is not None
        segue_cluster.failover()
        assert [row[0] for row in (first, *result)] == list(range(1, 20001))


def test_a_closed_connection_is_replaced(engine: sa.Engine) -> None:
    with engine.connect() as conn:
        driver: Any = conn.connection.driver_connection
        driver.close()
        with pytest.raises(sa.exc.DBAPIError) as caught:
            conn.scalar(sa.text("SELECT 1"))
        assert caught.value.connection_invalidated
    with engine.connect() as conn:
        assert conn.scalar(sa.text("SELECT 1")) == 1
        assert conn.connection.driver_connection is not driver


# Statements.


def test_keys_of_many_new_objects_come_with_their_insert(engine: sa.Engine) -> None:
    statements: list[str] = []
    sa.event.listen(
        engine,
        "before_cursor_execute",
        lambda _c, _cur, statement, *_: statements.append(statement),
    )
    with Session(engine) as session, session.begin():
        works = [Work(note=f"n{n}") for n in range(2500)]
        session.add_all(works)
        session.flush()
        assert len({work.id for work in works}) == 2500
        assert sum(statement.startswith("INSERT") for statement in statements) == 3
        found = {row.id: row.note for row in session.execute(sa.select(Work.id, Work.note))}
        assert found == {work.id: work.note for work in works}


def test_many_rows_are_counted(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        rows = [{"note": f"n{n}"} for n in range(100)]
        counting = conn.execution_options(preserve_rowcount=True)
        result = counting.execute(sa.insert(Work), rows)
        assert result.rowcount == 100
        ids = conn.scalars(sa.select(Work.id).order_by(Work.id)).all()
        update = sa.update(Work).where(Work.id == sa.bindparam("key"))
        result = conn.execute(update, [{"key": key, "note": f"m{key}"} for key in (*ids, -1)])
        assert result.rowcount == 100


def test_a_percent_sign_is_a_percent_sign(engine: sa.Engine) -> None:
    with engine.connect() as conn:
        assert conn.scalar(sa.text("SELECT '%s %(a)s %% %'")) == "%s %(a)s %% %"
        assert conn.scalar(sa.text("SELECT '%s' || :x"), {"x": "%"}) == "%s%"
        assert conn.scalar(sa.select(sa.literal(7) % 4)) == 3
        assert conn.scalar(sa.select(sa.literal("a%sb").contains("%s", autoescape=True)))
        # Written by hand, Python's styles work as well.
        assert conn.exec_driver_sql("SELECT %s::int", (1,)).scalar() == 1
        assert conn.exec_driver_sql("SELECT %(a)s::int", {"a": 2}).scalar() == 2


def test_pyformat_can_be_had(cluster: Cluster) -> None:
    engine = engine_for(cluster, paramstyle="pyformat")
    with engine.connect() as conn:
        statement = sa.select(sa.literal("%") + sa.literal_column("'%s'"))
        assert conn.scalar(statement) == "%%s"
    engine.dispose()


def test_streams_are_read_as_they_are_asked_for(engine: sa.Engine) -> None:
    query = sa.text("SELECT g FROM generate_series(1, 1000) g")
    with engine.connect() as conn:
        streaming = conn.execution_options(stream_results=True, max_row_buffer=10)
        result = streaming.execute(query)
        assert result.fetchmany(3) == [(1,), (2,), (3,)]
        # Others run meanwhile, and may end the transaction.
        assert conn.scalar(sa.text("SELECT 42"), execution_options={"stream_results": False}) == 42
        assert len(result.all()) == 997
        empty = streaming.execute(sa.text("SELECT 1 AS a, 'x' AS b WHERE false"))
        assert (list(empty.keys()), empty.all()) == (["a", "b"], [])
        broken_off = streaming.execute(query)
        assert broken_off.fetchone() == (1,)
        broken_off.close()
        assert streaming.execute(query).partitions(300).__next__()[-1] == (300,)
        with pytest.raises(sa.exc.DataError):
            streaming.execute(
                sa.text("SELECT 10 / (500 - g) FROM generate_series(1, 1000) g")
            ).all()
        conn.rollback()
        assert conn.scalar(sa.text("SELECT 1")) == 1


def test_objects_are_streamed(engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        session.add_all(Work(note=f"n{n}") for n in range(500))
    with Session(engine) as session:
        query = sa.select(Work).order_by(Work.id).execution_options(yield_per=50)
        assert [work.note for work in session.scalars(query)] == [f"n{n}" for n in range(500)]


def test_errors_are_sqlalchemys_with_segues_inside(engine: sa.Engine) -> None:
    with Session(engine) as session:
        session.add_all([Work(id=1, note="a"), Work(id=2, note="a")])
        with pytest.raises(sa.exc.IntegrityError) as caught:
            session.flush()
        error = caught.value.orig
        assert isinstance(error, segue.errors.UniqueViolation)
        assert error.diag.constraint_name == "work_note_key"
        session.rollback()
        with pytest.raises(sa.exc.ProgrammingError):
            session.execute(sa.text("SELECT * FROM nowhere"))
        with pytest.raises(sa.exc.InternalError):
            session.execute(sa.text("SELECT 1"))
        session.rollback()
        with session.begin_nested():
            session.add(Work(id=1, note="a"))
        with pytest.raises(sa.exc.IntegrityError), session.begin_nested():
            session.add(Work(id=1, note="b"))
            session.flush()
        session.commit()
        assert session.scalars(sa.select(Work.note)).all() == ["a"]


# Transactions.


def test_isolation_levels(engine: sa.Engine) -> None:
    def asked(conn: sa.Connection) -> list[Any]:
        names = ("isolation", "read_only", "deferrable")
        return [conn.scalar(sa.text(f"SHOW transaction_{name}")) for name in names]

    with engine.connect() as conn:
        assert asked(conn) == ["read committed", "off", "off"]
    with engine.connect() as conn:
        conn.execution_options(
            isolation_level="SERIALIZABLE", postgresql_readonly=True, postgresql_deferrable=True
        )
        assert asked(conn) == ["serializable", "on", "on"]
        assert conn.get_isolation_level() == "SERIALIZABLE"
    with engine.connect() as conn:
        assert asked(conn) == ["read committed", "off", "off"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(sa.insert(Work).values(note="at once"))
        conn.rollback()
    with engine.connect() as conn:
        assert conn.scalars(sa.select(Work.note)).all() == ["at once"]
    with (
        pytest.raises(sa.exc.ArgumentError),
        engine.connect().execution_options(isolation_level="CHAOS"),
    ):
        pass


@pytest.mark.segue_cluster(standbys=0, settings={"max_prepared_transactions": 5})
def test_two_phases(segue_cluster: Cluster, own: sa.Engine) -> None:
    for number, (prepared, committed) in enumerate(
        [(True, True), (True, False), (False, True), (False, False)]
    ):
        with own.connect() as conn:
            transaction = conn.begin_twophase(f"it's {number}")
            conn.execute(sa.insert(Work).values(note=f"{prepared} {committed}"))
            if prepared:
                transaction.prepare()
                assert own.dialect.do_recover_twophase(conn) == [f"it's {number}"]
            if committed:
                transaction.commit()
            else:
                transaction.rollback()
    assert notes(segue_cluster.primary) == ["True True", "False True"]
    # Somebody else's, found later.
    with own.connect() as conn:
        conn.begin_twophase("left").prepare()
        conn.invalidate()
    with own.connect() as conn:
        assert conn.recover_twophase() == ["left"]
        conn.rollback_prepared("left", recover=True)
    with own.connect() as conn:
        assert conn.recover_twophase() == []


# Types.


class Colour(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark blue"


KEY = uuid.UUID("12345678-1234-5678-1234-567812345678")
NOON = datetime.datetime(2026, 1, 2, 12, 0, 0, 1)
UTC = datetime.timezone.utc
DAY = datetime.date(2026, 1, 2)

VALUES: list[tuple[TypeEngine[Any], Any]] = [
    (sa.SmallInteger(), -(2**15)),
    (sa.Integer(), 2**31 - 1),
    (sa.BigInteger(), 2**63 - 1),
    (sa.Boolean(), True),
    (sa.Float(), 0.1),
    (sa.Float(asdecimal=True), decimal.Decimal("0.25")),
    (sa.Numeric(20, 5), decimal.Decimal("123456789012345.50000")),
    (sa.Numeric(10, 2, asdecimal=False), 0.5),
    (sa.String(20), "Grüße % $1"),
    (sa.Text(), ""),
    (sa.LargeBinary(), b"\0\xff"),
    (sa.Date(), DAY),
    (sa.Time(), datetime.time(12, 30, 1, 5)),
    (sa.DateTime(), NOON),
    (sa.DateTime(timezone=True), NOON.replace(tzinfo=UTC)),
    (sa.Interval(), datetime.timedelta(days=-3, microseconds=7)),
    (pg.INTERVAL(fields="DAY TO SECOND"), datetime.timedelta(days=2, seconds=5)),
    (sa.Uuid(), KEY),
    (sa.Uuid(as_uuid=False), str(KEY)),
    (sa.JSON(), {"a": [1, None, "ü", 1.5]}),
    (sa.JSON(), [1, {"b": True}]),
    (sa.JSON(), "text"),
    (pg.JSONB(), {"a": {"b": []}}),
    (pg.JSONB(), 5),
    (sa.Enum(Colour, name="colour"), Colour.DARK_BLUE),
    (sa.Enum("x", "y z", name="letters"), "y z"),
    (sa.ARRAY(sa.Integer), [1, None, 3]),
    (sa.ARRAY(sa.Integer), []),
    (sa.ARRAY(sa.Integer, dimensions=2), [[1, 2], [3, 4]]),
    (pg.ARRAY(sa.Text), ['a "quoted" one', "NULL", ""]),
    (pg.ARRAY(sa.Uuid), [KEY]),
    (pg.ARRAY(sa.Enum(Colour, name="colour")), [Colour.RED, Colour.DARK_BLUE]),
    (pg.ARRAY(pg.JSONB), [{"a": 1}, [2]]),
    (pg.ARRAY(sa.Numeric(10, 2)), [decimal.Decimal("1.50")]),
    (pg.INT4RANGE(), pg.Range(1, 5)),
    (pg.INT8RANGE(), pg.Range(1, None)),
    (pg.INT4RANGE(), pg.Range(empty=True)),
    (pg.NUMRANGE(), pg.Range(decimal.Decimal("1.5"), decimal.Decimal("2.5"), bounds="(]")),
    (pg.DATERANGE(), pg.Range(DAY, DAY + datetime.timedelta(days=3))),
    (pg.TSRANGE(), pg.Range(NOON, None)),
    (pg.TSTZRANGE(), pg.Range(None, NOON.replace(tzinfo=UTC))),
    (pg.INT4MULTIRANGE(), MultiRange([pg.Range(1, 3), pg.Range(5, 9)])),
    (pg.DATEMULTIRANGE(), MultiRange([])),
    (pg.ARRAY(pg.INT4RANGE), [pg.Range(1, 2)]),
    (pg.INET(), ip_interface("10.0.0.1/8")),
    (pg.MACADDR(), "08:00:2b:01:02:03"),
    (pg.TSVECTOR(), "'a' 'b'"),
    (pg.OID(), 2**32 - 1),
    (pg.HSTORE(), {"a": "1", "b": None, 'c "': "\\"}),
    (pg.CITEXT(), "Text"),
]


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=lambda value: repr(value)[:40])
def test_types(engine: sa.Engine, kind: TypeEngine[Any], value: Any) -> None:
    metadata = sa.MetaData()
    table = sa.Table("typed", metadata, sa.Column("id", sa.Integer), sa.Column("value", kind))
    with engine.connect() as conn:
        for extension in ("hstore", "citext"):
            conn.execute(sa.text(f"CREATE EXTENSION IF NOT EXISTS {extension}"))
        metadata.create_all(conn)
        rows = [{"id": 1, "value": value}, {"id": 2, "value": None}]
        conn.execute(sa.insert(table), rows)
        conn.execute(sa.insert(table).values(id=3, value=value))
        found = conn.execute(sa.select(table.c.value).order_by(table.c.id)).scalars().all()
        assert found == [value, None, value]
        assert type(found[0]) is type(value)
        if not isinstance(kind, (sa.JSON, pg.TSVECTOR)):
            query = sa.select(table.c.id).where(table.c.value == value).order_by(table.c.id)
            assert conn.scalars(query).all() == [1, 3]


def test_json_is_read_and_written_by_what_the_engine_says(cluster: Cluster) -> None:
    import json

    def loads(text: str) -> Any:
        return {"read": json.loads(text)}

    def dumps(value: Any) -> str:
        return json.dumps({"written": value})

    engine = engine_for(cluster, json_serializer=dumps, json_deserializer=loads)
    with engine.connect() as conn:
        for kind in (sa.JSON(), pg.JSONB()):
            query = sa.select(sa.cast(sa.bindparam("x", [1], kind), kind))
            assert conn.scalar(query) == {"read": {"written": [1]}}
    engine.dispose()


def test_addresses_can_be_text(cluster: Cluster) -> None:
    engine = engine_for(cluster, native_inet_types=False)
    with engine.connect() as conn:
        query = sa.text("SELECT '10.0.0.1/8'::inet, '10.0.0.0/8'::cidr")
        assert conn.execute(query).one() == ("10.0.0.1/8", "10.0.0.0/8")
    engine.dispose()
