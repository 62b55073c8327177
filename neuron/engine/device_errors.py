"""What an exception on a device thread means: a request's own fault, want of memory, or a model that is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuron import faults
from neuron.errors import DeviceFault, InsufficientCache, NeuronError

if TYPE_CHECKING:
    from neuron.model.decoder import Decoder
    from neuron.model.encoder import Encoder

TRIED_IDS = [0, 0]
"""What a model computes to show that it still can."""


def ran_out_of_memory(e: BaseException) -> bool:
    """Whether an allocation failed, in torch's words or in Python's."""
    by_torch = type(e).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(e)
    return by_torch or isinstance(e, MemoryError)


def as_error(e: Exception, what: str) -> NeuronError:
    """What a request is told of an exception in ``what``."""
    if isinstance(e, NeuronError):
        return e
    error: NeuronError
    if ran_out_of_memory(e):
        error = InsufficientCache(f"{what} ran out of memory", retry_after_s=5)
    else:
        error = DeviceFault(f"{what} failed: {type(e).__name__}")
    error.__cause__ = e
    return error


def why_broken(model: Decoder | Encoder) -> str | None:
    """Why a model can't compute any more, found by trying; None where it can, or only lacks memory now.

    To be called on the device thread, after a failure that no request explains: one bad request must not cost the
    others their model.
    """
    try:
        faults.at("probe")
        return None if _computes(model) else "what it computes is not finite"
    except Exception as e:
        return None if ran_out_of_memory(e) else f"{type(e).__name__}: {e}"


def _computes(model: Decoder | Encoder) -> bool:
    from neuron.model.encoder import Encoder  # torch, which the rest of this module does without

    if isinstance(model, Encoder):
        computed = model.states([TRIED_IDS])
    else:
        computed = model.step([(model.new_cache(len(TRIED_IDS)), TRIED_IDS, 1)])
    return bool(computed.isfinite().all())
