"""A running engine with a tiny model."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from neuron.engine.engine import Engine
from neuron.engine.request import LoadSpec
from neuron.settings import Settings
from tests.support.tiny_chat import save_tiny_chat

SETTINGS = Settings(device="cpu", threads=1, kv_budget_mb=64, prefill_chunk_tokens=16, drain_s=60.0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A model folder and its transformers reference."""
    folder = tmp_path_factory.mktemp("tiny")
    return folder, save_tiny_chat(folder)


@pytest.fixture
async def engine(tiny: tuple[Path, Any]) -> AsyncIterator[Engine]:
    """An engine that has loaded the model as ``tiny``."""
    engine = Engine(SETTINGS)
    await engine.start()
    await engine.load(LoadSpec(model_id="tiny"), lambda report: tiny[0])
    yield engine
    await engine.close()


def hold_device(engine: Engine, model_id: str, seconds: float) -> None:
    """Keep the model's device from computing anything for a while."""
    engine._models.serving(model_id).worker.call(partial(time.sleep, seconds))
