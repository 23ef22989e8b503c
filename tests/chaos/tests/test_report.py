"""The split of pauses, the plan, and the page."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from chaos import pauses, plan
from chaos.clientlog import ClientLog, Operation
from chaos.prober import Sight
from chaos.report import write_report
from chaos.together import together


def write(at: int, node: str, timeline: int) -> Sight:
    return Sight(at, node, "write", timeline)


def test_an_outage_ends_with_the_first_write_on_the_new_timeline() -> None:
    sights = [
        write(1_000_000, "n1", 1), Sight(1_100_000, "n1", "down", 0), write(4_000_000, "n2", 2),
        write(4_040_000, "n2", 2),
    ]  # fmt: skip
    (outage,) = pauses.outages(sights)
    assert (outage.start, outage.end, outage.old_node, outage.new_node) == (
        1_000_000, 4_000_000, "n1", "n2",
    )  # fmt: skip
    assert outage.is_failover


def test_writes_of_a_primary_that_was_left_behind_do_not_count() -> None:
    sights = [write(1_000_000, "n1", 1), write(2_000_000, "n2", 2), write(2_020_000, "n1", 1)]
    sights.append(write(2_040_000, "n2", 2))
    assert len(pauses.outages(sights)) == 1


def test_a_restart_is_an_outage_and_no_failover() -> None:
    (outage,) = pauses.outages([write(0, "n1", 3), write(900_000, "n1", 3)])
    assert not outage.is_failover


def a_log(*spans: tuple[int, int], kind: str = "insert") -> ClientLog:
    one = ClientLog("c", 20, 1)
    for number, (begun, ended) in enumerate(spans):
        one.operations[number] = Operation(number, kind, begun, ended=ended, outcome="committed")
    return one


def test_a_pause_is_split_where_the_new_primary_takes_writes() -> None:
    outage = pauses.Outage(1_000_000, 4_000_000, "n1", "n2", 1, 2)
    log = a_log((900_000, 950_000), (1_200_000, 4_030_000), (4_100_000, 4_200_000))
    (pause,) = pauses.pauses([log], [outage])
    assert (pause.whole_us, pause.cluster_us, pause.share_us) == (2_830_000, 2_800_000, 30_000)
    assert pauses.by_face([pause])["c"]["share"]["max_ms"] == 30.0


def test_a_client_that_is_faster_than_the_prober_has_no_share() -> None:
    outage = pauses.Outage(1_000_000, 4_000_000, "n1", "n2", 1, 2)
    log = a_log((1_200_000, 3_980_000), (3_985_000, 3_990_000), (3_995_000, 4_010_000))
    (pause,) = pauses.pauses([log], [outage])
    assert (pause.whole_us, pause.cluster_us, pause.share_us) == (2_780_000, 2_780_000, 0)


def test_who_rested_or_read_meanwhile_has_no_pause() -> None:
    outage = pauses.Outage(1_000_000, 4_000_000, "n1", "n2", 1, 2)
    assert not pauses.pauses([a_log((900_000, 950_000), (4_100_000, 4_200_000))], [outage])
    assert not pauses.pauses([a_log((1_200_000, 4_030_000), kind="read")], [outage])


def test_quantiles_are_of_the_nearest_rank() -> None:
    values = list(range(1, 101))
    assert (pauses.quantile(values, 0.5), pauses.quantile(values, 0.99)) == (50, 99)
    assert (pauses.quantile([7], 0.5), pauses.quantile([7], 0.99)) == (7, 7)
    assert pauses.summary([])["max_ms"] == 0


def test_the_plan_is_a_function_of_the_seed() -> None:
    assert [plan.fault(1, n) for n in range(50)] == [plan.fault(1, n) for n in range(50)]
    assert [plan.fault(1, n) for n in range(50)] != [plan.fault(2, n) for n in range(50)]
    assert {plan.fault(1, n).kind for n in range(2000)} == set(plan.KINDS)
    assert {plan.fault(1, n, {"switchover": 1}).kind for n in range(20)} == {"switchover"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The files of a run of one client, one failover and one payment too many."""
    facts = {
        "seed": 1, "mode": "sync", "seconds": 9.0, "faults": 1, "failovers": 1, "client_kills": 1,
        "crashes": [], "stuck": [], "late": [], "repairs": [], "broken": "", "balance": 100,
        "build": "v1-2-gabc, release", "options": {"weights": {"kill-node": 7}, "pace_ms": 40},
    }  # fmt: skip
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    (tmp_path / "clients").mkdir()
    lines = "B 1100000 7 insert\nE 4030000 7 committed 00000 \nB 5000000 8 insert\nQ 6000000\n"
    (tmp_path / "clients/c.20.1.log").write_text(lines)
    row = "7\tinsert\t\\N\t\\N\t1\n"
    (tmp_path / "payment.tsv").write_text(row)
    (tmp_path / "account.tsv").write_text("1\t100\n")
    (tmp_path / "prober.log").write_text("1000000 n1 write 1\n1100000 n1 down 0\n4000000 n2 write 2\n")
    diary = "900000 cluster <so>\n1050000 fault    1 kill-node  1.0 s\n2050000 over 1 kill-node\n"
    (tmp_path / "diary.log").write_text(diary + "2100000 client killed c\n")
    return tmp_path


