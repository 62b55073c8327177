"""What the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_chat import save_tiny_chat


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model root with one tiny model, ``tiny``."""
    root = tmp_path_factory.mktemp("models")
    save_tiny_chat(root / "tiny")
    return root
