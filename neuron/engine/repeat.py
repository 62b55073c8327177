"""A load of a model that is in memory already: what it may change there, and what only another load could."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from neuron.engine.loaded import LoadedModel
from neuron.engine.registry import Entry
from neuron.engine.request import LoadSpec
from neuron.errors import InvalidValue, LoadedDifferently


def asked_changes(spec: LoadSpec) -> tuple[str, ...]:
    """What a load says that a loaded model can take, by its name on the wire."""
    said = {"ttl_s": spec.ttl_s, "pin": spec.pinned}
    return tuple(name for name, value in said.items() if value is not None)


def same_model(entries: Iterable[Entry], spec: LoadSpec) -> Entry | None:
    """A model in memory that a load under another id would only bring there once more."""
    for entry in entries:
        if entry.state != "loaded" or entry.model is None or not spec.origins & entry.spec.origins:
            continue
        if not any(_differences(entry.spec, entry.model, spec)):
            return entry
    return None


def check_same(entry: Entry, spec: LoadSpec) -> None:
    """Raise `LoadedDifferently` where ``spec`` asks for other files, another dtype or device than are in memory."""
    assert entry.model is not None
    if found := " ".join(_differences(entry.spec, entry.model, spec)):
        name = spec.model_id
        raise LoadedDifferently(
            f"model '{name}' is in memory {found}, which this load would change",
            hint=f"unload it first: neuron unload {name}; or load it beside that one: --alias",
        )


def _differences(was: LoadSpec, model: LoadedModel, spec: LoadSpec) -> Iterator[str]:
    """What is there and not as it was asked for."""
    if spec.origins and was.origins and spec.origins.isdisjoint(was.origins):
        yield f"from {was.source}"
    if spec.dtype not in (None, model.dtype):
        yield f"in {model.dtype}"
    if spec.quant not in (None, was.quant):
        yield f"with weights in {model.weights}"
    if not _is_on(model, spec):
        yield f"on {model.device}"


def _is_on(model: LoadedModel, spec: LoadSpec) -> bool:
    if spec.devices:
        return spec.devices == model.devices
    return spec.device in (None, "auto", model.device, model.device.partition(":")[0])


def lifetime(entry: Entry, spec: LoadSpec, default_ttl_s: float | None) -> tuple[bool, float | None]:
    """Whether the model is pinned from now on, and the idle seconds after which it goes; None: it stays.

    Raises:
        InvalidValue: a time to live for a model that is pinned.
    """
    was_pinned = bool(entry.spec.pinned)
    pinned = was_pinned if spec.pinned is None else spec.pinned
    if pinned and spec.ttl_s:
        raise InvalidValue(
            f"model '{spec.model_id}' is pinned and can't have a ttl",
            param="ttl_s",
            hint="unpin it too: --no-pin",
        )
    if pinned:
        return True, None
    kept_s = default_ttl_s if was_pinned else entry.ttl_s
    return False, (kept_s if spec.ttl_s is None else spec.ttl_s) or None
