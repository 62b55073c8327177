"""A conversation: what was said and set, as a list of lines that a session keeps and that can be replayed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from typing import Any

from neuron.client import ChatDelta, ChatEnd, ChatPart
from neuron.errors import UsageError
from neuron.wire.chat import ChatCompletionRequest

Chat = Callable[[ChatCompletionRequest], Generator[ChatPart, None, None]]
"""A request in, parts of the answer out; closing the generator stops the answer."""
Line = dict[str, Any]
"""A message (``role``, ``content``; an answer also ``reasoning`` and ``stopped``), or what was done (``do``)."""


class Conversation:
    """Messages with one model, by way of ``chat``. Every change is a line that goes to ``record``."""

    def __init__(
        self,
        chat: Chat,
        model_id: str,
        *,
        system: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        schema: dict[str, Any] | None = None,
    ) -> None:
        self._chat = chat
        self.record: Callable[[Line], None] = lambda line: None
        self.model_id = model_id
        self.system = system
        self.sampling = dict(sampling or {})
        self.defaults: Mapping[str, Any] = {}
        """Parameters where ``sampling`` doesn't say; they belong to the model, so no line records them."""
        self._format: dict[str, Any] = {} if schema is None else {"response_format": json_schema(schema)}
        self.turns: list[Line] = []
        """Questions and answers in turn; only the last question may be without one."""

    @property
    def has_schema(self) -> bool:
        """Whether answers are held to a JSON schema."""
        return bool(self._format)

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the model sees before the next question."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        answered = self.turns[: len(self.turns) // 2 * 2]
        return [*first, *({"role": turn["role"], "content": turn["content"]} for turn in answered)]

    @property
    def last_answer(self) -> Line | None:
        """The last answer, with its reasoning."""
        return next((turn for turn in reversed(self.turns) if turn["role"] == "assistant"), None)

    @property
    def last_question(self) -> str | None:
        """The last question, answered or not."""
        return next((turn["content"] for turn in reversed(self.turns) if turn["role"] == "user"), None)

    def setup(self) -> list[Line]:
        """Lines that make another conversation what this one is, but for what was said."""
        first: list[Line] = [{"do": "model", "value": self.model_id}]
        if self.system:
            first.append({"do": "system", "value": self.system})
        return first + [{"do": "set", "key": key, "value": value} for key, value in self.sampling.items()]

    def change(self, line: Line) -> None:
        """Do what a line says, and have it recorded."""
        self.replay([line])
        self.record(line)

    def replay(self, lines: Iterable[Line]) -> None:
        """Do what recorded lines say. Raises `ValueError` for one that says nothing known."""
        for line in lines:
            self._apply(line)

    def _apply(self, line: Line) -> None:
        match line:
            case {"role": "user", "content": str()}:
                self.turns = [*self.turns[: len(self.turns) // 2 * 2], line]
            case {"role": "assistant", "content": str()} if len(self.turns) % 2:
                self.turns.append(line)
            case {"do": "undo"}:
                self.turns = self.turns[: (len(self.turns) - 1) // 2 * 2]
            case {"do": "clear"}:
                self.turns = []
            case {"do": "model", "value": str(value)}:
                self.model_id = value
            case {"do": "system", "value": str() | None as value}:
                self.system = value
            case {"do": "set", "key": str(key), "value": value}:
                self._set(key, value)
            case _:
                raise ValueError("it is no message and nothing that can be done")

    def _set(self, key: str, value: Any) -> None:
        if value is None:
            self.sampling.pop(key, None)
        else:
            self.sampling[key] = value

    def undo(self) -> str:
        """Take back the last question and its answer; the question. Raises `UsageError` if there is none."""
        question = self.last_question
        if question is None:
            raise UsageError("nothing was asked yet")
        self.change({"do": "undo"})
        return question

    def ask(self, question: str, show: Callable[[ChatDelta], None], *, again: bool = False) -> ChatEnd:
        """Ask, hand every part of the answer to ``show``, and keep both.

        With ``again`` the question takes the place of the last one as soon as there is an answer. However it ends,
        what was shown of an answer is kept, marked as stopped; a question without any answer is not
        shown to the model, since many templates want questions and answers in turn.
        """
        before = self.messages[:-2] if again and len(self.turns) % 2 == 0 else self.messages
        asked: Line = {"role": "user", "content": question}
        request = ChatCompletionRequest(
            model=self.model_id,
            messages=[*before, asked],
            **{**self.defaults, **self.sampling},
            **self._format,
        )
        if not again:
            self.change(asked)
        answer = _Answer()
        try:
            with closing(self._chat(request)) as parts:
                for part in parts:
                    if isinstance(part, ChatEnd):
                        answer.finish_reason = part.finish_reason
                        return part
                    answer.add(part)
                    show(part)
        finally:
            self._keep(asked, answer, again)
        raise AssertionError("an answer ends with ChatEnd or an error")

    def _keep(self, asked: Line, answer: _Answer, again: bool) -> None:
        if not answer.text:
            return
        if again:
            self.change({"do": "undo"})
            self.change(asked)
        self.change(answer.line())


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema as a ``response_format``."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


class _Answer:
    """An answer that grows."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self.finish_reason: str | None = None

    def add(self, part: ChatDelta) -> None:
        self._texts.append(part.text)
        self._thoughts.append(part.reasoning)

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def line(self) -> Line:
        reasoning = "".join(self._thoughts)
        return {
            "role": "assistant",
            "content": self.text,
            **({"reasoning": reasoning} if reasoning else {}),
            **({} if self.finish_reason else {"stopped": True}),
        }
