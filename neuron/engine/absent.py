"""What is told of a model that does not answer: not loaded, on its way out, or coming back."""

from __future__ import annotations

import difflib

from neuron.engine.registry import Entries, Entry
from neuron.errors import ModelNotLoaded, ModelUnloading


def not_loaded(entries: Entries, model_id: str) -> ModelNotLoaded:
    """The refusal of a model that is not in memory, with what is and what to do."""
    loaded = [name for name, entry in entries.items() if entry.state == "loaded"]
    entry = entries.get(model_id)
    if entry is not None and entry.state == "loading":
        state, hint, details = " yet, it is loading", "wait for it: neuron models", {"retry_after_s": 5}
    else:
        state, details = " (its load failed)" if entry else "", {}
        near = difflib.get_close_matches(model_id, loaded, n=1)
        hint = f"did you mean {near[0]}?" if near else "neuron load loads it"
    there = f"loaded: {', '.join(loaded)}" if loaded else "no model is loaded"
    return ModelNotLoaded(
        f"model '{model_id}' not loaded{state}; {there}", param="model", hint=hint, **details
    )


def unloading(model_id: str) -> ModelUnloading:
    """The refusal while a model is on its way out."""
    return ModelUnloading(f"model '{model_id}' is being unloaded", retry_after_s=5)


def mending(model_id: str) -> ModelUnloading:
    """What those learn whose model was lost under them, or is not back yet."""
    return ModelUnloading(
        f"the device of model '{model_id}' failed, it is being loaded anew", retry_after_s=5
    )


def cancelled(entry: Entry) -> ModelUnloading:
    """What those learn who wait for a load that an unload has ended."""
    name = entry.spec.model_id
    return ModelUnloading(
        f"the load of model '{name}' was cancelled: it was unloaded meanwhile", retry_after_s=5
    )
