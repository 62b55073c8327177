"""`Finding`: what a check found. `Where`: what it looks at, as values, so that a test can give it another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec

from neuron.errors import NeuronError
from neuron.hardware import Host, discover
from neuron.local_node import local_url
from neuron.nodes import HOST_VARIABLE, Place, place

State = Literal["ok", "warning", "failure"]


class Finding(msgspec.Struct, kw_only=True):
    """One line of ``neuron doctor``, one object of ``neuron doctor --json``."""

    check: str = ""
    state: State
    says: str
    next_step: str | None = None
    """What to do about it; null where all is well."""


@dataclass(frozen=True)
class Where:
    """The machine and the environment that are looked at."""

    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    proc: Path = Path("/proc")

    @cached_property
    def local_url(self) -> str | NeuronError:
        """Where a node that is started here would listen, or why nobody knows."""
        try:
            return local_url(self.env)
        except NeuronError as e:
            return e

    @cached_property
    def node(self) -> Place | NeuronError:
        """The node that commands speak to: what ``NEURON_HOST`` names, else this machine's."""
        try:
            return place(self.env.get(HOST_VARIABLE) or None, self.env)
        except NeuronError as e:
            return e

    @cached_property
    def host(self) -> Host:
        """Processor, memory, GPUs."""
        return discover()


def ok(says: str) -> Finding:
    """All is well."""
    return Finding(state="ok", says=says)


def warning(says: str, next_step: str) -> Finding:
    """It works, and not as well as it could, or not for everything."""
    return Finding(state="warning", says=says, next_step=next_step)


def failure(says: str, next_step: str) -> Finding:
    """Something does not work."""
    return Finding(state="failure", says=says, next_step=next_step)
