"""A verdict that cannot fail is worth nothing: each kind of broken promise is faked, and must be found."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.clientlog import ClientLog, parse
from chaos.report import shortfalls, violations
from chaos.verdict import Database, Payment, Verdict, judge

FACTS = {"mode": "sync", "crashes": [], "stuck": [], "late": [], "broken": ""}


def log(tmp_path: Path, *lines: str, name: str = "rust.10.1.log") -> ClientLog:
    path = tmp_path / name
    path.write_text("".join(line + "\n" for line in lines))
    return parse(path)


def database(*ids: int, balances: dict[int, int] | None = None, kind: str = "insert") -> Database:
    rows = [Payment(id_, kind, None, None, 1) for id_ in ids]
    return Database(rows, balances or {1: 100, 2: 100}, 100)


def said(verdict: Verdict, mode: str = "sync") -> list[str]:
    return violations(verdict.faces, FACTS | {"mode": mode}, verdict.wrong_balances)


def test_all_is_well(tmp_path: Path) -> None:
    one = log(tmp_path, "B 1 7 insert", "E 2 7 committed 00000 ", "B 3 8 read", "E 4 8 committed 00000 ")
    verdict = judge([one], database(7))
    assert said(verdict) == []
    assert shortfalls(verdict.faces) == []
    assert verdict.foreign == []
    face = verdict.faces["rust"]
    assert (face.payments, face.told_committed, face.reads) == (1, 1, 1)


def test_a_lost_payment(tmp_path: Path) -> None:
    verdict = judge([log(tmp_path, "B 1 7 insert", "E 2 7 committed 00000 ")], database())
    assert verdict.faces["rust"].lost == 1
    assert said(verdict) == ["rust: 1 payments told committed are lost"]


def test_a_payment_that_is_there_twice(tmp_path: Path) -> None:
    verdict = judge([log(tmp_path, "B 1 7 insert", "E 2 7 committed 00000 ")], database(7, 7))
    assert verdict.faces["rust"].duplicated == 1
    assert said(verdict)


def test_twice_counts_also_where_nothing_was_told(tmp_path: Path) -> None:
    verdict = judge([log(tmp_path, "B 1 7 insert")], database(7, 7))
    assert verdict.faces["rust"].duplicated == 1
    assert verdict.faces["rust"].told_nothing == 1


def test_a_payment_that_is_there_though_it_was_told_not_to_be(tmp_path: Path) -> None:
    one = log(tmp_path, "B 1 7 insert", "E 2 7 not_committed 40001 ReplayDiverged: so")
    assert said(judge([one], database(7)))
    assert not said(judge([one], database()))
    assert shortfalls(judge([one], database()).faces) == ["rust: 1 errors seen by applications"]


@pytest.mark.parametrize(("there", "bad"), [((), False), ((7,), False), ((7, 7), True)])
def test_unknown_may_be_there_or_not_and_never_twice(
    tmp_path: Path, there: tuple[int, ...], bad: bool
) -> None:
    one = log(tmp_path, "B 1 7 insert", "E 2 7 unknown 08007 OutcomeUnknown: so")
    verdict = judge([one], database(*there))
    assert bool(said(verdict)) == bad
    assert "rust: 1 outcomes unknown" in shortfalls(verdict.faces)


def test_a_committed_payment_may_still_be_an_error_seen(tmp_path: Path) -> None:
    verdict = judge([log(tmp_path, "B 1 7 insert", "E 2 7 committed 02000 ReplyLost: so")], database(7))
    assert not said(verdict)
    assert verdict.faces["rust"].errors_by_sqlstate == {"02000": 1}
    assert shortfalls(verdict.faces)


def test_a_full_disk_is_no_shortfall_unless_the_outcome_is_unknown(tmp_path: Path) -> None:
    full = log(tmp_path, "B 1 7 insert", "E 2 7 not_committed 53100 DiskFull: so")
    verdict = judge([full], database())
    assert verdict.faces["rust"].errors_disk_full == 1
    assert not shortfalls(verdict.faces)
    doubt = log(tmp_path, "B 1 7 insert", "E 2 7 unknown 53100 DiskFull: so")
    assert shortfalls(judge([doubt], database()).faces)


def test_a_payment_in_a_savepoint_that_was_rolled_back(tmp_path: Path) -> None:
    one = log(tmp_path, "D 1 6", "B 1 7 savepoint", "E 2 7 committed 00000 ")
    assert said(judge([one], database(6, 7, kind="savepoint")))
    assert not said(judge([one], database(7, kind="savepoint")))


def test_a_submission_that_was_accepted_and_never_done(tmp_path: Path) -> None:
    one = log(tmp_path, "B 1 7 submit", "A 2 7", "B 3 8 submit")
    verdict = judge([one], database())
    assert said(verdict) == ["rust: 1 submissions were accepted and are missing"]


def test_a_payment_of_nobody(tmp_path: Path) -> None:
    assert judge([log(tmp_path, "B 1 7 insert")], database(9)).foreign == [9]


def test_other_content_under_the_same_id(tmp_path: Path) -> None:
    verdict = judge([log(tmp_path, "B 1 7 own", "E 2 7 committed 00000 ")], database(7))
    assert said(verdict)


def test_half_a_transfer() -> None:
    """The payment is there and one of its two updates is not."""
    rows = [Payment(7, "transfer", 1, 2, 30)]
    assert Database(rows, {1: 70, 2: 130}, 100).wrong_balances() == []
    wrong = Database(rows, {1: 70, 2: 100}, 100).wrong_balances()
    assert wrong == ["account 2 has 100, its payments make 130"]


def test_what_a_client_has_seen_and_cannot_be(tmp_path: Path) -> None:
    assert said(judge([log(tmp_path, "F 1 the sum is 3, and must be 4")], database()))


LOST = ("B 1 7 insert", "E 2 7 committed 00000 ", "B 5 8 insert", "E 6 8 committed 00000 ")


def test_asynchronous_losses_that_are_owned_up_to(tmp_path: Path) -> None:
    one = log(tmp_path, *LOST, "V 5 commits_lost 1 12 12 0 so")
    verdict = judge([one], database(8))
    face = verdict.faces["rust"]
    assert (face.lost, face.lost_reported, face.lost_unreported) == (1, 1, 0)
    assert not said(verdict, "async")
    assert said(verdict, "sync")


def test_asynchronous_losses_that_are_not(tmp_path: Path) -> None:
    verdict = judge([log(tmp_path, *LOST)], database(8))
    assert verdict.faces["rust"].lost_unreported == 1
    assert said(verdict, "async") == ["rust: 1 payments told committed are lost, unreported"]


SUBMITTED = (
    "B 1 7 submit",
    "A 1 7",
    "E 2 7 committed 00000 ",
    "B 5 8 submit",
    "A 5 8",
    "E 6 8 committed 00000 ",
)


def test_submissions_are_named_one_by_one(tmp_path: Path) -> None:
    named = log(tmp_path, *SUBMITTED, "L 5 payment 7", "V 5 submissions_lost 0 0 0 0 so")
    face = judge([named], database(8, kind="submit")).faces["rust"]
    assert (face.lost, face.lost_reported, face.lost_unreported) == (1, 1, 0)
    # Numbers of a session's commits say nothing of them.
    other = log(tmp_path, *SUBMITTED, "V 5 commits_lost 1 12 12 0 so")
    verdict = judge([other], database(8, kind="submit"))
    assert verdict.faces["rust"].lost_unreported == 1
    assert said(verdict, "async") == ["rust: 1 payments told committed are lost, unreported"]
    dead = log(tmp_path, *SUBMITTED[:3])
    face = judge([dead], database(kind="submit")).faces["rust"]
    assert (face.lost_unheard, face.lost_unreported) == (1, 0)


def test_what_is_named_as_lost_is_not_there_and_is_named_once(tmp_path: Path) -> None:
    there = log(tmp_path, *SUBMITTED, "L 5 payment 7")
    verdict = judge([there], database(7, 8, kind="submit"))
    assert said(verdict, "async") == ["rust: 1 submissions were named as lost and are there"]
    twice = log(tmp_path, *SUBMITTED, "L 5 payment 7", "L 6 payment 7")
    verdict = judge([twice], database(8, kind="submit"))
    assert said(verdict, "async") == ["rust: 1 submissions were named as lost twice"]


def test_another_process_events_do_not_count(tmp_path: Path) -> None:
    one = log(tmp_path, *LOST)
    other = log(tmp_path, "V 5 commits_lost 1 12 12 0 so", name="rust.10.2.log")
    assert judge([one, other], database(8)).faces["rust"].lost_unreported == 1


def test_the_dead_cannot_be_told(tmp_path: Path) -> None:
    verdict = judge([log(tmp_path, *LOST[:2])], database())
    face = verdict.faces["rust"]
    assert (face.lost, face.lost_unheard, face.lost_unreported) == (1, 1, 0)


def test_old_balances_are_explained_by_a_loss_of_the_workers_own(tmp_path: Path) -> None:
    seen = "F 5 own balances are 1 and must be 2"
    after = log(tmp_path, *LOST, seen)
    assert judge([after], database(8)).faces["rust"].findings_explained == 1
    without = log(tmp_path, *LOST, seen)
    assert judge([without], database(7, 8)).faces["rust"].findings == 1


def test_a_line_that_a_kill_has_cut_off_was_not_written(tmp_path: Path) -> None:
    path = tmp_path / "c.20.3.log"
    path.write_text("B 1 7 insert\nE 2 7 commi")
    parsed = parse(path)
    assert parsed.operations[7].outcome is None
    assert (parsed.face, parsed.worker, parsed.incarnation) == ("c", 20, 3)


def test_a_log_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    for lines in (["B 1 7 insert", "B 2 7 insert"], ["E 1 7 committed 00000 "], ["Z 1"]):
        with pytest.raises(ValueError, match=r"rust\.10\.1\.log"):
            log(tmp_path, *lines)


def test_the_status_quo_is_measured_and_not_judged(tmp_path: Path) -> None:
    name = "psycopg-libpq.50.1.log"
    one = log(tmp_path, "B 1 7 insert", "R 2 7 57P01 so", "E 3 7 committed 00000 ", name=name)
    verdict = judge([one], database(7, 7))
    face = verdict.faces["psycopg-libpq"]
    assert (face.duplicated, face.errors, face.errors_by_sqlstate) == (1, 1, {"57P01": 1})
    assert not said(verdict)
    assert not shortfalls(verdict.faces)
