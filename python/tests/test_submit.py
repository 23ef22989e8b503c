"""Transactions handed over whole, and their tickets."""

from __future__ import annotations

import dataclasses
import enum
import pickle
import re
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from submittools import create, ids, script, wait_until

import segue
from segue import types
from segue.testing import Cluster

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def table(cluster: Cluster) -> Iterator[str]:
    """A table of ids, in the order in which they came; its ids must be unique."""
    name = f"t{uuid.uuid4().hex[:12]}"
    create(cluster, name)
    yield name
    with segue.connect(cluster.uri, autocommit=True) as conn:
        conn.execute(f"DROP TABLE {name}")


@pytest.fixture
def client(cluster: Cluster) -> Iterator[segue.Client]:
    """A client of its own for each test, since everything of one configuration is one client."""
    with segue.Client(cluster.uri, application_name=uuid.uuid4().hex) as client:
        yield client


# What is handed over.


def test_a_transaction_is_done(client: segue.Client, cluster: Cluster, table: str) -> None:
    ticket = client.submit(
        [
            (f"INSERT INTO {table} VALUES (%s), (%s)", (1, 2)),
            (f"INSERT INTO {table} VALUES (%(id)s)", {"id": 3}),
            (f"INSERT INTO {table} VALUES ($1)", [4]),
            f"DELETE FROM {table} WHERE id = 4",
            segue.Statement(f"UPDATE {table} SET at = at", expect_rows=3),
            segue.Statement("SELECT %s", ("some",), expect_rows=range(1, 2**63)),
        ]
    )
    assert isinstance(ticket, segue.Ticket)
    assert ticket.wait(60) == segue.Executed(rows=(2, 1, 1, 1, 3, 1), found_done=False)
    assert ticket.poll() == ticket.wait() == ticket.wait(0)
    assert sorted(ids(cluster, table)) == [1, 2, 3]
    assert ticket.key is None
    assert str(ticket.id) in repr(ticket)
    done = cluster.sql(
        cluster.primary, f"SELECT count(*) FROM segue.submission WHERE id = '{ticket.id}'"
    )
    assert done == [("1",)]


def test_one_statement_needs_no_list(client: segue.Client, cluster: Cluster, table: str) -> None:
    client.submit(f"INSERT INTO {table} VALUES (1)").wait(60)
    client.submit(segue.Statement(f"INSERT INTO {table} VALUES (%s)", (2,))).wait(60)
    client.submit(iter([(f"INSERT INTO {table} VALUES (%s)", (3,))])).wait(60)
    assert sorted(ids(cluster, table)) == [1, 2, 3]


class Mood(enum.Enum):
    SAD = "sad"
    FINE = "fine"


class Celsius:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees


def test_parameters_are_those_of_execute(client: segue.Client, cluster: Cluster) -> None:
    now = datetime.now(timezone.utc)
    values: dict[str, Any] = {
        "int": 7,
        "bigint": 2**40,
        "numeric": Decimal("1.50"),
        "float8": 0.5,
        "text": "it's",
        "bytea": b"\0\xff",
        "bool": True,
        "timestamptz": now,
        "interval": timedelta(days=1, seconds=2),
        "uuid": uuid.uuid4(),
        "jsonb": {"a": [1, None]},
        "int[]": [1, None, 3],
        "text[]": ["a", 'b"', None],
        "int4range": types.Range(1, 5),
        "date": now.date(),
    }
    columns = [f"c{n} {name}" for n, name in enumerate(values)]
    with segue.connect(cluster.uri, autocommit=True) as conn:
        conn.execute("CREATE TYPE mood AS ENUM ('sad', 'fine')")
        types.register_enum(conn, "mood", Mood)
        types.register_dumper(Celsius, 0, lambda it: str(it.degrees))
        conn.execute(f"CREATE TABLE kinds ({', '.join(columns)}, mood mood, temp numeric, no text)")
        places = ", ".join(["%s"] * (len(values) + 3))
        insert = f"INSERT INTO kinds VALUES ({places})"
        row = (*values.values(), Mood.FINE, Celsius(36.6), None)
        assert client.submit([(insert, row)]).wait(60) is not None
        conn.execute(insert, row)
        first, second = conn.execute("SELECT * FROM kinds").fetchall()
        assert first == second
        assert first == (*values.values(), Mood.FINE, Decimal("36.6"), None)
        conn.execute("DROP TABLE kinds")
        conn.execute("DROP TYPE mood")


