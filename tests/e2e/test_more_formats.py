"""Text completions, Anthropic's messages and tokens against a real daemon with the real model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.support.node_process import NodeProcess

pytestmark = pytest.mark.real_model

MODEL = "SmolLM2-135M-Instruct.Q4_1"
PROMPTS = ["The capital of France is", "One, two, three,"]
GREEDY = {"temperature": 0}
QUESTION: Any = {"role": "user", "content": "What is the capital of France?"}


@pytest.fixture
def claude(real_node: NodeProcess) -> Iterator[anthropic.Anthropic]:
    """The official client, strict about every type."""
    with anthropic.Anthropic(
        base_url=real_node.url, api_key="none", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def test_a_completion_streams_what_it_answers_and_its_logprobs_spell_the_text(real_node: NodeProcess) -> None:
    asked: Any = {"model": MODEL, "prompt": PROMPTS, "n": 2, "temperature": 0, "max_tokens": 6, "logprobs": 2}
    with openai.OpenAI(base_url=f"{real_node.url}/v1", api_key="none", max_retries=0) as client:
        client.completions.create(**asked)  # the same prompts are in the cache for both that follow
        whole = client.completions.create(**asked)
        chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "Paris" in whole.choices[0].text
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    for choice in whole.choices:
        parts = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert "".join(part.text for part in parts) == choice.text
        assert choice.logprobs is not None
        assert "".join(choice.logprobs.tokens or []) == choice.text
        assert all(
            max(top.values()) >= own
            for top, own in zip(
                choice.logprobs.top_logprobs or [], choice.logprobs.token_logprobs or [], strict=True
            )
        )
    assert chunks[-1].usage == whole.usage


def test_a_message_streams_what_it_answers_and_goes_on_from_a_prefill(claude: anthropic.Anthropic) -> None:
    asked: Any = {"model": MODEL, "max_tokens": 30, "messages": [QUESTION], "extra_body": GREEDY}
    claude.messages.create(**asked)  # the same prompt is in the cache for both that follow
    whole = claude.messages.create(**asked)
    with claude.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert "Paris" in whole.content[0].text
    assert final.content[0].text == whole.content[0].text
    assert (final.stop_reason, final.usage) == (whole.stop_reason, whole.usage)
    counted = claude.messages.count_tokens(model=MODEL, messages=[QUESTION])
    assert counted.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    begun: Any = [QUESTION, {"role": "assistant", "content": "The capital of France is"}]
    more = claude.messages.create(**{**asked, "messages": begun}, stop_sequences=["."])
    assert more.content[0].text == " Paris"
    assert (more.stop_reason, more.stop_sequence) == ("stop_sequence", ".")


def test_tokens_go_round(real_node: NodeProcess) -> None:
    def post(path: str, **fields: Any) -> Any:
        return httpx.post(real_node.url + path, json=fields, timeout=30).raise_for_status().json()

    rendered = post("/apply-template", messages=[QUESTION])["prompt"]
    ids = post("/tokenize", messages=[QUESTION])["tokens"]
    assert post("/tokenize", content=rendered)["tokens"] == ids
    assert post("/detokenize", tokens=ids)["content"] == rendered
    assert "".join(post("/tokenize", content=rendered, return_strs=True)["token_strs"]) == rendered
