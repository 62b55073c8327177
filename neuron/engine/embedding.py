"""One embeddings request on the event loop's side, from its texts to its vectors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from neuron.engine.api import Embeddings
from neuron.engine.request import TextPrompt, TokenPrompt
from neuron.errors import InvalidValue, ModelUnloading, NeuronError, PromptNeverFits, PromptTooLong
from neuron.keys import ANONYMOUS

if TYPE_CHECKING:
    from neuron.engine.loaded import LoadedModel


@dataclass(slots=True, eq=False)
class EmbedRun:
    """What the gate and the engine know of a request. The gate admits it like a generation with one answer."""

    inputs: list[list[int]]
    kv_bytes: int
    """Cache of the longest input; they are computed one after the other."""
    principal: str = ANONYMOUS
    principal_limit: int | None = None
    n_answers: int = 1
    error: NeuronError | None = None
    started_s: float = 0.0
    ended_s: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it is admitted or failed."""

    def start(self) -> None:
        """It has a place."""
        self.started_s = time.monotonic()
        self.changed.set()

    def fail(self, error: NeuronError) -> None:
        """End it at its next piece of work."""
        self.error = error
        self.changed.set()

    async def admitted(self) -> None:
        """Wait for a place. Raises what it was failed with."""
        await self.changed.wait()
        self.check()

    def check(self) -> None:
        """Raise what it was failed with."""
        if self.error is not None:
            raise self.error


def encode_inputs(model: LoadedModel, inputs: Sequence[TextPrompt | TokenPrompt]) -> EmbedRun:
    """Ids of every input. Slow for many: call it off the event loop.

    Raises:
        InvalidValue: no input, an empty one, or an id that the vocabulary lacks.
        PromptTooLong, PromptNeverFits: ``param`` names the input.
    """
    if not inputs:
        raise InvalidValue("there is nothing to embed", param="input")
    names = ["input"] if len(inputs) == 1 else [f"input[{i}]" for i in range(len(inputs))]
    ids = [_encode(model, one, name) for one, name in zip(inputs, names, strict=True)]
    return EmbedRun(ids, max(map(len, ids)) * model.kv_bytes_per_token)


def _encode(model: LoadedModel, prompt: TextPrompt | TokenPrompt, name: str) -> list[int]:
    try:
        ids = model.text.encode_text(prompt.text) if isinstance(prompt, TextPrompt) else list(prompt.ids)
    except InvalidValue as e:
        e.param = name
        raise
    if not ids:
        raise InvalidValue(f"{name} has no tokens", param=name)
    if min(ids) < 0 or max(ids) >= model.vocab_size:
        raise InvalidValue(f"{name} has an id outside the vocabulary of {model.vocab_size}", param=name)
    if len(ids) > model.embed_context:
        raise PromptTooLong(
            f"this model embeds at most {model.embed_context} tokens at once, and {name} has {len(ids)}",
            hint="split the text; nothing is cut off silently",
            param=name,
            prompt_len=len(ids),
            max=model.embed_context,
        )
    if (needed := len(ids) * model.kv_bytes_per_token) > model.gate.kv_budget_bytes:
        raise PromptNeverFits(
            f"{name} of {len(ids)} tokens needs more cache than this node has for the model",
            param=name,
            required_mb=needed >> 20,
            budget_mb=model.gate.kv_budget_bytes >> 20,
        )
    return ids


async def compute(model: LoadedModel, run: EmbedRun, call_soon: Callable[..., None]) -> Embeddings:
    """The vectors, piece by piece, one piece of one request at a time; ``call_soon`` leads back to the event loop.

    Ends between two pieces when the run was failed or the caller left.
    """
    embedder = model.slot.embedder
    if embedder is None:
        raise ModelUnloading(f"model '{model.id}' is being unloaded", retry_after_s=5)
    pieces = embedder.pieces(run.inputs)
    found: dict[int, tuple[float, ...]] = {}
    while len(found) < len(run.inputs):
        async with model.embed_turn:
            run.check()
            piece = await _on_device(model, lambda: model.slot.seen(embedder.advance(pieces)), call_soon)
        if isinstance(piece, NeuronError):
            raise piece
        found |= piece
    vectors = tuple(found[i] for i in range(len(run.inputs)))
    return Embeddings(vectors=vectors, prompt_tokens=sum(map(len, run.inputs)))


async def _on_device(model: LoadedModel, work: Callable[[], Any], call_soon: Callable[..., None]) -> Any:
    """What ``work``, which does not raise, brings between two steps of the device thread."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def settle(result: object) -> None:
        if not future.done():
            future.set_result(result)

    model.worker.call(lambda: call_soon(settle, work()))
    return await future
