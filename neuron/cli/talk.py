"""What a conversation on a terminal consists of, and what can be done with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from neuron.cli import sessions
from neuron.cli.answer import AnswerPrinter, Show
from neuron.cli.chat_settings import defaults
from neuron.cli.conversation import Conversation, Line
from neuron.cli.render import notice
from neuron.cli.sessions import Session
from neuron.cli.target import Target
from neuron.cli.terminal import keys_wait, one_interrupt
from neuron.client import ChatEnd
from neuron.errors import NeuronError, SessionUnreadable, UsageError
from neuron.wire.tokenize import TokenizeRequest


class Talk:
    """A conversation, the model it is with, the session that keeps it and the printer that shows it."""

    def __init__(
        self, target: Target, conversation: Conversation, printer: AnswerPrinter, session: Kept | None = None
    ) -> None:
        self.target = target
        self.conversation = conversation
        self.printer = printer
        self.context: int | None = None
        """Most tokens that prompt and answer may have together."""
        self.used: int | None = None
        """Tokens that the conversation has; None: not counted."""
        self.recommended: dict[str, int | float] = {}
        """Parameters that the model's files say."""
        self._kept = session or Kept(None)
        if self.session is not None:
            self._begin(self.session)
        self._take_defaults()

    @property
    def session(self) -> Session | None:
        """What keeps the conversation."""
        return self._kept.session

    def _begin(self, session: Session) -> None:
        """Go on with what the session holds; what was said of model, system message and parameters by now wins."""
        said = self.conversation.setup()
        resume(self.conversation, session)
        held = self.conversation.setup() if session.lines else []
        self.conversation.record = self._record
        for line in said:
            if line not in held:
                self.conversation.change(line)

    def _take_defaults(self) -> None:
        """What holds where nothing is set is the model's, and changes with it."""
        info = self.target.node.model(self.conversation.model_id)
        said = info.sampling if info else None
        self.recommended, self.conversation.defaults = said or {}, defaults(said)

    def _keep_in(self, session: Session) -> None:
        self._kept.change(session)
        self.conversation.record = self._record

    def _record(self, line: Line) -> None:
        """Keep a line; where that fails the conversation goes on, and it is said each time."""
        if self.session is None:
            return
        try:
            self.session.append(line)
        except OSError as e:
            notice(f"not kept in the session {self.session.name}: {e.strerror}")

    def save_as(self, name: str) -> None:
        """Go on in a session of that name, which must be new."""
        self._refuse_own(name)
        session = sessions.open_session(name, new=True)
        for line in self.lines():
            session.append(line)
        self._keep_in(session)

    def _refuse_own(self, name: str) -> None:
        if self.session is not None and self.session.name == name:
            raise UsageError(f"this is the session {name}; every message is kept in it")

    def lines(self) -> list[Line]:
        """The conversation as a session would hold it."""
        return [*self.conversation.setup(), *self.conversation.turns]

    def ask(self, question: str, *, again: bool = False) -> None:
        """Ask and show the answer. Ctrl-C stops it, an error is told; the conversation goes on either way."""
        self._answer(lambda show: self.conversation.ask(question, show, again=again))

    def _answer(self, ask: Callable[[Show], ChatEnd]) -> None:
        try:
            with one_interrupt(), keys_wait():
                end = self.printer.answer(ask)
            if end.usage is not None:
                self.used = end.usage.prompt_tokens + end.usage.completion_tokens
        except KeyboardInterrupt:
            notice("[stopped]")
            self.used = None
            with suppress(KeyboardInterrupt):
                self.measure()
        except NeuronError as e:
            complain(e)

    def switch(self, model: str) -> None:
        """Go on with another model, which is loaded if need be."""
        self.conversation.change({"do": "model", "value": self.target.load(model)})
        self._take_defaults()
        self.measure()

    def move(self, name: str) -> None:
        """Leave the session, and go on in another with the model of this one."""
        self._refuse_own(name)
        session = sessions.open_session(sessions.existing(name))
        conversation = Conversation(self.target.node.chat, self.conversation.model_id)
        try:
            resume(conversation, session)
        except NeuronError:
            session.close()
            raise
        model, self.conversation = self.conversation.model_id, conversation
        self._keep_in(session)
        conversation.change({"do": "model", "value": model})
        self._take_defaults()
        self.measure()

    def measure(self) -> None:
        """Count the conversation's tokens, where the node can say; an empty one has none."""
        try:
            self.count()
        except NeuronError:
            self.context = self.used = None

    def count(self, text: str | None = None) -> int:
        """Tokens of a text, else of the conversation. Raises what the node answers."""
        model, messages = self.conversation.model_id, self.conversation.messages
        if text is None and not messages:
            info = self.target.node.model(model)
            self.context, self.used = info.limit.context if info else None, 0
            return 0
        said: dict[str, Any] = {"messages": messages} if text is None else {"content": text}
        answer = self.target.node.tokenize(TokenizeRequest(model=model, **said))
        self.context = answer.max_model_len
        if text is None:
            self.used = answer.count
        return answer.count


def resume(conversation: Conversation, session: Session) -> None:
    """Make the conversation what the session holds. Raises `SessionUnreadable` for a line that makes no sense."""
    for number, line in enumerate(session.lines, 2):
        try:
            conversation.replay([line])
        except ValueError as e:
            where = f"{sessions.path_of(session.name)}:{number}"
            raise SessionUnreadable(f"{where}: {e}") from e
    if session.cut_bytes:
        notice(
            f"session {session.name}: the last line was cut off ({session.cut_bytes} bytes) and is left out"
        )
    if len(conversation.turns) % 2:
        notice("the last question has no answer; /regen asks it again")


def complain(error: NeuronError) -> None:
    """An error in the middle of a conversation."""
    notice(f"neuron: {error.message}" + (f" (hint: {error.hint})" if error.hint else ""))


class Kept:
    """The session that is open, if any; closed on the way out, whichever it is by then."""

    def __init__(self, session: Session | None) -> None:
        self.session = session

    @property
    def model(self) -> str | None:
        """The model that the session was with."""
        lines = self.session.lines if self.session else []
        return next((line["value"] for line in reversed(lines) if line.get("do") == "model"), None)

    def change(self, session: Session) -> None:
        """Close what was open, and keep another."""
        self.close()
        self.session = session

    def close(self) -> None:
        """Let go of the session."""
        if self.session is not None:
            self.session.close()
            self.session = None


@contextmanager
def kept_session(name: str | None, conversing: bool) -> Iterator[Kept]:
    """The session of that name. Without a name a conversation gets one of its own, unless ``NEURON_NO_HISTORY`` is
    set or nothing can be written, which is said; a single question gets none."""
    if name is not None:
        kept = Kept(sessions.open_session(name))
    else:
        kept = Kept(_own_session() if conversing and not os.environ.get("NEURON_NO_HISTORY") else None)
    try:
        yield kept
    finally:
        kept.close()


def _own_session() -> Session | None:
    try:
        return sessions.new_session()
    except OSError as e:
        notice(f"this conversation is not kept: {e.filename or sessions.folder()}: {e.strerror}")
        return None
