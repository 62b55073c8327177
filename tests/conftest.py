"""Fixtures for every test."""

import os

from tests.support.exact import exact
from tests.support.kept_output import pytest_collection_modifyitems
from tests.support.real_model import minilm, smollm2_gguf
from tests.support.scorecard import pytest_runtest_logreport, pytest_sessionfinish, scorecard

# Before torch is imported: kernel threads that spin while they wait make every test several times slower on cores
# that are shared with anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__all__ = [
    "exact",
    "minilm",
    "pytest_collection_modifyitems",
    "pytest_runtest_logreport",
    "pytest_sessionfinish",
    "scorecard",
    "smollm2_gguf",
]
