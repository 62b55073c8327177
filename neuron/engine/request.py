"""What the engine is asked for: a `Generation`, a `LoadSpec`. Plain values, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from neuron.keys import ANONYMOUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a token is chosen. None means "not said": the model's ``generation_config.json`` decides, then neutral.

    Ranges are checked where the request comes in (`neuron.daemon.projection`), see `LIMITS` there.
    """

    temperature: float | None = None
    """0 is greedy."""
    top_p: float | None = None
    top_k: int | None = None
    """0 keeps all."""
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    """None draws a fresh one."""

    def over(self, defaults: Sampling) -> Sampling:
        """This, with every unsaid value taken from ``defaults``."""
        said = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None and v != {}}
        return Sampling(**{**{f.name: getattr(defaults, f.name) for f in fields(defaults)}, **said})


NEUTRAL = Sampling(
    temperature=1.0,
    top_p=1.0,
    top_k=0,
    min_p=0.0,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatPrompt:
    """Messages for the model's own chat template; a message is a mapping with at least ``role``."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    """Function tools in the form ``{"type": "function", "function": {…}}``."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    continue_final: bool = False
    """The last message is the beginning of the answer, to be gone on with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPrompt:
    """Text taken as it is written: spelled control tokens become the tokens."""

    text: str
    special: bool = True
    """Add the tokens that the model's tokenizer puts around a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPrompt:
    """Ids, taken as they are."""

    ids: Sequence[int]


Prompt = ChatPrompt | TextPrompt | TokenPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema:
    """The answer is JSON that this schema describes; ``{"type": "object"}`` for any object."""

    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regex:
    """The whole answer matches this regular expression (Rust syntax)."""

    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lark:
    """The answer is a sentence of this grammar (llguidance's variant of Lark)."""

    grammar: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalls:
    """The answer is one call, or several if ``parallel``, of these tools, in the model's own format."""

    tools: Sequence[Mapping[str, Any]]
    parallel: bool = True


Constraint = JsonSchema | Regex | Lark | ToolCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One prompt and what to generate for it."""

    model_id: str
    prompt: Prompt
    request_id: str
    principal: str = ANONYMOUS
    """Who asks: callers take turns in the queue of a model."""
    principal_limit: int | None = None
    """Most answers of this caller that may run and wait on the model; None: no bound."""
    returns: bool = False
    """Its client was refused before, as it says, and comes again."""
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    """None: up to the context."""
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    min_tokens: int = 0
    """No end-of-sequence or stop id before so many tokens."""
    n: int = 1
    """Answers to generate; the prompt is computed once."""
    logprobs: int | None = None
    """Alternatives to report with each token; 0 reports the token alone, None nothing."""
    constraint: Constraint | None = None
    parse_reasoning: bool = False
    """Tell thinking from the answer (`ReasoningDelta`); otherwise all is text."""
    parse_tools: bool = False
    """Tell tool calls from the answer (`ToolCallDelta`); otherwise all is text."""
    reasoning_budget: int | None = None
    """Tokens after which thinking is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """A model to load and how."""

    model_id: str
    harness: str = "torch"
    dtype: str | None = None
    """``float32``, ``bfloat16``, ``float16``; None: the settings', then the device's default."""
    quant: str | None = None
    """``int8``, ``int4``: turn the matrices into narrower ones; None: the settings'."""
    devices: tuple[int, ...] | None = None
    """CUDA indices; None: ``device``."""
    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:N``; None: the settings'."""
    source: str | None = None
    """The reference that it is fetched from."""
    origins: frozenset[str] = frozenset()
    """Every name of its files: two loads with none in common are of different ones. Empty: not known."""
    ttl_s: float | None = None
    """Idle seconds after which it is unloaded; 0: never; None: the settings'."""
    pinned: bool | None = None
    """Unloaded by nobody but who asks for it by name; None: the settings'."""
    force: bool = False
    """Load it although the memory that is free seems too little."""
    tool_format: str | None = None
    """Name of a format in `neuron.text.tool_formats`; None: found from the template and the vocabulary."""