def test_mistakes_are_told_at_once(client: segue.Client, cluster: Cluster) -> None:
    wrong: list[Any] = [
        [],
        [("SELECT %s", ())],
        [("SELECT %s", (1, 2))],
        [("SELECT %(a)s", {})],
        [("SELECT %(a)s", (1,))],
        [("SELECT %d", (1,))],
        ["SELECT $1"],
        [("SELECT %s", (object(),))],
        [("SELECT %s", "text")],
        ["SELECT 1; SELECT 2"],
        ["COMMIT"],
        ["COPY t FROM STDIN"],
        ["SET search_path = a"],
        ["LISTEN a"],
        [""],
        ["\ud800"],
        [1],
        [None],
        [("SELECT 1",)],
        [["SELECT 1", ()]],
        ("INSERT INTO t VALUES (%s)", (1,)),
        [segue.Statement("SELECT 1", expect_rows=-1)],
        [segue.Statement("SELECT 1", expect_rows=range(0))],
        [segue.Statement("SELECT 1", expect_rows=range(0, 9, 2))],
        [segue.Statement("SELECT 1", expect_rows=True)],
    ]
    for statements in wrong:
        with pytest.raises(segue.ProgrammingError) as info:
            client.submit(statements)
        assert info.value.outcome is segue.Outcome.NOT_COMMITTED, statements
    with pytest.raises(segue.DataError):
        client.submit([("SELECT %s", ("\0",))])
    with pytest.raises(segue.ProgrammingError, match="without a lane"):
        client.submit("SELECT 1", stop_on_failure=True)
    for names in ({"lane": ""}, {"key": ""}):
        with pytest.raises(segue.ProgrammingError, match="empty"):
            client.submit("SELECT 1", **names)  # type: ignore[arg-type]
    for none in (None, 3):
        with pytest.raises(TypeError):
            client.submit(none)  # type: ignore[arg-type]
    assert client.submissions().submitted == 0


def test_a_value_shows_nowhere() -> None:
    statement = segue.Statement("SELECT %s", ("secret",))
    assert "secret" not in repr(statement)


# Tickets.


def test_a_ticket_is_found_again(client: segue.Client) -> None:
    ticket = client.submit("SELECT 1", key="find me")
    assert ticket.key == "find me"
    ticket.wait(60)
    for found in (
        client.ticket(ticket.id),
        client.ticket(str(ticket.id)),
        client.ticket_for_key("find me"),
    ):
        assert found is not None
        assert found.id == ticket.id
        assert found.wait(60) == segue.Executed((1,), False)
    assert client.ticket(uuid.uuid4()) is None
    assert client.ticket_for_key("nobody's") is None
    with pytest.raises(ValueError, match="UUID"):
        client.ticket("no id")


