"""One answer on the event loop's side: ids become text, stop strings end it, markers tell thinking and calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from neuron.engine.events import (
    Event,
    Finished,
    FinishReason,
    Likelihood,
    ReasoningDelta,
    TextDelta,
    TokenLogprobs,
    ToolCallDelta,
    Usage,
)
from neuron.engine.request import ChatPrompt
from neuron.engine.sequence import Output, RawLogprobs, Sequence
from neuron.text.answer import AnswerParser
from neuron.text.load import TextModel
from neuron.text.pieces import CallArguments, CallStart, Content, Piece, Reasoning
from neuron.text.stop import StopMatcher


class _Common(TypedDict):
    """What every delta says."""

    n_tokens: int
    index: int
    logprobs: tuple[TokenLogprobs, ...]


class Answer:
    """Turns the outputs of one sequence into events; `ended` once it has said `Finished`."""

    def __init__(self, sequence: Sequence, text: TextModel, prompt_tail: str) -> None:
        generation = sequence.generation
        parses = generation.parse_reasoning or generation.parse_tools
        self.sequence = sequence
        self.ended = False
        self._text = text
        self._detokenizer = text.detokenizer(markers=parses)
        self._stop = StopMatcher(generation.stop)
        self._parser: AnswerParser | None = None
        if parses:
            self._parser = text.answer_parser(
                prompt_tail,
                reasoning=generation.parse_reasoning,
                tools=generation.parse_tools,
                offered=generation.prompt.tools if isinstance(generation.prompt, ChatPrompt) else (),
            )
        self._n_tokens = 0
        self._n_reasoning = 0
        self._n_calls = 0
        self._held: list[TokenLogprobs] = []

    def take(self, outputs: Iterable[Output]) -> list[Event]:
        """Events of tokens of the device that came together; `Finished` last, where one ends the answer."""
        events: list[Event] = []
        text = ""
        for output in outputs:
            more, stop = self._text_of(output)
            ends = bool(output.reason) or stop is not None
            if self._parser is None:
                text += more
            else:
                events += map(self._event, self._pieces(self._parser, more, ends))
            if ends:
                events += self._texts(text)
                events.append(self._finished("stop" if stop is not None else output.reason or "stop", stop))
                return events
        return events + self._texts(text)

    def _texts(self, text: str) -> list[Event]:
        """The event of text that need not be told apart."""
        return [self._event(Content(text))] if text else []

    def _text_of(self, output: Output) -> tuple[str, str | None]:
        """The text that became certain with a token, and the stop string that was hit."""
        token, reason = output.token, output.reason
        assert token is not None
        self._n_tokens += 1
        is_end_id = reason == "stop" and token in self.sequence.end_ids
        if output.logprobs is not None and not is_end_id:
            self._held.append(self._likelihoods(token, output.logprobs))
        text, stop = ("", None) if is_end_id else self._stopped(self._detokenizer.feed(token))
        if reason and stop is None:
            tail, stop = self._stopped(self._detokenizer.flush())
            text += tail if stop is not None else tail + self._stop.flush()
        return text, stop

    def _stopped(self, text: str) -> tuple[str, str | None]:
        """Text that is safe to emit, and the stop string that was hit."""
        safe, hit = self._stop.feed(text)
        return safe, (self._stop.found if hit else None)

    def _pieces(self, parser: AnswerParser, text: str, ends: bool) -> list[Piece]:
        was_thinking = parser.is_thinking
        pieces = parser.feed(text)
        self._n_reasoning += was_thinking or parser.is_thinking
        return pieces + parser.flush() if ends else pieces

    def _event(self, piece: Piece) -> TextDelta | ReasoningDelta | ToolCallDelta:
        held, self._held = tuple(self._held), []
        common = _Common(n_tokens=self._n_tokens, index=self.sequence.index, logprobs=held)
        match piece:
            case Content(text=text):
                return TextDelta(text=text, **common)
            case Reasoning(text=text):
                return ReasoningDelta(text=text, **common)
            case CallStart(id=call_id, name=name):
                self._n_calls += 1
                return ToolCallDelta(call=self._n_calls - 1, id=call_id, name=name, **common)
            case CallArguments(text=text):
                return ToolCallDelta(call=self._n_calls - 1, arguments=text, **common)

    def _finished(self, reason: FinishReason, stop: str | None) -> Finished:
        self.ended = True
        usage = Usage(
            prompt_tokens=len(self.sequence.prompt_ids),
            completion_tokens=self._n_tokens,
            cached_tokens=self.sequence.n_cached,
            reasoning_tokens=self._n_reasoning,
            drafted_tokens=self.sequence.n_drafted,
            drafted_right_tokens=self.sequence.n_drafted_right,
        )
        return Finished(
            reason="tool_calls" if self._n_calls and reason == "stop" else reason,
            usage=usage,
            timings=self.sequence.timings(),
            index=self.sequence.index,
            stop=stop,
            logprobs=tuple(self._held),
            first_token_s=self.sequence.first_token_s,
        )

    def _likelihoods(self, token: int, raw: RawLogprobs) -> TokenLogprobs:
        top = tuple(self._likelihood(i, value) for i, value in raw.top)
        return TokenLogprobs(chosen=self._likelihood(token, raw.chosen), top=top)

    def _likelihood(self, token: int, logprob: float) -> Likelihood:
        data = self._text.token_bytes(token)
        return Likelihood(token_id=token, token=data.decode(errors="replace"), data=data, logprob=logprob)
