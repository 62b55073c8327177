"""A conversation on a terminal with a node of scripted answers."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from neuron.engine.request import ChatPrompt
from tests.support.node_server import NodeServer
from tests.support.terminal import Terminal, terminal

Open = Callable[..., AbstractContextManager[Terminal]]


@pytest.fixture
def chat(node: NodeServer, tmp_path: Path) -> Open:
    """Opens ``neuron chat`` with what else is to be said; sessions are kept as long as the test runs."""

    def opened(*args: str, model: str = "org/tiny", **more: object) -> AbstractContextManager[Terminal]:
        named = [model] if model else []
        state = more.pop("state", tmp_path)
        return terminal("chat", *named, "--host", node.url, *args, state=state, **more)  # type: ignore[arg-type]

    return opened


@pytest.fixture
def asked(node: NodeServer) -> Callable[[], list[object]]:
    """The texts of the last request's messages."""

    def contents() -> list[object]:
        prompt = node.engine.streams[-1].generation.prompt
        assert isinstance(prompt, ChatPrompt)
        return [message["content"] for message in prompt.messages]

    return contents
