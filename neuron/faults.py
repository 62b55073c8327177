"""Faults that a test puts into a node at an exact moment: `VARIABLE`, heeded only where `SWITCH` is 1.

A point of the program calls `at` each time it is passed; without planned faults that is one look at a global.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from neuron.errors import ConfigError

VARIABLE, SWITCH = "NEURON_FAULT", "NEURON_TESTING"
POINTS = {
    "load": "a tensor is about to be read",
    "cache": "a sequence is about to take its cache",
    "prefill": "a step is about to compute a prompt, or a part of one",
    "step": "a step is about to compute one token for each running sequence",
    "logits": "a step was computed, and tokens are about to be chosen",
    "embed": "a piece of an embedding is about to be computed",
    "probe": "a model is about to be tried, after a failure",
    "resolve": "a source is about to be asked what a model consists of",
    "download": "a part of a file arrived, and is about to be written",
    "verify": "a file that was fetched is about to be hashed",
    "record": "a model is about to count as fetched",
    "log": "a line is about to be written",
}
NEEDS_DEVICE = {"cache", "prefill", "step", "logits", "embed", "probe"}


class Lost(RuntimeError):
    """The device is gone, and stays so until a model is loaded."""


def _hold_interpreter(seconds: float) -> None:
    """What native code does that never lets another thread run."""
    ctypes.PyDLL(None).poll(None, 0, int(seconds * 1000))


def _out_of_memory(seconds: float) -> None:
    raise MemoryError("injected: no memory")


def _lose(seconds: float) -> None:
    raise Lost("injected: the device is gone")


def _break(seconds: float) -> None:
    raise RuntimeError("injected: a mistake of the program")


def _fill_disk(seconds: float) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


KINDS: Mapping[str, Callable[[float], None]] = {
    "nan": lambda seconds: None,  # who passes the point spoils what it computes
    "oom": _out_of_memory,
    "lost": _lose,
    "bug": _break,
    "hang": time.sleep,
    "gil": _hold_interpreter,
    "enospc": _fill_disk,
}


class Fault(NamedTuple):
    """``step:hang=10@3``: at the third pass of ``step``, hang for 10 seconds."""

    point: str
    kind: str
    seconds: float
    nth: int


class Plan:
    """Faults by the point and the pass at which they happen."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self._faults = {(fault.point, fault.nth): fault for fault in faults}
        self._passes: dict[str, Iterator[int]] = {point: itertools.count(1) for point in POINTS}
        self._lost: Fault | None = None

    def pass_(self, point: str) -> str | None:
        """One more pass of a point: the kind of the fault that happens here, if it does not raise."""
        if point == "load":
            self._lost = None
        fault = self._faults.get((point, next(self._passes[point]))) or self._still_lost(point)
        if fault is None:
            return None
        if fault.kind == "lost":
            self._lost = fault
        _tell(fault)
        KINDS[fault.kind](fault.seconds)
        return fault.kind

    def _still_lost(self, point: str) -> Fault | None:
        return self._lost if point in NEEDS_DEVICE else None


_plan: Plan | None = None


def at(point: str) -> str | None:
    """To be called where a point of `POINTS` is passed. What is planned for this pass happens: it raises or takes
    its time. ``nan`` is returned, for the caller to spoil what it computes.
    """
    return None if _plan is None else _plan.pass_(point)


def arm(env: Mapping[str, str]) -> None:
    """Plan what `VARIABLE` says. Raises `ConfigError` as `read` does."""
    global _plan
    faults = read(env)
    _plan = Plan(faults) if faults else None
    for fault in faults:
        _tell(fault, "fault planned")


def read(env: Mapping[str, str]) -> tuple[Fault, ...]:
    """The faults that the environment plans.

    Raises:
        ConfigError: there are some and the switch is off, or one can't be read.
    """
    text = env.get(VARIABLE, "")
    if text and env.get(SWITCH) != "1":
        raise ConfigError(
            f"{VARIABLE} puts faults into a node, and this one is not under test",
            hint=f"unset it, or set {SWITCH}=1 as well",
        )
    return tuple(map(_fault, filter(None, text.split(","))))


_FORM = re.compile(
    r"(?P<point>\w+):(?P<kind>\w+)(=(?P<seconds>\d{1,6}(\.\d{1,3})?))?(@(?P<nth>[1-9]\d{0,8}))?"
)


def _fault(text: str) -> Fault:
    found = _FORM.fullmatch(text)
    if found is None or found["point"] not in POINTS or found["kind"] not in KINDS:
        raise ConfigError(
            f"{VARIABLE}: {text!r} is no fault; points are {', '.join(POINTS)}, kinds are {', '.join(KINDS)}",
            hint="write POINT:KIND[=SECONDS][@N], as in step:hang=10@3",
        )
    return Fault(found["point"], found["kind"], float(found["seconds"] or 0), int(found["nth"] or 1))


def _tell(fault: Fault, name: str = "fault injected") -> None:
    from neuron.log import event  # which has a point itself

    if fault.point != "log":  # or each line would lead to another
        event(logging.getLogger(__name__), name, level=logging.WARNING, **fault._asdict())
