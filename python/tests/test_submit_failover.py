"""Submissions, and servers and clients that come and go: what was accepted is there once."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from submittools import create, ids, script, wait_until

import segue
from segue.testing import Cluster


@pytest.fixture
def client(cluster: Cluster) -> Iterator[segue.Client]:
    """A client of its own for each test, since everything of one configuration is one client."""
    with segue.Client(cluster.uri, application_name=uuid.uuid4().hex) as client:
        yield client


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


def tell(client: segue.Client, numbers: range) -> list[segue.Ticket]:
    """Hands over and waits until each is told to be committed."""
    tickets = [
        client.submit([("INSERT INTO t VALUES (%s)", (n,))], key=f"sale {n}") for n in numbers
    ]
    assert all(ticket.wait(60) == segue.Executed(rows=(1,), found_done=False) for ticket in tickets)
    return tickets


def cut_off(cluster: Cluster, count: int) -> None:
    """The standby has so many rows, and nothing reaches it any more."""
    wait_until(lambda: cluster.sql(1, "SELECT count(*) FROM t") == [(str(count),)])
    cluster.sql(1, "ALTER SYSTEM SET primary_conninfo = ''")
    cluster.sql(1, "SELECT pg_reload_conf()")
    wait_until(lambda: cluster.sql(0, "SELECT count(*) FROM pg_stat_replication") == [("0",)])


@pytest.mark.parametrize("reapply", [False, True])
def test_what_was_told_and_is_lost(reapply: bool) -> None:
    """Asynchronous replication: what the standby never got is named once, or run again."""
    with Cluster(1, replication="async") as cluster:
        create(cluster, "t")
        options = {"on_commits_lost": "reapply"} if reapply else {}
        with segue.Client(cluster.uri, **options) as client:
            lost: list[segue.events.SubmissionsLost] = []
            again: list[segue.events.SubmissionReapplied] = []
            client.on_event(lost.append, segue.events.SubmissionsLost)
            client.on_event(again.append, segue.events.SubmissionReapplied)
            tell(client, range(10))
            cut_off(cluster, 10)
            tickets = tell(client, range(10, 30))
            cluster.failover()
            names = {(str(ticket.id), f"sale {n}") for n, ticket in enumerate(tickets, 10)}
            if reapply:
                wait_until(lambda: len(again) == 20)
                assert {(event.id, event.key) for event in again} == names
                assert all(ticket.wait(60) for ticket in tickets)
                assert lost == []
                assert sorted(ids(cluster, "t")) == list(range(30))
            else:
                wait_until(lambda: sum(len(event.submissions) for event in lost) >= 20)
                named = [name for event in lost for name in event.submissions]
                assert len(named) == 20
                assert set(named) == names
                assert not any(event.others for event in lost)
                assert again == []
                with pytest.raises(segue.errors.ProtectionLost) as caught:
                    tickets[0].poll()
                assert caught.value.outcome is segue.Outcome.NOT_COMMITTED
                assert sorted(ids(cluster, "t")) == list(range(10))
            status = client.submissions()
            assert (status.lost, status.reapplied) == ((0, 20) if reapply else (20, 0))
