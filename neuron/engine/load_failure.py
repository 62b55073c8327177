"""What a load that failed is told to have failed with, and what the log has of it."""

from __future__ import annotations

import logging

from neuron.engine.device_errors import ran_out_of_memory
from neuron.errors import InsufficientMemory, InvalidModelFile, NeuronError, TemplateRenderFailed
from neuron.log import event

log = logging.getLogger("neuron.engine")


def log_failed_load(model_id: str, e: BaseException) -> None:
    """The whole cause; with a traceback where it is nothing that this program foresees."""
    if isinstance(e, NeuronError):
        causes = [str(e)]
        while (cause := e.__cause__) is not None:
            causes.append(f"{type(cause).__name__}: {cause}")
            e = cause
        event(log, "load failed", level=logging.ERROR, id=model_id, cause="; caused by ".join(causes))
    else:
        why = f"{type(e).__name__}: {e}"
        event(log, "load failed", level=logging.ERROR, fault=e, id=model_id, cause=why)


def as_load_failure(e: Exception) -> NeuronError:
    """What a load that ended so is told to have failed with."""
    if isinstance(e, TemplateRenderFailed):  # a fault of the files here, not of a request
        return InvalidModelFile(e.message, hint=e.hint)
    if isinstance(e, NeuronError):
        return e
    if ran_out_of_memory(e):
        return InsufficientMemory(
            "the load ran out of memory, although there seemed to be enough",
            hint="unload another model, or load with a narrower --dtype or --quant",
        )
    return InvalidModelFile(f"{type(e).__name__}: {e}")
