"""Random schemas and required calls on the real model, the short form of ``make structured``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from neuron.engine.engine import Engine
from neuron.engine.request import LoadSpec
from tests.support.structured import SETTINGS, measure, schema_requests, tool_requests

pytestmark = pytest.mark.real_model


@pytest.fixture
async def engine(smollm2_gguf: Path) -> AsyncIterator[Engine]:
    engine = Engine(SETTINGS)
    await engine.start()
    await engine.load(LoadSpec(model_id="model"), lambda report: smollm2_gguf)
    yield engine
    await engine.close()


async def test_complete_answers_obey_their_schema_and_most_are_complete(engine: Engine) -> None:
    figures = await measure(engine, schema_requests(16, "model"))
    assert not figures.wrong
    assert figures.complete >= 0.75 * figures.answers, figures.cut


async def test_a_required_call_is_made_and_obeys_its_parameters(engine: Engine) -> None:
    figures = await measure(engine, tool_requests(8, "model"))
    assert not figures.wrong
    assert figures.complete >= 0.75 * figures.answers, figures.cut
