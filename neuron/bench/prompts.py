"""Prompts of a wished length that no cache of prefixes has seen."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

WORDS = re.findall(
    r"\w+",
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but "
    "what all were when we there can an your which their said if do will each about how up out them then she "
    "many some so these would other into has more her two like him see time could no make than first been its "
    "who now people my made over did down only way find use may water long little very after words called just",
)
"""Each is one token in the vocabularies of most models."""
TRIES = 4


def prompt(random_: random.Random, n_words: int) -> str:
    """Words in an order of chance, from the first one on."""
    return " ".join(random_.choices(WORDS, k=n_words))


def words_for(n_tokens: int, count: Callable[[int], int | None]) -> int:
    """Words that make a prompt of ``n_tokens``, template included; one word at least.

    ``count`` says how many tokens a prompt of so many words has, None if nobody counts: then a word is a token.
    """
    n_words = n_tokens
    for _ in range(TRIES):
        counted = count(n_words)
        wanted = n_words if counted is None else max(1, n_words + n_tokens - counted)
        if wanted == n_words:
            break
        n_words = wanted
    return n_words