def test_a_good_run_ends_with_0(run: Path) -> None:
    assert write_report(run) == 0
    report = json.loads((run / "report.json").read_text())
    assert report["violations"] == []
    assert report["pauses"]["c"]["share"]["max_ms"] == 30.0
    assert report["cluster_without_primary"]["max_ms"] == 3000.0
    assert report["faults_by_kind"] == {
        "kill-node": {"faults": 1, "failovers": 1, "p50_ms": 3000.0, "p99_ms": 3000.0, "max_ms": 3000.0}
    }


def test_examples_have_the_times_of_the_drawing(run: Path) -> None:
    (run / "clients/c.20.1.log").write_text("B 1100000 7 insert\nE 4030000 7 unknown 08006 gone\n")
    assert write_report(run) == 1
    face = json.loads((run / "report.json").read_text())["faces"]["c"]
    (unknown,) = face["examples"]["told_unknown"]
    # The drawing begins with the line "cluster" of the diary.
    assert "begun at 0.200 s" in unknown
    assert face["error_examples"] == ["c.20.1 at 3.130 s, 7 (insert): 08006 gone"]


def test_what_promoted_somebody_is_the_last_fault_before_it(run: Path) -> None:
    later = "4500000 fault    2 restart  1.0 s\n4600000 over 2 restart\n"
    (run / "diary.log").write_text((run / "diary.log").read_text() + later)
    write_report(run)
    kinds = json.loads((run / "report.json").read_text())["faults_by_kind"]
    assert {kind: seen["failovers"] for kind, seen in kinds.items()} == {"kill-node": 1, "restart": 0}


def test_a_duplicate_ends_it_with_1(run: Path) -> None:
    row = (run / "payment.tsv").read_text()
    (run / "payment.tsv").write_text(row * 2)
    assert write_report(run) == 1
    assert json.loads((run / "report.json").read_text())["faces"]["c"]["duplicated"] == 1


def test_the_page_is_one_file_and_shows_all(run: Path) -> None:
    (run / "clients/c.20.1.log").write_text("B 1 7 insert\nE 4 7 not_committed 40001 <b>&\n")
    write_report(run)
    page = (run / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "<b>&" not in page
    drawing = page[page.index("<svg") : page.index("</svg>") + 6]
    texts = [element.text for element in ElementTree.fromstring(drawing).iter()]
    for wanted in ("n1", "n2", "faults", "clients killed", "c, per s", "c, pause ms"):
        assert wanted in texts
    assert "n2: primary, timeline 2" in texts
    assert "<td>kill-node<td>1<td>1" in page
    assert "Built from v1-2-gabc, release" in page
    assert "kill-node 7. A worker rests 40 ms" in page
    assert page.index("kill-node<td>") > page.index("</svg>")


def test_runs_are_added_up(run: Path) -> None:
    write_report(run)
    good = json.loads((run / "report.json").read_text())
    row = (run / "payment.tsv").read_text()
    (run / "payment.tsv").write_text(row * 2)
    write_report(run)
    bad = json.loads((run / "report.json").read_text())
    assert together([good]).endswith("No violations, and nothing short of the target.\n")
    said = together([good, bad])
    #          failovers, faults, payments, errors, full disks, lost, unreported, twice, unknown, not told
    assert "| all |  | 2 | 2 | 4 | 0 | 0 | 0 | 0 | 1 | 0 | 2 |" in said
    assert "| Segue, beyond the cluster's | 2 | 30.0 | 30.0 | 30.0 |" in said
    assert "| kill-node | 2 | 2 |" in said
    assert said.endswith("c: 1 payments are there more than once\n")
