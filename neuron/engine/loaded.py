"""A model in memory: its decoder on a device thread, its text, its limits and its gate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from heapq import nlargest
from typing import TYPE_CHECKING, Any

from neuron.engine.answer import Answer
from neuron.engine.drafts import Drafts
from neuron.engine.gate import Gate
from neuron.engine.request import (
    NEUTRAL,
    ChatPrompt,
    Constraint,
    Generation,
    JsonSchema,
    Lark,
    Prompt,
    Regex,
    Sampling,
    TextPrompt,
    TokenPrompt,
    ToolCalls,
)
from neuron.engine.sequence import Sequence
from neuron.engine.status import LoadFigures
from neuron.engine.thinking import Thinking
from neuron.errors import InvalidValue, PromptNeverFits, PromptTooLong
from neuron.text.grammar import (
    MAX_TOOLS_BYTES,
    GrammarCompiler,
    Matcher,
    from_lark,
    from_regex,
    from_schema,
)
from neuron.text.load import TextModel

if TYPE_CHECKING:
    from neuron.engine.worker import Slot, Worker

TAIL_TOKENS = 16
"""Of the prompt's end: enough to see whether the template has opened the thinking."""
N_LARGEST = 3
"""Messages that a refusal for length names."""
N_COUNTED = 16
"""The longest, of which tokens are counted for that: a body can have 200,000 messages."""


