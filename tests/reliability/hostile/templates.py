"""Chat templates, which are programs of others."""

from __future__ import annotations

import json
from typing import Any

from tests.reliability.hostile.case import DAMAGED, Case, Cases, Spoil, having, raw
from tests.text.test_template_attacks import BOMBS, INJECTIONS

FILE, CONFIG = "chat_template.jinja", "tokenizer_config.json"
_STOPPED = "chat template"


def _source(source: str) -> Spoil:
    return raw(FILE, source)


def _listed(value: Any, words: str = "chat_template") -> Case:
    return Case(having(CONFIG, chat_template=value), DAMAGED, words)


CASES: Cases = {
    **{f"template injection {n}: {s[:50]}": Case(_source(s), DAMAGED) for n, s in enumerate(INJECTIONS, 1)},
    **{f"template bomb {n}: {s[:50]}": Case(_source(s), DAMAGED) for n, s in enumerate(BOMBS, 1)},
    "template: does not parse": Case(_source("{% if %}"), DAMAGED, "line 1"),
    "template: never ends": Case(_source("{% for m in messages %}"), DAMAGED, _STOPPED),
    "template: 300 KB": Case(_source("x" * 300_000), DAMAGED, "larger than"),
    "template: 2 MB": Case(_source("x" * (2 << 20)), DAMAGED, "reads at most"),
    "template: 30,000 parts": Case(_source("{{ 1 }}" * 30_000), DAMAGED, _STOPPED),
    "template: 5,000 conditions deep": Case(_source("{% if 1 %}" * 5000), DAMAGED, _STOPPED),
    "template: 9,000 signs before a number": Case(_source("{{ " + "-" * 9000 + "1 }}"), DAMAGED, _STOPPED),
    "template: 9,000 brackets": Case(_source("{{ " + "[" * 9000 + "]" * 9000 + " }}"), DAMAGED, _STOPPED),
    "template: not UTF-8": Case(raw(FILE, b"\xff\xfe"), DAMAGED, "not UTF-8"),
    "template: a number": _listed(7),
    "template: a list of numbers": _listed([1]),
    "template: an empty list": _listed([]),
    "template: a list without names": _listed([{"template": "x"}]),
    "template: a list whose text is a number": _listed([{"name": "default", "template": 1}]),
    "template: a list without a default": _listed([{"name": "rag", "template": "x"}], "no part named"),
    "template: an object": _listed({"default": "x"}),
    "template: refuses the greeting, and so works": Case(_source("{{ raise_exception('no') }}"), None),
    "template: makes nothing, and so works": Case(_source(""), None),
    "template: JSON that is cut off": Case(raw("chat_template.json", "{"), DAMAGED, "not valid JSON"),
    "template: JSON with an injection": Case(
        raw("chat_template.json", json.dumps({"chat_template": INJECTIONS[1]})), DAMAGED, _STOPPED
    ),
}
