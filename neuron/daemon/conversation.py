"""What a response continues, and its own place in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from neuron.daemon.projection.response_inputs import Item, items
from neuron.daemon.store import OwnResponses, Stored
from neuron.errors import ChainedConversationNotSupported, PreviousResponseNotFound, ResponseNotFound
from neuron.wire.responses import InputItemList, Response, ResponsesRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The items that a request is about."""

    store: OwnResponses | None
    """None where this response is not to be kept."""
    earlier: Sequence[Item]
    input: Sequence[Item]

    @property
    def items(self) -> list[Item]:
        """All of them, oldest first."""
        return [*self.earlier, *self.input]

    async def keep(self, response: Response) -> bool:
        """Keep a response that ended; whether it is kept."""
        if self.store is None:
            return False
        value: dict[str, Any] = msgspec.to_builtins(response)
        return await self.store.put(Stored(response=value, input=self.input, earlier=self.earlier))


async def of(request: ResponsesRequest, store: OwnResponses | None) -> Conversation:
    """The conversation of a request; where there is a store, responses are kept unless ``store`` is false.

    Raises:
        ChainedConversationNotSupported: ``previous_response_id`` or ``store``, and no store.
        PreviousResponseNotFound, ResponseStoreFailed
        InvalidValue, UnsupportedParameter: an input item that can't be taken.
    """
    asked = {"previous_response_id": request.previous_response_id, "store": request.store}
    for param, value in asked.items():
        if value and store is None:
            raise ChainedConversationNotSupported(
                f"this node keeps no responses, so it can't honour {param}",
                hint="send the whole conversation in input, or set response_store in the node's settings",
                param=param,
            )
    earlier: Sequence[Item] = ()
    if store is not None and request.previous_response_id is not None:
        earlier = _all_items(await _previous(store, request.previous_response_id))
    kept = None if request.store is False else store
    return Conversation(store=kept, earlier=earlier, input=items(request.input))


async def _previous(store: OwnResponses, response_id: str) -> Stored:
    if (found := await store.get(response_id)) is None:
        raise PreviousResponseNotFound(
            f"previous response {response_id[:80]!r} not found: it was never kept, or is gone by age or size",
            hint="send the whole conversation in input",
            param="previous_response_id",
        )
    return found


def _all_items(stored: Stored) -> list[Item]:
    return [*stored.earlier, *stored.input, *stored.response["output"]]


async def found(store: OwnResponses | None, response_id: str) -> Stored:
    """A kept response. Raises `ResponseNotFound`, `ResponseStoreFailed`."""
    stored = None if store is None else await store.get(response_id)
    if stored is None:
        raise not_found(response_id)
    return stored


def not_found(response_id: str) -> ResponseNotFound:
    """The error for an id that is not kept."""
    return ResponseNotFound(f"response {response_id[:80]!r} not found", param="response_id")


def page(listed: Sequence[Mapping[str, Any]], *, after: str | None, limit: int, order: str) -> InputItemList:
    """One page of input items. An ``after`` that is none of them begins at the beginning."""
    ordered = [dict(item) for item in (listed if order == "asc" else reversed(listed))]
    begin = next((i + 1 for i, item in enumerate(ordered) if item["id"] == after), 0)
    shown = ordered[begin : begin + limit]
    return InputItemList(
        data=shown,
        first_id=shown[0]["id"] if shown else "",
        last_id=shown[-1]["id"] if shown else "",
        has_more=begin + limit < len(ordered),
    )
