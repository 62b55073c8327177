"""What `make bench` and `make quality` write: the verdicts, the documents, the charts."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.quality import log_probabilities, scores
from benchmarks.report import Curve, Part, Row, at_most, faster, kept, write
from neuron.model.decoder import Decoder
from neuron.model.grouped import GroupedWeight
from neuron.model.load import load_decoder, open_checkpoint, open_files
from tests.support.tiny_models import CASES, save_tiny

ROWS = (
    faster("decode", "tok/s", [300, 310, 320], {"a": [100, 100, 100], "b": [200, 155, 160]}, 1.9),
    faster("prefill", "tok/s", [100], {"a": [120]}, 1.0),
    at_most("memory", "MiB", [90, 130, 99], 100),
    Row("load", "s", [0.5]),
)


def test_a_rate_is_compared_with_the_fastest_peer_round_by_round() -> None:
    assert [row.met for row in ROWS] == [True, False, True, None]
    assert ROWS[0].ratio == 2.0
    assert ROWS[0].cells() == (
        "decode",
        "310 (300-320) tok/s",
        "a: 100 (100-100) tok/s<br>b: 160 (155-200) tok/s",
        "2.00 ×",
        "at least 1.9 ×",
        "yes",
    )


def test_documents_hold_every_row_and_the_charts_are_xml(tmp_path: Path) -> None:
    curve = Curve("Decoding <by> context", "tokens", [32, 512], "ms", {"neuron": [3, 4], "other": [6, 9]})
    part = kept(Part(ROWS, [curve]), date="2026-11-27", took_s=3, load=0.5, commit="abc")
    write(tmp_path, {"facts": {"machine": "one"}, "first": part})
    told = (tmp_path / "README.md").read_text()
    assert all(f"| {row.what} |" in told for row in ROWS)
    assert "| prefill | 100 tok/s | a: 120 tok/s | 0.83 × | at least 1 × | **no** |" in told
    bars, lines = (ET.parse(tmp_path / name).getroot() for name in ("speed.svg", "growth.svg"))
    assert len(bars.findall("{*}rect")) == 4  # two rows with a goal and peers: neuron and the best peer
    assert len(lines.findall("{*}polyline")) == 2


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Decoder, Decoder]:
    """A tiny model in float32 and with a weight that was turned around."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(CASES[0], folder)
    both = [
        load_decoder(open_checkpoint(open_files(folder)), device=torch.device("cpu"), dtype=torch.bfloat16)
        for _ in range(2)
    ]
    both[1].norm.weight.neg_()
    return both[0], both[1]


def test_the_same_model_diverges_by_nothing_and_another_one_does(decoders: tuple[Decoder, Decoder]) -> None:
    window = torch.arange(3, 40)
    exact = log_probabilities(decoders[0], window)
    assert scores(decoders[0], window, exact)[1:] == (0.0, 36.0, 36)
    nll, kl, same, _ = scores(decoders[1], window, exact)
    assert kl > 1
    assert same < 36
    assert nll > 0


@pytest.mark.parametrize(("stored", "name"), [("int8", "Q8_0"), ("int4", "Q4_1")])
def test_narrow_random_weights_have_the_spread_of_plain_ones(
    stored: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "CUDA", torch.device("cpu"))
    narrow, plain = (gpu.random_decoder(gpu.SHAPES[0], width) for width in (stored, "bfloat16"))
    ours, theirs = (dict(d.named_views())["model.layers.0.mlp.down_proj.weight"] for d in (narrow, plain))
    assert isinstance(ours, GroupedWeight)
    assert isinstance(theirs, torch.Tensor)
    assert ours.format.name == name
    assert ours.stored.numbers().std() == pytest.approx(float(theirs.float().std()), rel=0.1)
    embedding = dict(narrow.named_views())["model.embed_tokens.weight"]
    read = sum(view.nbytes for _, view in narrow.named_views()) - embedding.nbytes
    assert gpu.read_bytes(narrow) == read < 0.6 * gpu.read_bytes(plain)
