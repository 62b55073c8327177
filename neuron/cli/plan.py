"""What a load would take, for people and scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuron.client import NodeClient
    from neuron.wire.node import LoadPlan

FITS, DOES_NOT = 0, 1


def show_plan(
    client: NodeClient,
    reference: str,
    *,
    dtype: str | None,
    quant: str | None,
    device: str | None,
    json: bool,
) -> int:
    """Show the plan of a node; the exit status."""
    from neuron.cli.render import show_fields, show_json
    from neuron.wire.node import PlanRequest

    plan = client.plan(PlanRequest(model_id=reference, dtype=dtype, quant=quant, device=device))
    if json:
        show_json(plan)
    else:
        show_fields(_fields(plan))
    return FITS if plan.fits else DOES_NOT


def _fields(plan: LoadPlan) -> list[tuple[str, object]]:
    return [
        ("model", plan.model_id),
        ("architecture", f"{plan.family}, {plan.parameters:,} parameters"),
        ("file", f"{plan.quant}, {_mb(plan.file_bytes)}"),
        ("weights", f"{_mb(plan.weight_bytes)} as {plan.weights} on {plan.device}, computed in {plan.dtype}"),
        ("cache", f"{_mb(plan.kv_bytes_per_1000_tokens)} for 1,000 tokens"),
        ("context", f"{plan.context:,} of {plan.model_context:,} tokens"),
        ("free", _mb(plan.free_bytes)),
        ("headroom", _mb(plan.headroom_bytes)),
        *([("unloads", ", ".join(plan.evicts))] if plan.evicts else []),
        ("verdict", plan.verdict),
    ]


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 20):,.1f} MB"
