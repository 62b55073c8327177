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
from neuron.settings import Settings, resolve

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
    def settings(self) -> Settings | NeuronError:
        """Of the node that would start here, or why it would not."""
        try:
            return resolve({}, self.env)
        except NeuronError as e:
            return e

    @property
    def listen(self) -> tuple[str, int]:
        """Address and port of this machine's node, as a client reaches it."""
        settings = self._known_settings
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return everywhere.get(settings.bind, settings.bind), settings.port

    @property
    def url(self) -> str:
        """The same as a URL: a Unix socket, or by TLS, if the settings say so."""
        settings, (host, port) = self._known_settings, self.listen
        if settings.uds is not None:
            return f"unix://{settings.uds.absolute()}"
        scheme = "https" if settings.tls_cert else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def _known_settings(self) -> Settings:
        return self.settings if isinstance(self.settings, Settings) else Settings()

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