@dataclass(slots=True, eq=False, kw_only=True)
class LoadedModel:
    """What the engine needs of a model that can answer."""

    id: str
    text: TextModel
    grammars: GrammarCompiler
    worker: Worker
    slot: Slot
    gate: Gate
    devices: tuple[int, ...]
    device: str
    dtype: str
    weights: str
    """What most of them are kept in."""
    quant: str
    """What most of its file is stored in."""
    vocab_size: int
    weight_bytes: int
    kv_bytes_per_token: int
    model_context: int
    """Tokens that the model, and the settings, allow."""
    defaults: Sampling
    fingerprint: str
    embed_context: int
    """Tokens of a text that can be embedded."""
    generates: bool = True
    """False for an encoder."""
    embed_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One piece of one embedding at a time, so that generations go on between them."""
    loaded_at_s: int = field(default_factory=lambda: int(time.time()))

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together that one generation can have."""
        if not self.kv_bytes_per_token:
            return self.model_context
        return min(self.model_context, self.gate.kv_budget_bytes // self.kv_bytes_per_token)

    def encode(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt. Slow for a long one: call it off the event loop.

        Raises:
            PromptTooLong, PromptNeverFits, TemplateRenderFailed
            InvalidValue: an empty prompt, or an id that the vocabulary lacks.
        """
        try:
            self._check_bytes(prompt)
            ids = self._ids(prompt)
            self.check_ids(ids)
            self._check_room(ids)
        except PromptTooLong as e:
            if isinstance(prompt, ChatPrompt):
                self._name_largest(e, prompt)
            raise
        return ids

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt of any length; raises as `encode` does, but for its length."""
        ids = self._ids(prompt)
        self.check_ids(ids)
        return ids

    def render(self, prompt: ChatPrompt) -> str:
        """A conversation in the model's template, as text. Raises `TemplateRenderFailed`."""
        return self.text.render_chat(
            prompt.messages, prompt.template_kwargs, tools=prompt.tools, continue_final=prompt.continue_final
        )

    def answers(self, generation: Generation, prompt_ids: list[int]) -> list[Answer]:
        """An answer for each of ``generation.n``, the leader first. Slow where a grammar must be compiled.

        Raises:
            InvalidValue: an id outside the vocabulary, a grammar or schema that can't be compiled.
        """
        self._check_range(generation.sampling.logit_bias, "logit_bias")
        self._check_range(generation.stop_token_ids, "stop_token_ids")
        room = self.context - len(prompt_ids)
        max_new = min(room, generation.max_tokens or room)
        sampling = generation.sampling.over(self.defaults.over(NEUTRAL))
        goes_on = isinstance(generation.prompt, ChatPrompt) and generation.prompt.continue_final
        tail = self.text.tokenizer.decode(prompt_ids if goes_on else prompt_ids[-TAIL_TOKENS:])
        matcher = self._matcher(generation.constraint)
        sequences = [
            Sequence(
                generation=generation,
                prompt_ids=prompt_ids,
                sampling=_with_seed(sampling, index),
                max_new_tokens=max_new,
                kv_bytes=(len(prompt_ids) + max_new) * self.kv_bytes_per_token * generation.n,
                end_ids=self._end_ids(generation),
                index=index,
                matcher=matcher.copy() if matcher else None,
                thinking=self._thinking(generation, tail),
                drafts=Drafts(prompt_ids) if self.slot.speculates else None,
            )
            for index in range(generation.n)
        ]
        sequences[0].followers = sequences[1:]
        return [Answer(sequence, self.text, tail) for sequence in sequences]

    def figures(self) -> LoadFigures:
        """How busy the model is."""
        gate, meter = self.gate, self.slot.meter
        return LoadFigures(
            in_flight=gate.in_flight,
            queue_depth=len(gate.waiting),
            max_in_flight=gate.max_in_flight,
            max_queue_depth=gate.max_queue_depth,
            rejected_queue_full=gate.rejected_queue_full,
            rejected_timeout=gate.rejected_timeout,
            kv_budget_bytes=gate.kv_budget_bytes,
            kv_free_bytes=gate.kv_budget_bytes - gate.kv_used_bytes,
            prefill_tok_s=meter.prefill_tok_s,
            decode_tok_s=meter.decode_tok_s,
        )

    def _ids(self, prompt: Prompt) -> list[int]:
        match prompt:
            case ChatPrompt():
                return self.text.encode_chat(
                    prompt.messages,
                    prompt.template_kwargs,
                    tools=prompt.tools,
                    continue_final=prompt.continue_final,
                )
            case TextPrompt(text=text, special=special):
                return self.text.tokenizer.encode(text, add_special_tokens=special)
            case TokenPrompt(ids=ids):
                return list(ids)

    def _end_ids(self, generation: Generation) -> frozenset[int]:
        eos: frozenset[int] = frozenset() if generation.ignore_eos else self.text.eos_ids
        return generation.stop_token_ids | eos

    def _matcher(self, constraint: Constraint | None) -> Matcher | None:
        """What keeps an answer within its constraint."""
        match constraint:
            case None:
                return None
            case JsonSchema(schema=schema):
                return self.grammars.compile(from_schema(schema))
            case Regex(pattern=pattern):
                return self.grammars.compile(from_regex(pattern))
            case Lark(grammar=grammar):
                return self.grammars.compile(from_lark(grammar))
            case ToolCalls(tools=tools, parallel=parallel):
                grammar = self.text.tool_grammar(tools, parallel)
                return self.grammars.compile(from_lark(grammar, max_bytes=MAX_TOOLS_BYTES))

    def _thinking(self, generation: Generation, prompt_tail: str) -> Thinking | None:
        """Follows the thinking of an answer, where a budget or a constraint depends on it."""
        marks = self.text.reasoning_marks
        if marks is None or (generation.reasoning_budget is None and generation.constraint is None):
            return None
        encode = self.text.tokenizer.encode
        start, end = (tuple(encode(mark, add_special_tokens=False)) for mark in marks)
        is_open = self.text.reasoning_is_open(prompt_tail)
        return Thinking(start=start, end=end, is_open=is_open, budget=generation.reasoning_budget)

    def _check_bytes(self, prompt: Prompt) -> None:
        """Refuse what can't fit before the work of tokenising it: no token holds more than so many bytes."""
        match prompt:
            case ChatPrompt(messages=messages):
                n_chars = sum(len(str(m.get("content") or "")) for m in messages)
            case TextPrompt(text=text):
                n_chars = len(text)
            case TokenPrompt():
                return
        at_least = n_chars // self.text.max_token_bytes
        if at_least > self.model_context:
            raise self._too_long(at_least, "at least ")

    def _name_largest(self, error: PromptTooLong, prompt: ChatPrompt) -> None:
        """Add to a refusal which messages are the largest (of huge ones, by their bytes)."""
        texts = [str(m.get("content") or "") for m in prompt.messages]
        longest = nlargest(N_COUNTED, range(len(texts)), key=lambda i: len(texts[i]))
        sizes = [
            {"index": i, "role": str(prompt.messages[i].get("role")), "tokens": self._n_tokens(texts[i])}
            for i in sorted(longest)
        ]
        largest = sorted(sizes, key=lambda size: -int(str(size["tokens"])))[:N_LARGEST]
        error.details["largest"] = largest
        named = ", ".join(f"messages[{x['index']}] ({x['role']}, {x['tokens']} tokens)" for x in largest)
        error.message += f"; the largest: {named}"

    def _n_tokens(self, text: str) -> int:
        n_bytes = len(text.encode(errors="surrogatepass"))
        if n_bytes > self.model_context * self.text.max_token_bytes:
            return n_bytes // self.text.max_token_bytes
        return len(self.text.encode_text(text))

    def check_ids(self, ids: Iterable[int]) -> None:
        """Raise `InvalidValue` unless there are ids and the vocabulary has them all."""
        ids = list(ids)
        if not ids:
            raise InvalidValue("the prompt has no tokens", param="messages")
        if min(ids) < 0 or max(ids) >= self.vocab_size:
            raise InvalidValue(
                f"the prompt has an id outside the vocabulary of {self.vocab_size}", param="prompt"
            )

    def _check_room(self, ids: list[int]) -> None:
        if len(ids) >= self.model_context:
            raise self._too_long(len(ids))
        if len(ids) >= self.context:
            raise PromptNeverFits(
                f"the prompt of {len(ids)} tokens needs more cache than this node has for the model",
                required_mb=len(ids) * self.kv_bytes_per_token >> 20,
                budget_mb=self.gate.kv_budget_bytes >> 20,
            )

    def _too_long(self, n_tokens: int, qualifier: str = "") -> PromptTooLong:
        return PromptTooLong(
            f"this model's maximum context length is {self.model_context} tokens, and the prompt has "
            f"{qualifier}{n_tokens}, which leaves no room for an answer",
            param="messages",
            prompt_len=n_tokens,
            max=self.model_context,
        )

    def _check_range(self, ids: Any, param: str) -> None:
        wrong = [i for i in ids if not 0 <= i < self.vocab_size]
        if wrong:
            raise InvalidValue(
                f"{param}: {wrong[0]} is outside the vocabulary of {self.vocab_size}", param=param
            )


def _with_seed(sampling: Sampling, index: int) -> Sampling:
    """A seed of its own for each of several answers; the first keeps the request's."""
    if sampling.seed is None or index == 0:
        return sampling
    return replace(sampling, seed=(sampling.seed + index) % 2**63)
