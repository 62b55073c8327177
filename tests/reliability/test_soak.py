"""A short soak: nothing is lost, nothing answers 5xx, and the long one's page is what its JSON says."""

from __future__ import annotations

import json
import os

from tests.reliability.soak import ROOT, TARGET, soak
from tests.reliability.soak_account import Sample, slope_per_1000
from tests.reliability.soak_page import page
from tests.support.scorecard import Scorecard

DURATION_S = float(os.environ.get("NEURON_SOAK_S", "20"))
"""Ten thousand requests take some two minutes."""
ROUND_S = 2.5


def test_a_random_mix_of_everything_is_accounted_for(scorecard: Scorecard) -> None:
    done = soak(DURATION_S, round_s=ROUND_S)
    long = json.loads((ROOT / "docs" / "soak.json").read_text())
    is_whole = len(done.seen) >= TARGET
    is_right = not done.faults and (done.is_flat() or not is_whole)
    told = f"{done.counts()}{done.growth() if is_whole else ', too few for slopes'}"
    was = f"long form of {long['date']}: {long['requests']:,} requests, {len(long['faults'])} faults, "
    was += "{rss_mb_per_1000:+.2f} MB, {descriptors_per_1000:+.1f} and {threads_per_1000:+.1f}".format(**long)
    scorecard(8, f"{told}; {was}", "10,000; < 1 MB/1000; 0; 0", is_right and (is_whole or "not run"))
    assert not done.faults, done.faults[:5]
    assert done.seen


def test_the_page_of_the_long_soak_is_what_its_json_says() -> None:
    report = json.loads((ROOT / "docs" / "soak.json").read_text())
    assert page(report) == (ROOT / "docs" / "soak.md").read_text()


def test_a_slope_leaves_out_the_first_third() -> None:
    samples = [Sample(n, 1000 * n, 5000 if n < 3 else 100 * n, 7, 16) for n in range(9)]
    assert round(slope_per_1000(samples, "rss_kb")) == 100
    assert slope_per_1000(samples, "n_threads") == 0
    assert slope_per_1000(samples[:2], "rss_kb") == 0
