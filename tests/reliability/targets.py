"""Our own parsers, each with what must hold of any input: nothing is raised, nothing is lost, no cut matters.

A target takes bytes and where they are cut. `hypothesis` and, where it is installed, `atheris` make the bytes.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import msgspec
from safetensors import SafetensorError, safe_open

from neuron.cli.terminal_text import MAX_SEQUENCE_CHARS, TerminalText, clean, one_line
from neuron.errors import ConfigError, InvalidModelFile, InvalidReference, NeuronError
from neuron.gguf import GgufFile
from neuron.safetensors_header import MAX_HEADER_BYTES, read_header
from neuron.sources import manifest
from neuron.sources.reference import model_id, parse_reference
from neuron.text.answer import AnswerParser
from neuron.text.detokenize import Detokenizer
from neuron.text.pieces import CallArguments, CallStart, Content, Reasoning
from neuron.text.stop import StopMatcher
from neuron.text.tokenizer import Tokenizer
from neuron.text.tool_formats import FORMATS
from neuron.toml_file import parsed, tables
from neuron.wire.event_stream import ServerEvent, read_events
from tests.support.tokenizers import KINDS

S = TypeVar("S", str, bytes)
Target = Callable[[bytes, Sequence[int]], None]
THINK = ("<think>", "</think>")


def pieces_of(whole: S, cuts: Sequence[int]) -> list[S]:
    """``whole`` cut where the numbers say, one after the other."""
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(whole[at : at + cut])
        at += cut
    return [*pieces, whole[at:]]


def _check_message(error: NeuronError) -> None:
    """Short and on one line, whatever was quoted in it."""
    assert error.message.isprintable(), error.message
    assert len(error.message) < 1000


def _check_place(message: str, secret: str) -> None:
    assert re.match(r"nodes\.toml:\d+: ", message)
    assert secret not in message


def text_of(data: bytes) -> str:
    """Text out of any bytes; what is no UTF-8 becomes lone surrogates, which JSON can spell."""
    return data.decode(errors="surrogateescape")


# ---- what models write ---------------------------------------------------------------------------------------


def _told_apart(parser: AnswerParser, chunks: Iterable[str]) -> tuple[str, str, list[list[str]]]:
    content, reasoning, calls = "", "", []
    found = [piece for chunk in chunks for piece in parser.feed(chunk)] + parser.flush()
    for piece in found:
        match piece:
            case Content(text):
                content += text
            case Reasoning(text):
                reasoning += text
            case CallStart(_, name):
                calls.append([name, ""])
            case CallArguments(text):
                calls[-1][1] += text
    return content, reasoning, calls


def _answer(form: str | None, is_open: bool) -> Target:
    def check(data: bytes, cuts: Sequence[int]) -> None:
        text, style = data.decode(errors="replace"), FORMATS[form] if form else None

        def parser() -> AnswerParser:
            return AnswerParser(marks=THINK, is_open=is_open, tool_format=style)

        whole = _told_apart(parser(), [text])
        assert _told_apart(parser(), pieces_of(text, cuts)) == whole
        assert _told_apart(parser(), text) == whole
        content, reasoning, calls = whole
        if not calls and not any(mark in text for mark in THINK):
            assert "".join((reasoning + content).split()) == "".join(text.split())
        assert all(name for name, _ in calls)

    return check


STOPS = ("\n\n", "END", "<|im_end|>", "ab", "abab", "bab", "é")


def stop_matcher(data: bytes, cuts: Sequence[int]) -> None:
    """What comes out is the text before the stop that is complete first, by a search that is not ours."""
    text = text_of(data)
    stops = [stop for n, stop in enumerate(STOPS) if len(data) >> n & 1] or list(STOPS)
    ends = [(text.find(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    expected = text[: min(ends)[0] + min(ends)[1]] if ends else text
    matcher, out = StopMatcher(stops), ""
    for chunk in pieces_of(text, cuts):
        safe, _ = matcher.feed(chunk)
        out += safe
        assert expected.startswith(out)
    assert out + matcher.flush() == expected


@cache
def _tokenizer(kind: str) -> Tokenizer:
    return Tokenizer(KINDS[kind]())


def detokenizer(data: bytes, cuts: Sequence[int]) -> None:
    """Ids one by one give what all at once give; an id outside the vocabulary has no text."""
    for kind in KINDS:
        tokenizer = _tokenizer(kind)
        size = tokenizer.vocab_size + 3
        ids = [(a << 8 | b) % size for a, b in zip(data[::2], data[1::2], strict=False)]
        stream = Detokenizer(tokenizer)
        parts = [stream.feed(i) for i in ids]
        known = [i for i in ids if i < tokenizer.vocab_size and i not in tokenizer.special_ids]
        assert "".join(parts) + stream.flush() == tokenizer.decode(known)


# ---- what nodes and people write -----------------------------------------------------------------------------


def reference(data: bytes, cuts: Sequence[int]) -> None:
    """A reference or a clear refusal; no name climbs, and what is written down of it stays in its folder."""
    text = text_of(data)
    try:
        found = parse_reference(text)
        model_id(found)
    except InvalidReference as e:
        _check_message(e)
        return
    assert parse_reference(found.text) == found
    if found.scheme != "path":
        parts = [found.name, found.revision or "", found.file or ""]
        assert all(".." not in part and not part.startswith(("/", "~")) for part in parts)
        assert re.fullmatch(r"[\w.+!/ -]+", "".join(parts), re.ASCII)
    path = manifest._manifest_path(found)
    assert path.parent.name == "manifests"
    assert len(path.name.encode()) <= 255


def event_stream(data: bytes, cuts: Sequence[int]) -> None:
    """The same events wherever the bytes are cut; what a server sends arrives."""
    whole = list(read_events([data]))
    assert list(read_events(pieces_of(data, cuts))) == whole
    assert list(read_events(bytes([byte]) for byte in data)) == whole
    said = re.split("\r\n|\r|\n", data.decode(errors="replace"))
    sent = "".join(f"data: {line}\n" for line in said) + "\n"
    assert list(read_events(pieces_of(sent.encode(), cuts))) == [ServerEvent("\n".join(said))]


_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def terminal(data: bytes, cuts: Sequence[int]) -> None:
    """No control character passes, no cut matters, and text without one passes whole."""
    text = text_of(data)
    shown = clean(text)
    assert not _HARMFUL.search(shown)
    filtered = TerminalText()
    assert "".join(map(filtered.feed, pieces_of(text, cuts))) == shown
    assert not re.search(r"\s", one_line(text).replace(" ", ""))
    if not _HARMFUL.search(text):
        assert shown == text
    assert clean(text + "\x18" * 2 + "x" * (MAX_SEQUENCE_CHARS + 1)).endswith("x")


class _Node(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    key: str | None = None


def toml(data: bytes, cuts: Sequence[int]) -> None:
    """Tables or a complaint with file and line, which never quotes the value of a key."""
    text, secret = data.decode(errors="replace"), "hunter2hunter2"
    path = Path("nodes.toml")
    for source in (text, f'[x]\nkey = "{secret}"\n{text}'):
        try:
            parsed(path, source)
            list(tables(path, source, _Node))
        except ConfigError as e:
            _check_message(e)
            _check_place(e.message, secret)


# ---- what files hold -----------------------------------------------------------------------------------------


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="neuron-fuzz-"))


def gguf_header(data: bytes, cuts: Sequence[int]) -> None:
    """A header whose tensors lie in the file, or a refusal."""
    path = _folder() / "x.gguf"
    path.write_bytes(data if data.startswith(b"GGUF") else b"GGUF\x03\0\0\0" + data)
    try:
        with GgufFile.open(path) as file:
            for tensor in file.tensors.values():
                assert tensor.offset + tensor.n_bytes <= path.stat().st_size
                assert len(file.read(tensor.name)) == tensor.n_bytes
    except InvalidModelFile as e:
        _check_message(e)


def safetensors_header(data: bytes, cuts: Sequence[int]) -> None:
    """What the official library opens is read the same by ours; what it refuses raises nothing but a refusal."""
    path = _folder() / "x.safetensors"
    length = int.from_bytes(data[:8], "little")
    path.write_bytes(data if length <= MAX_HEADER_BYTES else len(data).to_bytes(8, "little") + data)
    try:
        with safe_open(path, framework="pt", backend="pread") as official:
            expected = {n: list(official.get_slice(n).get_shape()) for n in official.keys()}  # noqa: SIM118
    except SafetensorError:
        expected = None
    try:
        found = {name: tensor.shape for name, tensor in read_header(path).items()}
    except NeuronError:
        assert expected is None
        return
    assert expected in (None, found)


TARGETS: Mapping[str, Target] = {
    **{f"calls {form}": _answer(form, is_open=False) for form in FORMATS},
    "calls in open reasoning": _answer("hermes", is_open=True),
    "reasoning": _answer(None, is_open=False),
    "stop matcher": stop_matcher,
    "detokenizer": detokenizer,
    "reference": reference,
    "event stream": event_stream,
    "terminal": terminal,
    "toml": toml,
    "gguf header": gguf_header,
    "safetensors header": safetensors_header,
}
