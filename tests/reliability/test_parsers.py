"""Our own parsers under whatever hypothesis makes, and under the inputs that were worth keeping.

``NEURON_FUZZ_EXAMPLES=10000`` tries so many of each; ``make fuzz`` lets coverage guide it.
"""

from __future__ import annotations

import json
import os
import re
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuron.text.tool_formats import FORMATS
from tests.reliability import targets
from tests.reliability.fuzz import CORPUS, kept
from tests.reliability.targets import TARGETS, THINK
from tests.test_gguf_hostile import SMALL

N_EXAMPLES = int(os.environ.get("NEURON_FUZZ_EXAMPLES", "120"))

_JSON = (
    '{"name": "f", "arguments": {"a": [1, "}\\"{"]}}',
    '{"',
    '"',
    "}",
    "]",
    "[",
    ",",
    ":",
    "null",
    "\\u12",
    "\\",
)
_XML = ("<function=f>", "<parameter=a>", "</parameter>", "</function>", "\n")
_CALLS = (
    *THINK,
    *(m for f in FORMATS.values() for m in sorted(f.all_markers)),
    *_JSON,
    *_XML,
    "f(a=1)",
    "```json\n",
)
_FRAGMENTS: dict[str, tuple[str, ...]] = {
    "calls": _CALLS,
    "reasoning": (*THINK, "<", "think>", "</", "\n\n", " "),
    "stop matcher": (*targets.STOPS, "a", "b", "EN", "<|im_", "\n"),
    "reference": (
        "hf:",
        "pypi:",
        "path:",
        "org/",
        "name",
        "@",
        "==",
        ":",
        "..",
        "/",
        "~",
        ".gguf",
        "Q4_K_M",
        "%2e",
        "\\",
    ),
    "event stream": (
        "data:",
        "data: ",
        "event:",
        "id: 1",
        ":",
        "\n",
        "\r",
        "\r\n",
        "\ufeff",
        "\u2028",
        "x",
        "é",
    ),
    "terminal": (
        "\x1b",
        "[",
        "]",
        "P",
        "\\",
        "\x07",
        "\x9b",
        "\x9d",
        "\x9c",
        "\x18",
        "m",
        "31;",
        "\u202e",
        "\u2066",
        "\n",
    ),
    "toml": (
        "[a]\n",
        "url",
        "key",
        "=",
        '"',
        "'''",
        "\n",
        "{",
        "[",
        "]",
        "1979-05-27",
        "nan",
        "\\u",
        "#",
        ".",
        '"x"',
    ),
}


def made(name: str) -> st.SearchStrategy[bytes]:
    """Bytes that come near to what the target reads: its fragments among random text, a header around JSON."""
    if name == "gguf header":
        return st.builds(
            _spoilt, st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.binary(max_size=9)), max_size=4)
        )
    if name == "safetensors header":
        return st.builds(_with_length, st.integers(-2, 2), _headers, st.binary(max_size=24))
    fragments = _FRAGMENTS.get(name) or _FRAGMENTS.get(name.split()[0])
    if fragments is None:
        return st.binary(max_size=120)
    parts = st.one_of(st.sampled_from(fragments), st.text(max_size=4))
    return st.lists(parts, max_size=25).map(lambda found: "".join(found).encode(errors="surrogatepass"))


def _spoilt(changes: list[tuple[int, bytes]]) -> bytes:
    data = bytearray(SMALL)
    for at, new in changes:
        data[at : at + len(new)] = new
    return bytes(data)


def _with_length(off: int, header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", max(0, len(text) + off)) + text + data


_numbers = st.one_of(st.integers(0, 12), st.integers(-(2**63), 2**64), st.floats())
_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "I64", "X"]),
        "shape": st.lists(_numbers, max_size=3),
        "data_offsets": st.lists(_numbers, max_size=3),
    }
)
_fitting = st.integers(0, 3).map(lambda n: {"dtype": "F32", "shape": [n], "data_offsets": [0, 4 * n]})
_headers = st.dictionaries(
    st.one_of(st.text(max_size=6), st.just("__metadata__")),
    st.one_of(_fitting, _entries, st.text(max_size=3)),
    max_size=3,
)


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_read_or_refused(name: str) -> None:
    @settings(max_examples=N_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(made(name), st.lists(st.integers(0, 9), max_size=20))
    def check(data: bytes, cuts: list[int]) -> None:
        TARGETS[name](data, cuts)

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_worth_keeping_is_still_read_or_refused(name: str) -> None:
    inputs = kept(name)
    assert len(inputs) >= 8
    for data in inputs:
        for cuts in ((), (1,) * 400, (2, 3) * 100, (7, 0, 1) * 50):
            TARGETS[name](data, cuts)


def test_every_corpus_has_a_target() -> None:
    names = {re.sub("-", " ", path.stem) for path in CORPUS.glob("*.json")}
    assert names == {name.replace("-", " ") for name in TARGETS}


class _Forgetful(targets.StopMatcher):
    """Loses what it holds back."""

    def flush(self) -> str:
        super().flush()
        return ""


class _Hasty(targets.StopMatcher):
    """Does not hold back what may become a stop."""

    def feed(self, text: str) -> tuple[str, bool]:
        self._held, self._state = "", self._root
        return super().feed(text)


@pytest.mark.parametrize("wrong", [_Forgetful, _Hasty])
def test_a_parser_that_loses_or_leaks_is_found(wrong: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "StopMatcher", wrong)
    with pytest.raises(AssertionError):
        test_what_was_worth_keeping_is_still_read_or_refused("stop matcher")


def test_a_filter_that_lets_an_escape_through_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "clean", lambda text: text)
    with pytest.raises(AssertionError):
        test_what_was_worth_keeping_is_still_read_or_refused("terminal")
