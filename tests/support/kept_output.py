"""What the nodes of a test session said: lines of their logs and answers that are errors. The session's last test
looks through it for secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import httpx
import pytest

LAST = "test_no_secret_is_told.py"
KEY = re.compile(r"nk_[\w-]{20,}")
"""A key, or most of one."""
TOKEN = "HF_TOKEN"
KEYS = ("NEURON_KEYS_FILE", "CREDENTIALS_DIRECTORY")
lines: list[str] = []
errors: list[str] = []
tokens: set[str] = set()
"""Tokens of the hub that nodes were given."""
keyed: list[str] = []
"""Files or folders of keys that nodes were given."""


def given(env: Mapping[str, str]) -> None:
    """A node is about to be started with these variables."""
    if env.get(TOKEN):
        tokens.add(env[TOKEN])
    keyed.extend(env[name] for name in KEYS if env.get(name))


def answered(answer: httpx.Response) -> httpx.Response:
    """The same answer, kept if it is an error."""
    if answer.status_code >= 400:
        errors.append(answer.text)
    return answer


def leaks(texts: Iterable[str]) -> list[str]:
    """Those in which there is a secret."""
    return [text for text in texts if KEY.search(text) or any(token in text for token in tokens)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that looks through everything comes last."""
    items.sort(key=lambda item: item.path.name == LAST)
