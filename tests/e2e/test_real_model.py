"""The real model computes what transformers computes from the same weights, from GGUF and from safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from neuron.model.decoder import Decoder, make_batch
from neuron.model.load import load_decoder, open_checkpoint, open_files
from neuron.text.load import TextModel, load_text

pytestmark = pytest.mark.real_model

PROMPTS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Explain recursion to a child.",
    "Translate 'good morning' into Spanish.",
    "List three prime numbers.",
    "def fibonacci(n):",
    "Why is the sky blue?",
    "Summarise the plot of Romeo and Juliet in one sentence.",
    "1, 1, 2, 3, 5, 8,",
    "Ünïcödé, 日本語 and 🙂: what are these?",
]
N_NEW = 24
BOUND_BEHIND_PROMPTS = 1e-3
"""Of the largest logit: `tests/model/test_packed.py`."""
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def text(smollm2_gguf: Path) -> TextModel:
    """Tokenizer and template of the GGUF file."""
    return load_text(open_files(smollm2_gguf))


@pytest.fixture(scope="module")
def reference(smollm2_gguf: Path) -> Any:
    """The weights of the GGUF file in transformers, dequantised to float32."""
    loaded = AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.float32
    )
    config = loaded.config
    del config.quantization_config  # what was read is plain float32
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    return model.eval()


@pytest.fixture(scope="module")
def sharded(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same weights as sharded safetensors."""
    folder = tmp_path_factory.mktemp("sharded")
    reference.save_pretrained(folder, max_shard_size="150MB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    yield folder
    for file in folder.glob("*.safetensors"):
        file.unlink()


def greedy_together(decoder: Decoder, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy continuations of all prompts in one ragged batch."""
    caches = [decoder.new_cache(len(ids) + N_NEW) for ids in prompts]
    new = prompts
    answers: list[list[int]] = [[] for _ in prompts]
    for _ in range(N_NEW):
        logits = decoder.forward(make_batch([(c, i, True) for c, i in zip(caches, new, strict=True)], CPU))
        new = [[int(i)] for i in logits.argmax(dim=-1)]
        answers = [[*answer, *ids] for answer, ids in zip(answers, new, strict=True)]
    return answers


def reference_agrees(reference: Any, prompt: list[int], answer: list[int]) -> bool:
    """Whether greedy decoding gives ``answer``: each of its ids is the likeliest one after all before it."""
    with torch.no_grad():
        logits = reference(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
    return bool((logits.argmax(dim=-1) == torch.tensor(answer)).all())


def test_ids_behind_rounded_prompts_are_the_likeliest_or_nearly(
    smollm2_gguf: Path, text: TextModel, reference: Any
) -> None:
    decoder = load_decoder(open_checkpoint(open_files(smollm2_gguf)), device=CPU, dtype=torch.float32)
    prompts = [text.encode_chat([{"role": "user", "content": prompt}]) for prompt in PROMPTS]
    for prompt, answer in zip(prompts, greedy_together(decoder, prompts), strict=True):
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
        best, chosen = logits.amax(dim=-1), logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        assert (best - chosen <= 2 * BOUND_BEHIND_PROMPTS * logits.abs().amax(dim=-1)).all()


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
@pytest.mark.usefixtures("exact")
def test_greedy_continuations_equal_the_reference(
    kind: str, request: pytest.FixtureRequest, smollm2_gguf: Path, text: TextModel, reference: Any
) -> None:
    path = smollm2_gguf if kind == "gguf" else request.getfixturevalue("sharded")
    decoder = load_decoder(open_checkpoint(open_files(path)), device=CPU, dtype=torch.float32)
    prompts = [text.encode_chat([{"role": "user", "content": prompt}]) for prompt in PROMPTS]
    answers = greedy_together(decoder, prompts)
    wrong = [*answers[0][:-1], (answers[0][-1] + 1) % 49152]
    assert all(reference_agrees(reference, p, a) for p, a in zip(prompts, answers, strict=True))
    assert not reference_agrees(reference, prompts[0], wrong)
