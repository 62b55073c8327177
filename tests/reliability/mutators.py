"""Seeded changes of good model files, most of which keep the form, so that they get past the first check."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import jinja2

from tests.reliability.hostile.case import safetensors

Mutate = Callable[[random.Random, bytes], bytes]

_ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        7,
        255,
        256,
        320,
        1 << 15,
        1 << 31,
        1 << 32,
        (1 << 63) - 1,
        -(1 << 63),
    ),
    *(
        0.5,
        -0.0,
        1e-320,
        1e300,
        2.0,
        "",
        "x",
        "2",
        "..",
        "../../etc/passwd",
        "/dev/zero",
        "a\x1b[2J",
        "\u202e",
    ),
    *("llama", "BPE", "Sequence", "{{ 1 }}", "<|im_end|>", "F32", "I64", "model.safetensors", "x" * 5000),
    *([], {}, [[]], [0], [1, 2, 3], {"a": 1}, {"type": "Lowercase"}, [None] * 50, {"content": "x"}),
]
_SNIPPETS = [
    *(
        "{{ messages }}",
        "{% for m in messages %}",
        "{% endfor %}",
        "{% if x %}",
        "{% endif %}",
        "{{ x.y.z }}",
    ),
    *("{{ ''.__class__ }}", "{{ 'a' * 10**9 }}", "{{ range(10**9) | list }}", "{{ messages | tojson }}"),
    *(
        "{% set ns = namespace(x=1) %}",
        "{{ raise_exception('no') }}",
        "{{ strftime_now('%Y') }}",
        "{{ loop }}",
    ),
    *("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% break %}", "{{ bos_token }}", "|", "-%}", "{{-"),
    *(
        "{{ messages[0]['content'][::-1] }}",
        "{{ messages | map('upper') | list }}",
        "{{ 1 / 0 }}",
        "\0",
        "é🙂",
    ),
]


def raw(rng: random.Random, data: bytes) -> bytes:
    """A few bytes changed, cut out, put in, or all from some place on left out."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, min(len(changed), 4096) if rng.random() < 0.7 else len(changed)))
        match rng.randrange(6):
            case 0:
                changed[at : at + 1] = rng.randbytes(1)
            case 1:
                changed[at : at + 8] = struct.pack("<Q", rng.choice([0, 1, (1 << 64) - 1, 1 << 31, 1 << 20]))
            case 2:
                del changed[at : at + rng.randrange(1, 9)]
            case 3:
                changed[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                changed[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 2, 8, 9, 32, 0xFFFFFFFF]))
            case 5 if rng.random() < 0.3:
                del changed[at:]
    return bytes(changed)


def value(rng: random.Random, tree: Any, changes: int = 0) -> Any:
    """A tree of JSON with one to three values replaced, taken out, doubled or moved."""
    whole = [tree]
    for _ in range(changes or rng.randint(1, 3)):
        places = list(_places(whole))[:4000]
        holder, at = rng.choice(places)
        match rng.randrange(5):
            case 0 | 1:
                holder[at] = _odd(rng)
            case 2 if holder is not whole:
                del holder[at]
            case 3:
                other, there = rng.choice(places)
                if not _within(other[there], holder):
                    holder[at] = json.loads(json.dumps(other[there]))
            case _ if isinstance(holder, dict):
                holder[rng.choice(["x", "", "type", "model_type", str(at) + "_"])] = _odd(rng)
            case _:
                holder[at] = _odd(rng)
    return whole[0]


def _odd(rng: random.Random) -> Any:
    """A value of its own: one that is shared would grow from file to file."""
    return copy.deepcopy(rng.choice(_ODD))


def _places(tree: Any) -> Any:
    """(list or object, index or key) of every value below, the shallow ones first."""
    level = [tree]
    while level:
        below = []
        for holder in level:
            for at in list(holder) if isinstance(holder, dict) else range(len(holder)):
                yield holder, at
                if isinstance(holder[at], dict | list):
                    below.append(holder[at])
        level = below