def test_callbacks(client: segue.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    called: list[tuple[segue.Ticket, segue.Executed | None, str]] = []
    all_called = threading.Event()

    def fail(ticket: segue.Ticket) -> None:
        raise ZeroDivisionError

    def note(ticket: segue.Ticket) -> None:
        called.append((ticket, ticket.poll(), threading.current_thread().name))
        if len(called) == 2:
            all_called.set()

    ticket = client.submit("SELECT pg_sleep(0.1)")
    ticket.add_done_callback(fail)
    ticket.add_done_callback(note)
    ticket.wait(60)
    # It is known, and yet not called here.
    ticket.add_done_callback(note)
    assert all_called.wait(60)
    assert called == [(ticket, segue.Executed((1,), False), "segue-events")] * 2
    assert [entry.exc_type for entry in raised] == [ZeroDivisionError]
    assert raised[0].object is fail
    with pytest.raises(TypeError):
        ticket.add_done_callback(None)  # type: ignore[arg-type]


def test_a_callback_may_hand_over_more(client: segue.Client, cluster: Cluster, table: str) -> None:
    tickets: list[segue.Ticket] = []
    done = threading.Event()

    def next_one(ticket: segue.Ticket) -> None:
        if len(tickets) == 5:
            done.set()
            return
        tickets.append(client.submit([(f"INSERT INTO {table} VALUES (%s)", (len(tickets),))]))
        tickets[-1].add_done_callback(next_one)

    client.submit("SELECT 1").add_done_callback(next_one)
    assert done.wait(60)
    assert ids(cluster, table) == [0, 1, 2, 3, 4]


def test_ctrl_c_ends_a_wait(cluster: Cluster) -> None:
    """And the submission is none the worse for it."""
    source = """
import segue, signal, sys, threading, os, time
with segue.Client(sys.argv[1], application_name="ctrl-c") as client:
    ticket = client.submit("SELECT pg_sleep(2)")
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        ticket.wait()
    except KeyboardInterrupt:
        print("interrupted", ticket.poll())
    print(ticket.wait(60).rows)
"""
    with script(source, cluster.uri) as child:
        out, _ = child.communicate(timeout=60)
        assert child.returncode == 0
    assert out == "interrupted None\n(1,)\n"


def test_others_go_on_while_one_waits(client: segue.Client) -> None:
    ticket = client.submit("SELECT pg_sleep(1)")
    waiter = threading.Thread(target=ticket.wait)
    waiter.start()
    count = 0
    while waiter.is_alive():
        count += 1
    assert count > 1000


def test_negative_and_strange_timeouts(client: segue.Client) -> None:
    ticket = client.submit("SELECT pg_sleep(0.2)")
    assert ticket.wait(-1) is None
    assert ticket.wait(float("nan")) is None
    assert ticket.wait(0) is None
    assert ticket.wait(float("inf")) is not None


# Keys and lanes.


def test_a_key_is_executed_once(client: segue.Client, cluster: Cluster, table: str) -> None:
    tickets = [
        client.submit([(f"INSERT INTO {table} VALUES (%s)", (number,))], key=f"once {table}")
        for number in range(10)
    ]
    assert len({ticket.id for ticket in tickets}) == 1
    assert tickets[0].wait(60) == segue.Executed((1,), False)
    assert ids(cluster, table) == [0]


def test_a_key_of_two_processes_is_executed_once(cluster: Cluster, table: str) -> None:
    source = """
import segue, sys
with segue.Client(sys.argv[1]) as client:
    sys.stdin.readline()
    for number in range(200):
        insert = f"INSERT INTO {sys.argv[2]} VALUES (%s)"
        ticket = client.submit([(insert, (number,))], key=f"{sys.argv[2]} {number}")
    while client.submissions().waiting + client.submissions().in_flight:
        ticket.wait(0.01)
    status = client.submissions()
    print(status.committed, status.found_done, status.died)
"""
    children = [script(source, cluster.uri, table) for _ in range(2)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    found = 0
    for child in children:
        out, _ = child.communicate(timeout=120)
        assert child.returncode == 0
        committed, found_done, died = map(int, out.split())
        assert (committed, died) == (200, 0)
        found += found_done
    assert found == 200
    assert sorted(ids(cluster, table)) == list(range(200))


def test_lanes_are_ordered(client: segue.Client, cluster: Cluster, table: str) -> None:
    lanes = 4
    tickets = [
        client.submit(
            [(f"INSERT INTO {table} VALUES (%s)", (number,))], lane=f"lane {number % lanes}"
        )
        for number in range(400)
    ]
    for ticket in tickets:
        assert ticket.wait(60) is not None
    there = ids(cluster, table)
    for lane in range(lanes):
        assert [id for id in there if id % lanes == lane] == list(range(lane, 400, lanes))


# Dead letters.


def test_a_dead_letter(client: segue.Client, cluster: Cluster, table: str) -> None:
    insert = f"INSERT INTO {table} VALUES (%s)"
    client.submit([(insert, (1,))]).wait(60)
    ticket = client.submit(["SELECT 1", (insert, (1,))], key=f"dead {table}", lane="a")
    with pytest.raises(segue.errors.UniqueViolation) as info:
        ticket.wait(60)
    error = info.value
    assert error.outcome is segue.Outcome.NOT_COMMITTED
    assert not error.maybe_committed
    assert error.diag.message_detail == "Key (id)=(1) already exists."
    with pytest.raises(segue.errors.UniqueViolation):
        ticket.poll()
    [letter] = client.dead_letters()
    assert letter.id == ticket.id
    assert (letter.key, letter.lane, letter.stops_lane) == (f"dead {table}", "a", False)
    assert (letter.statement, letter.sqlstate) == (1, "23505")
    assert letter.statements == ("SELECT 1", insert.replace("%s", "$1"))
    assert "duplicate key" in letter.message
    assert letter.detail == "Key (id)=(1) already exists."
    assert letter.died_at.tzinfo is timezone.utc
    assert abs(datetime.now(timezone.utc) - letter.died_at) < timedelta(hours=1)
    assert "already" not in repr(letter)
    assert "INSERT" not in repr(letter)
    with pytest.raises(dataclasses.FrozenInstanceError):
        letter.sqlstate = "00000"  # type: ignore[misc]
    status = client.submissions()
    assert (status.dead_letters, status.died, status.committed) == (1, 1, 1)
    # Retried in vain, then with success.
    called: list[segue.Ticket] = []
    with pytest.raises(segue.errors.UniqueViolation):
        client.retry_dead_letter(letter).wait(60)
    cluster.sql(cluster.primary, f"DELETE FROM {table}")
    again = client.retry_dead_letter(letter.id)
    again.add_done_callback(called.append)
    assert again.wait(60) == segue.Executed((1, 1), False)
    assert ticket.poll() == segue.Executed((1, 1), False)
    wait_until(lambda: called == [again])
    assert client.dead_letters() == []
    with pytest.raises(segue.ProgrammingError, match="no dead letter"):
        client.retry_dead_letter(letter)
    # Another is purged.
    second = client.submit([(insert, (1,))])
    with pytest.raises(segue.IntegrityError):
        second.wait(60)
    client.purge_dead_letter(str(second.id))
    assert client.dead_letters() == []
    with pytest.raises(segue.ProgrammingError, match="no dead letter"):
        client.purge_dead_letter(second.id)
    assert ids(cluster, table) == [1]


def test_an_expectation_that_is_not_met(client: segue.Client, cluster: Cluster, table: str) -> None:
    insert = f"INSERT INTO {table} VALUES (1)"
    update = segue.Statement(f"UPDATE {table} SET at = 0 WHERE id = 2", expect_rows=1)
    ticket = client.submit([insert, update])
    with pytest.raises(segue.errors.TransactionFailed, match="affected 0 rows") as info:
        ticket.wait(60)
    assert info.value.outcome is segue.Outcome.NOT_COMMITTED
    [letter] = client.dead_letters()
    assert (letter.sqlstate, letter.statement) == ("25P02", 1)
    assert ids(cluster, table) == []
    client.purge_dead_letter(letter)


def test_a_lane_is_stopped(client: segue.Client, cluster: Cluster, table: str) -> None:
    insert = f"INSERT INTO {table} VALUES (%s)"
    poison = client.submit([(insert, (1,)), (insert, (1,))], lane="a", stop_on_failure=True)
    behind = client.submit([(insert, (2,))], lane="a")
    other = client.submit([(insert, (3,))], lane="b")
    with pytest.raises(segue.errors.UniqueViolation):
        poison.wait(60)
    assert other.wait(60) is not None
    assert behind.wait(0.2) is None
    # What was sent behind the poison comes home without having been executed, and waits.
    wait_until(lambda: client.submissions().waiting == 1)
    status = client.submissions()
    assert (status.lanes, status.lanes_stopped, status.waiting) == (1, 1, 1)
    assert client.dead_letters()[0].stops_lane
    client.purge_dead_letter(poison.id)
    assert behind.wait(60) is not None
    assert ids(cluster, table) == [3, 2]


# Numbers.


def test_numbers(client: segue.Client) -> None:
    before = client.submissions()
    assert set(before.as_dict().values()) <= {0, None}
    client.submit("SELECT 1").wait(60)
    status = client.submissions()
    assert (status.submitted, status.committed, status.journal_bytes) == (1, 1, None)
    assert status.problem is None


def test_everything_of_the_core_is_there() -> None:
    for name, cls in (
        ("SubmissionStatus", segue.SubmissionStatus),
        ("DeadLetter", segue.DeadLetter),
    ):
        source = (SOURCE / "client" / "submit" / "letter.rs").read_text()
        found = re.search(rf"pub struct {name} \{{(.*?)\n\}}", source, re.DOTALL)
        assert found is not None
        names = re.findall(r"pub (\w+):", found[1])
        assert len(names) > 8
        assert [field.name for field in dataclasses.fields(cls)] == names


def test_what_is_pickled(client: segue.Client) -> None:
    with pytest.raises(segue.errors.DivisionByZero) as info:
        client.submit("SELECT 1/0").wait(60)
    for value in (
        segue.Statement("SELECT %s", (1,), expect_rows=range(1, 2)),
        segue.Executed((1,), True),
        client.dead_letters()[0],
        client.submissions(),
    ):
        assert pickle.loads(pickle.dumps(value)) == value
    other = pickle.loads(pickle.dumps(info.value))
    assert (type(other), other.outcome) == (type(info.value), info.value.outcome)
    with pytest.raises(TypeError):
        pickle.dumps(client.submit("SELECT 1"))


# Room.


def test_a_full_queue(cluster: Cluster) -> None:
    with segue.Client(cluster.uri, submit_queue_max=2, failover_timeout_ms=60_000) as client:
        first = client.submit("SELECT pg_sleep(1)")
        client.submit("SELECT pg_sleep(1)")
        with pytest.raises(segue.errors.LimitExceeded, match="full") as info:
            client.submit("SELECT 1", block=False)
        assert info.value.outcome is segue.Outcome.NOT_COMMITTED
        # Waits until one of them has ended.
        third = client.submit("SELECT 1")
        assert first.wait(0) is not None or client.submissions().committed >= 1
        assert third.wait(60) is not None


def test_waiting_for_room_ends(cluster: Cluster) -> None:
    with segue.Client(cluster.uri, submit_queue_max=1, failover_timeout_ms=300) as client:
        ticket = client.submit("SELECT pg_sleep(3)")
        with pytest.raises(segue.errors.LimitExceeded, match="full"):
            client.submit("SELECT 1")
        assert ticket.wait(60) is not None


def test_what_never_fits_is_refused_at_once(cluster: Cluster) -> None:
    """Not when the time to wait for room is over, which here is longer than any test takes."""
    with (
        segue.Client(cluster.uri, journal_bytes_max=1024, failover_timeout_ms=3_600_000) as client,
        pytest.raises(segue.errors.LimitExceeded, match="journal_bytes_max"),
    ):
        client.submit([("SELECT %s", ("x" * 2000,))])


def test_ctrl_c_ends_the_wait_for_room(cluster: Cluster) -> None:
    source = """
import segue, signal, sys, threading, os
options = dict(submit_queue_max=1, failover_timeout_ms=3_600_000)
with segue.Client(sys.argv[1], **options) as client:
    first = client.submit("SELECT pg_sleep(2)")
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        client.submit("SELECT 1")
    except KeyboardInterrupt:
        print(first.poll(), client.submissions().submitted)
"""
    with script(source, cluster.uri) as child:
        out, _ = child.communicate(timeout=60)
        assert child.returncode == 0
    assert out == "None 1\n"


def test_many_threads(client: segue.Client, cluster: Cluster, table: str) -> None:
    tickets: list[segue.Ticket] = []
    called: list[segue.Ticket] = []

    def hand_over(thread: int) -> None:
        for number in range(thread * 125, (thread + 1) * 125):
            insert = (f"INSERT INTO {table} VALUES (%s)", (number,))
            ticket = client.submit([insert], lane=f"{thread}" if thread % 2 else None)
            ticket.add_done_callback(called.append)
            tickets.append(ticket)

    threads = [threading.Thread(target=hand_over, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ticket in tickets:
        assert ticket.wait(60) == segue.Executed((1,), False)
    there = ids(cluster, table)
    assert sorted(there) == list(range(1000))
    for lane in range(1, 8, 2):
        of_lane = [id for id in there if id // 125 == lane]
        assert of_lane == sorted(of_lane)
    wait_until(lambda: len(called) == 1000)
    assert {ticket.id for ticket in called} == {ticket.id for ticket in tickets}
    status = client.submissions()
    assert (status.submitted, status.committed, status.died) == (1000, 1000, 0)
