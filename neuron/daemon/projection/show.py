"""``POST /models/show``: the files of a model → what they say."""

from __future__ import annotations

from pathlib import Path

import msgspec

from neuron.engine.status import ModelStatus
from neuron.wire.node import ModelDescription


def description(model_id: str, model: ModelStatus | None, roots: tuple[Path, ...]) -> ModelDescription:
    """A loaded model by its id, else a reference that was fetched. Blocks.

    Raises:
        InvalidReference: neither an id nor a reference, or a path outside every model root.
        NotFetched: it is not on this machine.
        PreflightError, InvalidModelFile: its files can't be read.
    """
    from neuron.sources import describe, fetch

    if model is not None and model.path is not None:
        source = model.source or ""
        found = fetch.recorded(source) if source and fetch.was_fetched(source) else None
        said = describe.describe(Path(model.path), model_id, found)
    else:
        fetch.resolve_over_http(model_id, roots)
        said = describe.local(model_id)
    return msgspec.convert(said, ModelDescription, from_attributes=True)
