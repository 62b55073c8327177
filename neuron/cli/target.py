"""Where a chat runs: on the node that was named, on this machine's node, or in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from neuron.cli.context import model_reference
from neuron.cli.conversation import Chat
from neuron.cli.load import load_with_progress, reference_for, served_as
from neuron.cli.render import notice
from neuron.client import NodeClient
from neuron.errors import InvalidReference, NodeUnreachable, UsageError
from neuron.local_node import listens
from neuron.progress import Report
from neuron.sources import manifest
from neuron.sources.aliases import ALIASES, near_miss
from neuron.sources.reference import parse_reference
from neuron.wire.node import ModelInfo, ModelSpec
from neuron.wire.tokenize import TokenizeRequest, TokenizeResponse

LOCAL_CONNECT_S = 1.0
COMPLETION_S = 0.1
"""How long completing a model's id may wait for a node."""


class ChatNode(Protocol):
    """What a chat needs of a node, whether it is one or runs in this process."""

    @property
    def chat(self) -> Chat: ...
    def tokenize(self, request: TokenizeRequest) -> TokenizeResponse: ...
    def models(self) -> list[ModelInfo]: ...
    def model(self, model_id: str) -> ModelInfo | None: ...


class LocalNode(ChatNode, Protocol):
    """One that runs in this process."""

    def load(self, model: str, report: Report) -> str: ...
    def unload(self, model_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """A model that is loaded, and the way to ask it and others."""

    node: ChatNode
    model_id: str
    load: Callable[[str], str]
    """A model as people name it → its id, when it is loaded."""
    list_ids: Callable[[], list[str]]
    """Ids of the models that are loaded; may be called from another thread."""


def names_model(host: str | None, text: str) -> bool:
    """Whether ``text``, alone on the command line, means a model: a short name or nearly one, what was
    fetched, an id on the node, or a reference that is more than a word (``org/name``, ``hf:name``, ``./file``).

    Where nothing but the form of a repository says so, it may be meant as a prompt (``and/or``): that is told.
    """
    known = (*ALIASES, *manifest.sources())
    if text in known or near_miss(text) or _is_on_node(host, text):
        return True
    if not _is_reference(text):
        return False
    reference = parse_reference(text)
    if ":" not in text and reference.scheme == "hf" and not manifest.recorded(reference):
        notice(f"{text} is taken for a model; to ask it, name the model first: neuron chat -c MODEL {text}")
    return True


def _is_reference(text: str) -> bool:
    if any(c.isspace() for c in text) or not ("/" in text or ":" in text or text.endswith(".gguf")):
        return False
    try:
        parse_reference(text)
    except InvalidReference:
        return False
    return True


def _is_on_node(host: str | None, text: str) -> bool:
    with NodeClient(host or None, connect_s=LOCAL_CONNECT_S) as client:
        try:
            return text in [model.id for model in client.models(all=True)]
        except NodeUnreachable:
            return False


@contextmanager
def chat_target(host: str | None, model: str | None) -> Iterator[Target]:
    """The place of a chat. A node that was named is the only one tried; without one, and with none running here,
    the model is loaded into this process.

    Raises:
        NodeUnreachable: the node that was named doesn't answer.
        UsageError: no model was named and there is not exactly one to take.
    """
    with NodeClient(host or None, connect_s=3.0 if host else LOCAL_CONNECT_S) as client:
        if host or _answers(client):
            yield _remote(client, host, model)
            return
    with _embedded(model) as target:
        yield target


def _answers(client: NodeClient) -> bool:
    """False where nobody listens. Raises `NodeUnreachable` where somebody does and can't be understood."""
    try:
        client.health()
    except NodeUnreachable:
        if listens(client.url, LOCAL_CONNECT_S):
            raise
        return False
    return True


def _remote(client: NodeClient, host: str | None, model: str | None) -> Target:
    def ids() -> list[str]:
        with NodeClient(host or None, connect_s=COMPLETION_S, answer_s=COMPLETION_S) as quick:
            return [found.id for found in quick.models()]

    return Target(client, _loaded_on(client, model), lambda name: _loaded_on(client, name), ids)


def _loaded_on(client: NodeClient, model: str | None) -> str:
    """The id of the model on the node, which loads it if it must."""
    if model is None:
        return _only_model(client)
    found = client.model(model)
    if found and found.status == "loaded":
        return model
    its_id = served_as(model_reference(model))
    found = client.model(its_id)
    if not found or found.status != "loaded":
        notice(f"{model} is not loaded on {client.url}: loading it there")
        load_with_progress(client, ModelSpec(model_id=reference_for(client.url, model)))
    return its_id


def _only_model(client: NodeClient) -> str:
    loaded = [model.id for model in client.models() if model.status == "loaded" and not model.alias_of]
    if len(loaded) == 1:
        return loaded[0]
    said = f"has {len(loaded)} models loaded: {', '.join(loaded)}" if loaded else "has no model loaded"
    raise UsageError(f"{client.url} {said}", hint="name one: neuron chat MODEL")


@contextmanager
def _embedded(model: str | None) -> Iterator[Target]:
    if model is None:
        raise UsageError(
            "no node runs here, and no model was named",
            hint="name a model: neuron chat smollm2; or a node: --host",
        )
    from neuron.cli.embedded import EmbeddedNode

    with EmbeddedNode() as node:
        target = Target(node, "", lambda name: _loaded_here(node, name), lambda: _ids(node))
        yield replace(target, model_id=target.load(model))


def _loaded_here(node: LocalNode, model: str) -> str:
    """The id of the model in this process, which then has no other: there is one chat and one memory."""
    from neuron.cli.progress import progress_on_stderr

    if node.model(its_id := served_as(model_reference(model))):
        return its_id
    others = _ids(node)
    with progress_on_stderr(model) as report:
        its_id = node.load(model, report)
    for other in others:
        node.unload(other)
    return its_id


def _ids(node: LocalNode) -> list[str]:
    return [model.id for model in node.models()]
