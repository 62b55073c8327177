"""How memory for caches is parted among models: what all are promised together is never more than there is.

A model keeps what its cache has in use and one whole context; the rest of its budget serves more answers at once,
and the next model that is loaded may take of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from neuron.engine.loaded import LoadedModel
from neuron.engine.plan import KV_SHARE


def promised_bytes(model: LoadedModel) -> int:
    """What its caches may yet take: it looks free on the device."""
    return max(0, model.gate.kv_budget_bytes - model.gate.kv_used_bytes) + _prefix_bytes(model)


def firm_bytes(model: LoadedModel) -> int:
    """The part of that which no other model may take."""
    return promised_bytes(model) - _spare_bytes(model)


def in_use_bytes(model: LoadedModel) -> int:
    """Its weights, and what its caches have taken."""
    prefixes = model.slot.prefixes
    return model.weight_bytes + model.gate.kv_used_bytes + (prefixes.n_bytes if prefixes else 0)


def share_bytes(room_bytes: int, others: Sequence[LoadedModel], useful_bytes: int) -> int:
    """The cache of one more model beside ``others``, which are cut where that is less than an equal part.

    Args:
        room_bytes: what all their caches may yet take together.
        useful_bytes: more would serve nothing.
    """
    left = room_bytes - sum(map(promised_bytes, others))
    wanted = min(max(left, room_bytes // (len(others) + 1)), int(useful_bytes / KV_SHARE) + 1)
    if wanted > left:
        left += _take(others, wanted - left)
    return max(0, min(useful_bytes, int(min(wanted, left) * KV_SHARE)))


def _take(models: Sequence[LoadedModel], wanted_bytes: int) -> int:
    """Lower budgets by so many bytes together, each by the same part of what it can spare; by how many."""
    spare = {model: _spare_bytes(model) for model in models}
    part = min(1.0, wanted_bytes / max(1, sum(spare.values())))
    cuts = {model: int(n_bytes * part) for model, n_bytes in spare.items()}
    for model, n_bytes in cuts.items():
        model.gate.kv_budget_bytes -= n_bytes  # one number: the event loop reads it before or after
    return sum(cuts.values())


def _spare_bytes(model: LoadedModel) -> int:
    gate = model.gate
    least = max(gate.kv_used_bytes, model.model_context * model.kv_bytes_per_token)
    return max(0, gate.kv_budget_bytes - least)


def _prefix_bytes(model: LoadedModel) -> int:
    prefixes = model.slot.prefixes
    return 0 if prefixes is None else max(0, prefixes.max_bytes - prefixes.n_bytes)