def _within(tree: Any, holder: Any) -> bool:
    return tree is holder or any(_within(t, holder) for t in _children(tree))


def _children(tree: Any) -> Any:
    return tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()


def structured(rng: random.Random, data: bytes) -> bytes:
    """JSON whose values are changed; one time in four bytes instead."""
    if rng.random() < 0.25:
        return raw(rng, data)
    return json.dumps(value(rng, json.loads(data))).encode()


def tokenizer(rng: random.Random, data: bytes) -> bytes:
    """As `structured`, with the vocabulary left in peace most of the time: it is most of the file."""
    if rng.random() < 0.2:
        return raw(rng, data)
    spec = json.loads(data)
    model = spec["model"] if rng.random() < 0.3 else {k: v for k, v in spec.items() if k != "model"}
    changed = value(rng, model)
    if not isinstance(changed, dict):
        return json.dumps(changed).encode()
    whole = {**spec, "model": changed} if model is spec["model"] else {"model": spec["model"], **changed}
    return json.dumps(whole).encode()


def weights(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file whose header's values are changed, or its bytes."""
    length = struct.unpack("<Q", data[:8])[0]
    if rng.random() < 0.3:
        return raw(rng, data[: 8 + length]) + data[8 + length :]
    header = value(rng, json.loads(data[8 : 8 + length]))
    return safetensors(json.dumps(header), data[8 + length :])


def gguf(rng: random.Random, data: bytes) -> bytes:
    """Bytes of the header, behind the magic and the counts most of the time."""
    start = 24 if rng.random() < 0.8 else 0
    return data[:start] + raw(rng, data[start:20_000]) + data[20_000:]


def template(rng: random.Random, data: bytes) -> bytes:
    """Pieces of a chat template moved, doubled, taken out, and others put in."""
    text = data.decode()
    for _ in range(rng.randint(1, 3)):
        at, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        piece = rng.choice([rng.choice(_SNIPPETS), rng.choice(_SNIPPETS), text[at:end], ""])
        text = text[:at] + piece + text[at if rng.random() < 0.7 else min(end, at + 40) :]
    return text.encode()


def wheel(rng: random.Random, data: bytes) -> bytes:
    """A wheel of which a file, a name or a mode is changed; one time in four bytes."""
    if rng.random() < 0.25:
        return raw(rng, data)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        spoilt = rng.choice(old.infolist()).filename
        for info in old.infolist():
            entry, content = zipfile.ZipInfo(info.filename), old.read(info)
            entry.external_attr = info.external_attr
            if info.filename == spoilt:
                match rng.randrange(6):
                    case 0:
                        entry.filename = rng.choice(["../x", "/x", "a\\b", "a:b", "C:/x", "x", "x.bin", "é"])
                    case 1:
                        entry.external_attr = rng.choice([0o120777, 0o010644, 0o060644, 0o040755]) << 16
                    case 2:
                        continue
                    case _:
                        content = raw(rng, content or b"x")
            new.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


# ---- the first check, by something that is not ours ----------------------------------------------------------


def is_object(data: bytes) -> bool:
    """JSON whose top is an object."""
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


def is_safetensors(data: bytes) -> bool:
    """A header of the length that it says, in JSON."""
    length = int.from_bytes(data[:8], "little")
    return len(data) >= 8 + length and is_object(data[8 : 8 + length])


def is_gguf(data: bytes) -> bool:
    """The magic, a version that exists, and counts of a size that exists."""
    if len(data) < 24 or data[:4] != b"GGUF":
        return False
    version, n_tensors, n_keys = struct.unpack("<IQQ", data[4:24])
    return version in (2, 3) and n_tensors < 100_000 and n_keys < 10_000


def is_template(data: bytes) -> bool:
    """Text that jinja2 parses."""
    try:
        environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
        environment.parse(data.decode())
    except (jinja2.TemplateError, ValueError, RecursionError):
        return False
    return True


def is_zip(data: bytes) -> bool:
    """A zip whose list of files can be read."""
    try:
        zipfile.ZipFile(io.BytesIO(data)).close()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return True
