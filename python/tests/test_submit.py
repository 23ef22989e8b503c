"""Transactions handed over whole, and their tickets."""

from __future__ import annotations

import dataclasses
import enum
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import segue
from segue import types
from segue.testing import Cluster

SOURCE = Path(__file__).parents[2] / "src"


def wait_until(condition: Callable[[], object], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def script(source: str, *args: object) -> subprocess.Popen[str]:
    """Run Python in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", source, *map(str, args)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def table(cluster: Cluster) -> Iterator[str]:
    """A table of ids, in the order in which they came; its ids must be unique."""
    name = f"t{uuid.uuid4().hex[:12]}"
    create(cluster, name)
    yield name
    with segue.connect(cluster.uri, autocommit=True) as conn:
        conn.execute(f"DROP TABLE {name}")


def create(cluster: Cluster, name: str) -> None:
    with segue.connect(cluster.uri, autocommit=True) as conn:
        conn.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, at bigserial)")


def ids(cluster: Cluster, name: str) -> list[int]:
    return [
        int(id or -1)
        for (id,) in cluster.sql(cluster.primary, f"SELECT id FROM {name} ORDER BY at")
    ]


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


# Servers that come and go.


def test_a_failover_while_handing_over(segue_cluster: Cluster) -> None:
    create(segue_cluster, "work")
    tickets: list[segue.Ticket] = []
    with segue.Client(segue_cluster.uri) as client:
        over = threading.Event()

        def hand_over() -> None:
            while not over.is_set() or len(tickets) < 200:
                number = len(tickets)
                lane = "a" if number % 2 else None
                insert = ("INSERT INTO work VALUES (%s)", (number,))
                tickets.append(client.submit([insert], lane=lane))
                time.sleep(0.001)

        thread = threading.Thread(target=hand_over)
        thread.start()
        wait_until(lambda: client.submissions().committed > 20)
        segue_cluster.failover()
        committed = client.submissions().committed
        wait_until(lambda: client.submissions().committed > committed)
        over.set()
        thread.join()
        for ticket in tickets:
            assert ticket.wait(60) is not None
        assert client.submissions().resubmitted > 0
    there = ids(segue_cluster, "work")
    assert sorted(there) == list(range(len(tickets)))
    assert [id for id in there if id % 2] == list(range(1, len(tickets), 2))


@pytest.mark.segue_cluster(standbys=0)
def test_no_server_at_first(segue_cluster: Cluster) -> None:
    create(segue_cluster, "work")
    segue_cluster.stop(0)
    with segue.Client(segue_cluster.uri) as client:
        tickets = [client.submit([("INSERT INTO work VALUES (%s)", (n,))]) for n in range(50)]
        wait_until(lambda: client.submissions().problem is not None)
        assert tickets[0].poll() is None
        status = client.submissions()
        assert status.waiting + status.in_flight == 50
        segue_cluster.start(0, as_it_was=True)
        for ticket in tickets:
            assert ticket.wait(60) is not None
    assert sorted(ids(segue_cluster, "work")) == list(range(50))


# Clients that come and go.


def test_close_ends_what_waits(cluster: Cluster) -> None:
    client = segue.Client(cluster.uri, application_name="closing")
    ticket = client.submit("SELECT pg_sleep(600)")
    wait_until(lambda: client.submissions().in_flight == 1)
    outcomes: list[BaseException] = []

    def wait() -> None:
        try:
            ticket.wait()
        except segue.Error as error:
            outcomes.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    called = threading.Event()
    ticket.add_done_callback(lambda _: called.set())
    client.close()
    client.close()
    waiter.join(60)
    assert called.wait(60)
    [error] = outcomes
    assert isinstance(error, segue.errors.ConnectionClosed)
    assert error.outcome is segue.Outcome.UNKNOWN
    for call in (
        lambda: client.submit("SELECT 1"),
        client.dead_letters,
        client.submissions,
        lambda: client.ticket(ticket.id),
        lambda: client.purge_dead_letter(ticket.id),
    ):
        with pytest.raises(segue.InterfaceError, match="closed"):
            call()


def test_others_go_on_while_a_client_ends(cluster: Cluster) -> None:
    """Whether it is closed, or forgotten: that may wait for what is under way."""
    for forget in (False, True):
        client = segue.Client(cluster.uri, application_name=f"ends {forget}")
        client.submit("SELECT pg_sleep(1.5)")
        wait_until(lambda c=client: c.submissions().in_flight == 1)  # type: ignore[misc]
        ticks: list[float] = []
        over = threading.Event()

        def tick(ticks: list[float] = ticks, over: threading.Event = over) -> None:
            while not over.is_set():
                ticks.append(time.monotonic())

        thread = threading.Thread(target=tick)
        thread.start()
        if not forget:
            client.close()
        del client
        over.set()
        thread.join()
        assert len(ticks) > 1000


def test_a_connection_keeps_submissions_going(cluster: Cluster) -> None:
    with segue.connect(cluster.uri, application_name="keeps") as conn:
        client = conn.client
        ticket = client.submit("SELECT pg_sleep(0.3)")
        client.close()
        assert ticket.wait(60) is not None


def test_a_child_of_fork_is_told(client: segue.Client) -> None:
    ticket = client.submit("SELECT pg_sleep(0.5)")
    pid = os.fork()
    if pid == 0:
        told = 0
        for call in (
            lambda: client.submit("SELECT 1"),
            lambda: client.submissions(),
            ticket.poll,
            ticket.wait,
            lambda: ticket.add_done_callback(print),
        ):
            try:
                call()
            except segue.errors.ConnectionForked:
                told += 1
        os._exit(told)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 5
    assert ticket.wait(60) is not None


# The journal on disk.


def journal(directory: Path) -> dict[str, Any]:
    return {"journal": "file", "journal_dir": directory / "journal"}


@pytest.mark.segue_cluster(standbys=0)
def test_a_restart_goes_on(segue_cluster: Cluster, tmp_path: Path) -> None:
    create(segue_cluster, "work")
    segue_cluster.stop(0)
    insert = "INSERT INTO work VALUES (%s)"
    with segue.Client(segue_cluster.uri, **journal(tmp_path)) as client:
        first = client.submit([(insert, (1,))], key="one")
        second = client.submit([(insert, (1,))], lane="a")
        assert (client.submissions().journal_bytes or 0) > 0
        with pytest.raises(segue.errors.ConfigurationError, match="journal_locked"):
            segue.Client(segue_cluster.uri, application_name="another", **journal(tmp_path))
    segue_cluster.start(0, as_it_was=True)
    with segue.Client(segue_cluster.uri, **journal(tmp_path)) as client:
        again = client.ticket_for_key("one")
        assert again is not None
        assert again.id == first.id
        other = client.ticket(second.id)
        assert other is not None
        outcomes = []
        for ticket in (again, other):
            try:
                outcomes.append(ticket.wait(60) is not None)
            except segue.errors.UniqueViolation:
                outcomes.append(False)
        assert sorted(outcomes) == [False, True]
        assert client.submissions().recovered == 2
        [letter] = client.dead_letters()
    # A dead letter is there after a restart too, with the server's error.
    with segue.Client(segue_cluster.uri, **journal(tmp_path)) as client:
        assert [it.id for it in client.dead_letters()] == [letter.id]
        dead = client.ticket(letter.id)
        assert dead is not None
        with pytest.raises(segue.errors.UniqueViolation) as info:
            dead.poll()
        assert info.value.outcome is segue.Outcome.NOT_COMMITTED
        client.purge_dead_letter(letter.id)
    assert ids(segue_cluster, "work") == [1]


CHILD = """
import os, segue, sys, threading
uri, directory, start = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = segue.Client(uri, journal="file", journal_dir=directory)
def hand_over(thread):
    lane = f"{start} {thread}" if thread else None
    for number in range(start + thread * 10_000, start + (thread + 1) * 10_000):
        ticket = client.submit([("INSERT INTO work VALUES (%s)", (number,))], lane=lane)
        # In one write, so that no half of a number is ever read.
        os.write(1, f"accepted {number} {ticket.id}\\n".encode())
for thread in range(4):
    threading.Thread(target=hand_over, args=(thread,)).start()
"""


def test_a_child_that_is_killed(segue_cluster: Cluster, tmp_path: Path) -> None:
    """What was accepted is there once, whatever was killed meanwhile."""
    create(segue_cluster, "work")
    directory = tmp_path / "journal"
    accepted: dict[int, str] = {}
    for round in range(5):
        with script(CHILD, segue_cluster.uri, directory, round * 40_000) as child:
            assert child.stdout is not None
            lines = iter(child.stdout.readline, "")
            taken = [next(lines) for _ in range(50 + 37 * round)]
            if round == 2:
                segue_cluster.failover()
                segue_cluster.start(0)
                segue_cluster.wait_for_standbys()
            child.send_signal(signal.SIGKILL)
            taken += lines
            child.wait(60)
        for line in taken:
            word, number, id = line.split()
            assert word == "accepted"
            accepted[int(number)] = id
    with segue.Client(segue_cluster.uri, **journal(tmp_path)) as client:
        wait_until(lambda: client.submissions().waiting + client.submissions().in_flight == 0)
        assert client.dead_letters() == []
    there = ids(segue_cluster, "work")
    assert len(there) == len(set(there))
    assert accepted.keys() <= set(there)
    # Each thread of each child may have been killed between the journal and the word of it.
    assert len(there) - len(accepted) <= 20
    claims = ", ".join(map(repr, accepted.values()))
    [(count,)] = segue_cluster.sql(
        segue_cluster.primary, f"SELECT count(*) FROM segue.submission WHERE id IN ({claims})"
    )
    assert int(count or 0) == len(accepted)
    for lane in range(20):
        if lane % 4:
            of_lane = [id for id in there if id // 10_000 == lane]
            assert of_lane == sorted(of_lane)


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
