"""The scorecard calls met only what every test of a row says is met."""

from __future__ import annotations

import json

from tests.reliability.scorecard import ROOT, SECTIONS, Line, page, rows


def line(row: int, verdict: str) -> Line:
    return {"row": row, "figure": f"f{verdict}", "target": "t", "verdict": verdict}


def test_there_are_42_rows_and_what_nobody_reported_is_not_run() -> None:
    found = rows([])
    assert [row["row"] for row in found] == list(range(1, 43))
    assert {row["verdict"] for row in found} == {"not run"}


def test_one_report_that_misses_is_enough() -> None:
    found = rows([line(3, "met"), line(3, "missed"), line(4, "met"), line(4, "not run"), line(5, "met")])
    assert [row["verdict"] for row in found[2:5]] == ["missed", "not run", "met"]
    assert found[2]["figure"] == "fmet; fmissed"
    assert "1 met, 1 missed, 40 not run" in page(found)


def test_the_page_has_every_row_of_the_json() -> None:
    found = json.loads((ROOT / "docs" / "scorecard.json").read_text())
    assert page(found) == (ROOT / "docs" / "scorecard.md").read_text()
    assert [row["row"] for row in found] == [n for names in SECTIONS.values() for n in names]
