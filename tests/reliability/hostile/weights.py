"""Safetensors files, their index, and what is no regular file at all."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

from tests.reliability.hostile.case import (
    DAMAGED,
    EMPTY,
    MISMATCH,
    OUTSIDE,
    SENTINEL,
    UNFETCHED,
    UNSAFE,
    UNSUPPORTED,
    Case,
    Cases,
    Spoil,
    all_of,
    entry,
    huge,
    raw,
    reheaded,
    safetensors,
    special,
)

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NORM, EMBEDDING = "model.norm.weight", "model.embed_tokens.weight"
_WHOLE = "not a whole safetensors file"


class _Touch:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {SENTINEL}",)


def _torch_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Touch()))
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def _file(content: bytes, words: str = _WHOLE, code: str = DAMAGED) -> Case:
    return Case(raw(WEIGHTS, content), code, words)


def _header(header: Any, words: str = _WHOLE, data: bytes = bytes(8), code: str = DAMAGED) -> Case:
    return _file(safetensors(header, data), words, code)


def _named(name: str) -> Case:
    return Case(
        reheaded(lambda h: h.update({name: entry((0,), offsets=[h_end(h)] * 2)})), DAMAGED, "is named"
    )


def h_end(header: dict[str, Any]) -> int:
    """Where the data of the last tensor ends."""
    return max(int(t["data_offsets"][1]) for name, t in header.items() if name != "__metadata__")


def _resized(name: str, **values: Any) -> Spoil:
    return reheaded(lambda h: h[name].update(values))


def _many_tensors(n: int) -> Spoil:
    def spoil(folder: Path) -> None:
        entries = ",".join(f'"t{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(n))
        (folder / WEIGHTS).write_bytes(safetensors("{" + entries + "}"))

    return spoil


def _only(name: str, content: bytes) -> Spoil:
    return all_of(_without(WEIGHTS), raw(name, content))


def _without(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


HEADERS: Cases = {
    "weights: empty": _file(b""),
    "weights: 7 bytes": _file(bytes(7)),
    "weights: 8 bytes": _file(struct.pack("<Q", 2)),
    "weights: header of 0 bytes": _file(safetensors("", bytes(64))),
    "weights: header of 1 byte": _file(safetensors("{", bytes(64))),
    "weights: header longer than the file": _file(safetensors("{}", length=1000)),
    "weights: header of 2^31 bytes": _file(safetensors("{}", length=1 << 31)),
    "weights: header of 2^63 bytes": _file(safetensors("{}", length=1 << 63)),
    "weights: header of 2^64 - 1 bytes": _file(safetensors("{}", length=(1 << 64) - 1)),
    "weights: header of 33 MB of blanks": Case(
        huge(WEIGHTS, 40 << 20, struct.pack("<Q", 33 << 20) + b"{}"), DAMAGED, "a header of 34603008 bytes"
    ),
    "weights: header of 90 MB of zeros": Case(
        huge(WEIGHTS, 100 << 20, struct.pack("<Q", 90 << 20)), DAMAGED, "a header of"
    ),
    "weights: header is text": _header("weights"),
    "weights: header is a list": _header("[1, 2]"),
    "weights: header is null": _header("null"),
    "weights: header is a number": _header("1e999"),
    "weights: header is cut off": _header('{"a": {"dtype": "F32", "shape": [2], "data_of'),
    "weights: header is not UTF-8": _header(b'{"\xff\xfe": 1}'),
    "weights: header after a byte order mark": _header(b"\xef\xbb\xbf{}"),
    "weights: header nested 100,000 deep": _header('{"a":' * 100_000 + "1" + "}" * 100_000),
    "weights: header of lists 100,000 deep": _header('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "weights: metadata that is a list": _header({"__metadata__": [1], "a": entry()}),
    "weights: metadata of numbers": _header({"__metadata__": {"a": 1}, "b": entry()}),
    "weights: a tensor that is a number": _header({"a": 1}),
    "weights: a tensor that is null": _header({"a": None}),
    "weights: a tensor without a dtype": _header({"a": entry(dtype=None)}),
    "weights: a tensor without a shape": _header({"a": entry(shape=None)}),
    "weights: a tensor without offsets": _header({"a": entry(offsets=None)}),
    "weights: a dtype of the future": _header({"a": entry(dtype="F2")}),
    "weights: a dtype that is a number": _header({"a": entry(dtype=7)}),
    "weights: a shape of -2": _header({"a": entry(shape=[-2])}),
    "weights: a shape of 2.5": _header({"a": entry(shape=[2.5])}),
    "weights: a shape of words": _header({"a": entry(shape=["2"])}),
    "weights: a shape that is no list": _header({"a": entry(shape=2)}),
    "weights: a shape whose product overflows": _header({"a": entry(shape=[1 << 40, 1 << 40])}),
    "weights: a shape that overflows to the right size": _header({"a": entry(shape=[1 << 62, 8])}),
    "weights: a shape of 2^63": _header({"a": entry(shape=[1 << 63])}),
    "weights: a shape that the data does not fill": _header({"a": entry(shape=[3])}),
    "weights: a shape of 9 dimensions": _header({"a": entry(shape=[1] * 8 + [2])}, "9 dimensions"),
    "weights: a shape of 100,000 dimensions": _header(
        {"a": entry(shape=[1] * 99_999 + [2])}, "100000 dimensions"
    ),
    "weights: offsets that end before they begin": _header({"a": entry(offsets=[8, 0])}),
    "weights: offsets below zero": _header({"a": entry(offsets=[-8, 0])}),
    "weights: offsets beyond the file": _header({"a": entry(offsets=[1 << 40, (1 << 40) + 8])}),
    "weights: offsets of 2^64 - 8": _header({"a": entry(offsets=[(1 << 64) - 8, (1 << 64) - 1])}),
    "weights: one offset": _header({"a": entry(offsets=[0])}),
    "weights: three offsets": _header({"a": entry(offsets=[0, 4, 8])}),
    "weights: tensors that overlap": _header({"a": entry(), "b": entry()}),
    "weights: tensors that overlap by half": _header(
        {"a": entry(), "b": entry(offsets=[4, 12])}, data=bytes(12)
    ),
    "weights: a hole between tensors": _header({"a": entry(), "b": entry(offsets=[16, 24])}, data=bytes(24)),
    "weights: bytes behind the last tensor": _header({"a": entry()}, data=bytes(9)),
    "weights: data cut off": _header({"a": entry()}, data=bytes(7)),
    "weights: no tensors at all": _header({}, "missing", b"", MISMATCH),
    "weights: 250,000 tensors": Case(_many_tensors(250_000), DAMAGED, "a header of"),
    "weights: 60,000 tensors": Case(_many_tensors(60_000), MISMATCH, "missing"),
    "weights: a name that climbs": _named("../../etc/passwd"),
    "weights: a name with dots inside": _named("model..weight"),
    "weights: a name with NUL": _named("a\0b"),
    "weights: a name with an escape sequence": _named("a\x1b[2Jb"),
    "weights: a name with a line break": _named("a\r\nfaked log line"),
    "weights: a name that turns the line around": _named("a\u202egnp.exe"),
    "weights: a name of 513 characters": _named("a" * 513),
    "weights: a name that is empty": _named(""),
    "weights: a name with blanks": _named("a b"),
    "weights: a name with a quote": _named("a'; drop table models; --"),
    "weights: a pickle": _file(pickle.dumps(_Touch())),
    "weights: what torch.save writes": _file(_torch_zip()),
    "weights: a GGUF file": _file(b"GGUF" + struct.pack("<IQQ", 3, 0, 0)),
    "weights: an error page": _file(b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 20),
    "weights: a pointer of git lfs": _file(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    ),
    "weights: a program": _file(b"\x7fELF" + bytes(4096)),
    "weights: gzip": _file(b"\x1f\x8b\x08" + bytes(1000)),
    "weights: zeros": _file(bytes(1 << 20)),
    "weights: ones": _file(b"\xff" * (1 << 20)),
    "weights: a tensor too few": Case(
        reheaded(lambda h: h.update({"model.other.weight": h.pop(NORM)})), MISMATCH, NORM
    ),
    "weights: a shape turned": Case(
        reheaded(lambda h: h[EMBEDDING].update(shape=h[EMBEDDING]["shape"][::-1])), MISMATCH, "another shape"
    ),
    "weights: a shape of one dimension": Case(
        reheaded(lambda h: h[EMBEDDING].update(shape=[h[EMBEDDING]["shape"][0] * h[EMBEDDING]["shape"][1]])),
        MISMATCH,
        "another shape",
    ),
    "weights: whole numbers of 4 bytes": Case(_resized(NORM, dtype="I32"), UNSUPPORTED, "I32"),
    "weights: whole numbers without a sign": Case(_resized(NORM, dtype="U32"), UNSUPPORTED, "U32"),
    "weights: flags": Case(
        reheaded(lambda h: h[NORM].update(dtype="BOOL", shape=[4 * h[NORM]["shape"][0]])), UNSUPPORTED, "BOOL"
    ),
    "weights: an extra tensor": Case(
        reheaded(lambda h: h.update({"extra.weight": entry((0,), offsets=[h_end(h)] * 2)})),
        MISMATCH,
        "extra.weight",
    ),
    "weights: only a pickle": Case(_only("pytorch_model.bin", pickle.dumps(_Touch())), UNSAFE, "pickled"),
    "weights: only a .pt": Case(_only("model.pt", _torch_zip()), UNSAFE, "pickled"),
    "weights: only a .ckpt": Case(_only("model.ckpt", _torch_zip()), UNSAFE, "pickled"),
    "weights: only a .pth": Case(_only("model.pth", _torch_zip()), UNSAFE, "pickled"),
    "weights: only a .pkl": Case(_only("model.pkl", pickle.dumps(_Touch())), UNSAFE, "pickled"),
    "weights: only an .h5": Case(_only("model.h5", b"\x89HDF"), EMPTY, "no weights"),
    "weights: a pickle beside good ones": Case(raw("pytorch_model.bin", pickle.dumps(_Touch())), None),
    "weights: a program in Python beside good ones": Case(
        raw("modeling_evil.py", f"open('{SENTINEL}', 'w')"), None
    ),
}


# ---- the index -----------------------------------------------------------------------------------------------


def _indexed(weight_map: Any, move: bool = True) -> Spoil:
    """An index over the good weights, which are called ``a.safetensors`` then."""

    def spoil(folder: Path) -> None:
        if move:
            (folder / WEIGHTS).rename(folder / "a.safetensors")
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    return spoil


def _index(weight_map: Any, words: str, code: str = DAMAGED) -> Case:
    return Case(_indexed(weight_map), code, words)


def _text(text: str, words: str) -> Case:
    return Case(all_of(_without(WEIGHTS), raw(INDEX, text)), DAMAGED, words)


def _twice(folder: Path) -> None:
    _indexed({"a": "a.safetensors", "b": "b.safetensors"})(folder)
    (folder / "b.safetensors").write_bytes((folder / "a.safetensors").read_bytes())


def _linked_to(target: str) -> Spoil:
    def spoil(folder: Path) -> None:
        _indexed({"a": "b.safetensors"})(folder)
        (folder / "b.safetensors").symlink_to(target)

    return spoil


def _cut_shard(folder: Path) -> None:
    _indexed({"a": "a.safetensors"})(folder)
    os.truncate(folder / "a.safetensors", (folder / "a.safetensors").stat().st_size // 2)


_NO_NAME = "is no file name"
INDEXES: Cases = {
    "index: not JSON": _text("{", "not valid JSON"),
    "index: a list": _text("[]", "expected a JSON object"),
    "index: empty": _text("", "not valid JSON"),
    "index: nested 100,000 deep": _text('{"weight_map":' * 100_000 + "1" + "}" * 100_000, "not valid JSON"),
    "index: 70 MB": Case(all_of(_without(WEIGHTS), huge(INDEX, 70 << 20)), DAMAGED, "reads at most"),
    "index: no weight_map": _text('{"metadata": {}}', "weight_map is missing"),
    "index: a weight_map that is a list": _index(["a.safetensors"], "weight_map is missing"),
    "index: a weight_map that is text": _index("a.safetensors", "weight_map is missing"),
    "index: an empty weight_map": _index({}, "weight_map is missing"),
    "index: a number for a file": _index({"a": 1}, _NO_NAME),
    "index: null for a file": _index({"a": None}, _NO_NAME),
    "index: a list for a file": _index({"a": ["a.safetensors"]}, _NO_NAME),
    "index: /etc/passwd": _index({"a": "/etc/passwd"}, _NO_NAME),
    "index: a file that climbs": _index({"a": "../other/model.safetensors"}, _NO_NAME),
    "index: a file in a folder": _index({"a": "sub/model.safetensors"}, _NO_NAME),
    "index: a file that is a dot": _index({"a": "."}, "not a regular file"),
    "index: a file that is two dots": _index({"a": ".."}, _NO_NAME),
    "index: a file with NUL": _index({"a": "a\0.safetensors"}, _NO_NAME),
    "index: a file with an escape sequence": _index({"a": "a\x1b[2J.safetensors"}, _NO_NAME),
    "index: a file with a backslash": _index({"a": "..\\a.safetensors"}, _NO_NAME),
    "index: a file name of 600 characters": _index({"a": "a" * 600}, _NO_NAME),
    "index: a file name that is empty": _index({"a": ""}, _NO_NAME),
    "index: itself": _index({"a": INDEX}, _WHOLE),
    "index: the configuration": _index({"a": "config.json"}, _WHOLE),
    "index: a file that is not there": _index({"a": "z.safetensors"}, "1 of 1 weight files are missing"),
    "index: 20 files that are not there": _index(
        {str(i): f"{i}.safetensors" for i in range(20)}, "20 of 20 weight files are missing"
    ),
    "index: 5,000 files": _index({str(i): f"{i}.safetensors" for i in range(5000)}, "more than 4096 files"),
    "index: a tensor in two files": Case(_twice, DAMAGED, "is also in"),
    "index: a file cut in half": Case(_cut_shard, DAMAGED, _WHOLE),
    "index: a file that is a link out of the root": Case(_linked_to("/etc/passwd"), OUTSIDE, "model root"),
    "index: a file that links to itself": Case(_linked_to("b.safetensors"), DAMAGED, "missing"),
    "index: a file that links to /dev/zero": Case(_linked_to("/dev/zero"), OUTSIDE, "model root"),
    "index: a link to a good file of the folder": Case(_linked_to("a.safetensors"), None),
    "index: names of tensors that are not so": Case(_indexed({"x": "a.safetensors"}), None),
}


# ---- no regular file -----------------------------------------------------------------------------------------

_IRREGULAR = "not a regular file"
_PARTS = (WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def _link(target: str) -> Any:
    return lambda path: path.symlink_to(target)


SPECIAL: Cases = {
    **{f"FIFO: {name}": Case(special(name, os.mkfifo), DAMAGED, _IRREGULAR) for name in _PARTS},
    **{f"folder: {name}": Case(special(name, os.mkdir), DAMAGED, _IRREGULAR) for name in _PARTS},
    **{
        f"/dev/zero: {name}": Case(special(name, _link("/dev/zero")), OUTSIDE, "model root")
        for name in _PARTS
    },
    **{f"/etc/passwd: {name}": Case(special(name, _link("/etc/passwd")), OUTSIDE) for name in _PARTS},
    "FIFO: generation_config.json": Case(special("generation_config.json", os.mkfifo), DAMAGED, _IRREGULAR),
    "FIFO: the index": Case(all_of(_without(WEIGHTS), special(INDEX, os.mkfifo)), DAMAGED, _IRREGULAR),
    "link to nowhere: weights": Case(special(WEIGHTS, _link("nowhere")), DAMAGED, "No such file"),
    "link to itself: weights": Case(special(WEIGHTS, _link(WEIGHTS)), DAMAGED, "Too many levels"),
    "link to itself: config.json": Case(special("config.json", _link("config.json")), DAMAGED, "missing"),
    "link to the folder's own good file": Case(
        all_of(lambda f: (f / WEIGHTS).rename(f / "blob"), special(WEIGHTS, _link("blob"))), None
    ),
    "a socket in the place of a GGUF": Case(
        lambda f: special("x.gguf", os.mkfifo)(f) or f / "x.gguf", UNFETCHED, "readable .gguf"
    ),
    "a folder in the place of a GGUF": Case(
        lambda f: special("x.gguf", os.mkdir)(f) or f / "x.gguf", EMPTY, "no weights"
    ),
    "a folder that is not there": Case(lambda f: f / "nothing", UNFETCHED, "No such file"),
    "a file in the place of a folder": Case(lambda f: f / "config.json" / "x", UNFETCHED, "Not a directory"),
    "config.json alone": Case(_without(WEIGHTS), EMPTY, "no weights"),
}

CASES: Cases = {**HEADERS, **INDEXES, **SPECIAL}
