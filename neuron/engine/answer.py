"""One answer on the event loop's side: ids become text, stop strings end it, markers tell thinking and calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

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

    def take(self, output: Output) -> Iterator[Event]:
        """Events of one token of the device; `Finished` last, where it ends the answer."""
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
        ends = bool(reason) or stop is not None
        yield from self._events(self._pieces(text, ends))
        if ends:
            yield self._finished("stop" if stop is not None else reason or "stop", stop)

    def _stopped(self, text: str) -> tuple[str, str | None]:
        """Text that is safe to emit, and the stop string that was hit."""
        safe, hit = self._stop.feed(text)
        return safe, (self._stop.found if hit else None)

    def _pieces(self, text: str, ends: bool) -> list[Piece]:
        if self._parser is None:
            return [Content(text)] if text else []
        was_thinking = self._parser.is_thinking
        pieces = self._parser.feed(text)
        self._n_reasoning += was_thinking or self._parser.is_thinking
        return pieces + self._parser.flush() if ends else pieces

    def _events(self, pieces: list[Piece]) -> Iterator[Event]:
        for event in map(self._event, pieces):
            held, self._held = tuple(self._held), []
            yield replace(event, n_tokens=self._n_tokens, index=self.sequence.index, logprobs=held)

    def _event(self, piece: Piece) -> TextDelta | ReasoningDelta | ToolCallDelta:
        match piece:
            case Content(text=text):
                return TextDelta(text=text, n_tokens=0)
            case Reasoning(text=text):
                return ReasoningDelta(text=text, n_tokens=0)
            case CallStart(id=call_id, name=name):
                self._n_calls += 1
                return ToolCallDelta(call=self._n_calls - 1, id=call_id, name=name)
            case CallArguments(text=text):
                return ToolCallDelta(call=self._n_calls - 1, arguments=text)

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
