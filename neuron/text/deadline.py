"""Work of native code on untrusted input: on a stack of its own, for so long and no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from neuron.errors import InvalidValue, NeuronError, QueueFull

T = TypeVar("T")

STACK_BYTES = 256 << 20
"""Of address space. Compilers recurse: 3,000 rules in a chain end the process on a usual stack of 8 MB."""
MAX_AT_ONCE = 2
Places = threading.BoundedSemaphore
_places = Places(MAX_AT_ONCE)
_starting = threading.Lock()


def within(
    limit_s: float,
    work: Callable[[], T],
    what: str,
    *,
    late: NeuronError | None = None,
    places: threading.BoundedSemaphore = _places,
) -> T:
    """What ``work`` returns or the `NeuronError` that it raises; it must raise nothing else.

    Native code can't be stopped: work that is late goes on alone, in one of the ``places``, until it ends.

    Raises:
        InvalidValue: it took longer than ``limit_s``; ``late`` instead, if that is given.
        QueueFull: no place became free within ``limit_s``.
    """
    if not places.acquire(timeout=limit_s):
        raise QueueFull(f"{what} had to wait too long for others to be compiled", retry_after_s=5)
    outcome: list[T | NeuronError] = []

    def run() -> None:
        try:
            outcome.append(work())
        except NeuronError as e:
            outcome.append(e)
        finally:
            places.release()

    thread = threading.Thread(target=run, name="compile", daemon=True)
    try:
        _start(thread)
    except RuntimeError:  # there can be no more threads
        places.release()
        raise
    thread.join(limit_s)
    if not outcome:
        raise late or InvalidValue(f"{what} takes longer than {limit_s:g} s to compile", param="grammar")
    if isinstance(outcome[0], NeuronError):
        raise outcome[0]
    return outcome[0]


def _start(thread: threading.Thread) -> None:
    # The size is the process's: whatever else starts a thread just now gets a large stack too, which is harmless.
    with _starting:
        usual = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(usual)
