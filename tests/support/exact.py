"""Prompts that are computed in float32, as with ``exact_prompts``."""

from collections.abc import Iterator

import pytest


@pytest.fixture
def exact() -> Iterator[None]:
    """Nothing is rounded for as long as a test runs."""
    from neuron.model import native  # which imports torch: see conftest.py

    native.set_exact(True)
    yield
    native.set_exact(False)
