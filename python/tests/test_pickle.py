"""What goes to other processes: errors, rows and columns do; connections and cursors do not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

import segue
from segue.types import Multirange, Range


@pytest.fixture
def conn(uri: str) -> Iterator[segue.Connection]:
    with segue.connect(uri, autocommit=True) as conn:
        yield conn


def both(value: object) -> list[object]:
    return [pickle.loads(pickle.dumps(value)), copy.deepcopy(value)]


def test_errors(conn: segue.Connection) -> None:
    for statement in ("SELECT 1/0", "SELECT no_such", "DO $$ BEGIN RAISE 'no'; END $$"):
        with pytest.raises(segue.Error) as info:
            conn.execute(statement)
        for other in both(info.value):
            assert isinstance(other, segue.Error)
            assert type(other) is type(info.value)
            assert str(other) == str(info.value)
            assert other.__dict__ == info.value.__dict__
            assert other.diag == info.value.diag


def test_columns(conn: segue.Connection) -> None:
    cur = conn.execute("SELECT 1 AS one, 'a'::varchar(3) AS two, 1.5::numeric(4, 2)")
    for other in both(cur.description):
        assert other == cur.description


def test_rows(conn: segue.Connection) -> None:
    row = conn.execute("SELECT 1, 'a', now(), '[1,2)'::int4range, '{1,2}'::int[], '1.50'::numeric")
    values = row.fetchone()
    for other in both(values):
        assert other == values


def test_ranges() -> None:
    for value in (Range(1, 2), Range(empty=True), Multirange([Range(1, None), Range(None, 0)])):
        for other in both(value):
            assert other == value
            assert type(other) is type(value)


def test_connections_and_cursors_stay(conn: segue.Connection) -> None:
    for value in (conn, conn.cursor()):
        with pytest.raises(TypeError):
            pickle.dumps(value)
