"""A chat in this process: the same conversation over an engine without a node."""

import threading
from pathlib import Path

import pytest

import neuron.cli.target as target
from neuron.cli.conversation import Conversation
from neuron.cli.embedded import EmbeddedNode
from neuron.client import ChatDelta, ChatEnd
from neuron.engine.api import EngineApi
from neuron.errors import (
    AlreadyLoaded,
    DeviceFault,
    EmptyRepo,
    InvalidValue,
    ModelNotLoaded,
    NodeUnreachable,
    QueueFull,
    StreamCut,
    UsageError,
)
from neuron.progress import Progress, Report, ignore
from neuron.settings import Settings
from neuron.wire.chat import ChatCompletionRequest
from tests.support.cli import free_port
from tests.support.fake_engine import FakeEngine, Script
from tests.support.node_server import NodeServer, eventually

ASKED = ChatCompletionRequest(model="org/tiny", messages=[{"role": "user", "content": "hi"}])


def embedded(engine: FakeEngine) -> EmbeddedNode:
    def same(settings: Settings) -> EngineApi:
        return engine

    return EmbeddedNode(Settings(), engine=same)


def test_an_answer_comes_in_the_same_parts_as_from_a_node() -> None:
    with embedded(FakeEngine()) as node:
        *deltas, end = node.chat(ASKED)
    assert deltas == [ChatDelta("Hel"), ChatDelta("lo"), ChatDelta(" wörld")]
    assert isinstance(end, ChatEnd)
    assert end.usage is not None
    assert end.usage.total_tokens == 10


def test_the_engine_is_started_and_closed() -> None:
    engine = FakeEngine()
    with embedded(engine):
        pass
    assert engine.calls == ["start", "close"]
    assert not [t for t in threading.enumerate() if t.name == "embedded-engine" and not t.daemon]


def test_a_load_reports_its_progress_and_gives_the_id(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.load_steps = [Progress("read", 1, 2)]
    engine.load_s = 0.1
    seen: list[Progress] = []
    with embedded(engine) as node:
        assert node.load(str(tmp_path / "tiny.gguf"), seen.append) == "tiny"
    assert seen == [Progress("read", 1, 2)]


def test_a_note_of_the_fetch_is_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    note = Progress("fetch", note="the hub is unreachable")

    def fetch_with_a_note(text: str, report: Report) -> Path:
        report(note)
        report(Progress("fetch", 1, 2))
        return Path(text)

    monkeypatch.setattr("neuron.sources.fetch.fetch", fetch_with_a_note)
    engine = FakeEngine()
    seen: list[Progress] = []
    with embedded(engine) as node:
        node.load("org/new", seen.append)
        _, fetch = engine.loads[-1]
        fetch(ignore)
    assert seen == [note]


def test_a_load_that_fails_raises_what_the_engine_said() -> None:
    engine = FakeEngine()
    engine.load_error = EmptyRepo("no weights")
    with embedded(engine) as node, pytest.raises(EmptyRepo):
        node.load("org/new", ignore)
    with embedded(FakeEngine()) as node, pytest.raises(AlreadyLoaded):
        node.load("org/tiny", ignore)


def test_the_limits_are_those_of_a_node() -> None:
    bad = ChatCompletionRequest(model="org/tiny", messages=ASKED.messages, temperature=-1)
    with embedded(FakeEngine()) as node:
        with pytest.raises(InvalidValue) as refused:
            list(node.chat(bad))
        assert refused.value.param == "temperature"
        with pytest.raises(ModelNotLoaded):
            list(node.chat(ChatCompletionRequest(model="x", messages=ASKED.messages)))


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (Script(refuse=QueueFull("full")), QueueFull),
        (Script(fail=DeviceFault("boom")), DeviceFault),
        (Script(cut=True), StreamCut),
    ],
)
def test_every_bad_end_is_an_error(script: Script, error: type[Exception]) -> None:
    with embedded(FakeEngine(script)) as node, pytest.raises(error):
        list(node.chat(ASKED))


def test_leaving_an_answer_stops_it() -> None:
    engine = FakeEngine(Script(texts=["a"] * 1000, step_s=0.01))
    with embedded(engine) as node:
        answering = node.chat(ASKED)
        next(answering)
        answering.close()
        eventually(engine.streams[0].left.is_set, within_s=1)


def test_a_stopped_answer_keeps_its_part_and_an_empty_one_its_place() -> None:
    engine = FakeEngine(Script(texts=["a", "b", "c"]))

    def stop_at_b(delta: ChatDelta) -> None:
        if delta.text == "b":
            raise KeyboardInterrupt

    with embedded(engine) as node:
        conversation = Conversation(node.chat, "org/tiny")
        with pytest.raises(KeyboardInterrupt):
            conversation.ask("one", stop_at_b)
        assert [m["content"] for m in conversation.messages] == ["one", "ab"]
        engine.script = Script(refuse=QueueFull("full"))
        with pytest.raises(QueueFull):
            conversation.ask("two", lambda delta: None)
        assert [m["content"] for m in conversation.messages] == ["one", "ab"]


def test_a_chat_takes_the_node_of_this_machine_if_one_runs(
    node: NodeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURON_PORT", str(node.port))
    with target.chat_target(None, "org/tiny") as found:
        assert isinstance(list(found.node.chat(ASKED))[-1], ChatEnd)
    assert len(node.engine.streams) == 1


def test_a_chat_without_a_node_runs_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(models=())
    monkeypatch.setenv("NEURON_PORT", str(free_port()))
    monkeypatch.setattr("neuron.cli.embedded.EmbeddedNode", lambda: embedded(engine))
    with target.chat_target(None, "org/tiny") as found:
        list(found.node.chat(ASKED))
    assert [spec.model_id for spec, _ in engine.loads] == ["org/tiny"]
    with pytest.raises(UsageError, match="no model was named"), target.chat_target(None, None):
        pass
    with pytest.raises(NodeUnreachable), target.chat_target(f"127.0.0.1:{free_port()}", "org/tiny"):
        pass
