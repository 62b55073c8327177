"""What can be told of a node's settings before it starts: each value, and what the values name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuron import faults, keys, tls, torch_build
from neuron.address import address_of, check_guarded
from neuron.cli.context import model_reference
from neuron.errors import Mistakes, NeuronError
from neuron.keys import Keyring
from neuron.settings import Settings, read
from neuron.sources.reference import parse_reference

CUDA_HINT = "auto takes what there is; pytorch.org/get-started/locally has builds for GPUs"


@dataclass(slots=True)
class Findings:
    """The settings, without the values that can't be taken, and every mistake that was found."""

    settings: Settings
    ring: Keyring | None
    wrong: list[NeuronError]

    def refuse(self) -> None:
        """Raise `Mistakes` if there is one."""
        if self.wrong:
            raise Mistakes(self.wrong)


def look(flags: Mapping[str, Any], env: Mapping[str, str], file: Path | None = None) -> Findings:
    """Read the settings and what they name. Nothing is bound, torch is not imported, no model is looked for."""
    settings, wrong = read(flags, env, file)
    found = Findings(settings, None, wrong)
    whole = not wrong
    wrong += [*_references(settings), *_device(settings, env)]
    checks: list[Callable[[], object]] = [lambda: faults.read(env), lambda: _take_keys(found, env)]
    if whole:  # a key that was misspelt would show a second time, as missing beside the other one
        checks.append(lambda: tls.server_context(settings))
    for check in checks:
        try:
            check()
        except NeuronError as e:
            wrong.append(e)
    return found


def _take_keys(found: Findings, env: Mapping[str, str]) -> None:
    found.ring = keys.of(found.settings, env)


def look_at_address(found: Findings) -> None:
    """Add what speaks against the address that the settings name, if nothing else is wrong."""
    settings = found.settings
    if found.wrong or settings.uds is not None:
        return
    try:
        address = address_of(settings)[1][0]
        check_guarded(f"{settings.place('bind')} {settings.bind}", address, settings, found.ring is not None)
    except NeuronError as e:
        found.wrong.append(e)


def _references(settings: Settings) -> Iterator[NeuronError]:
    """Models to load that no reference spells, or that are nearly a short name."""
    for key in ("models", "models_on_request"):
        for text in getattr(settings, key):
            try:
                parse_reference(model_reference(text))
            except NeuronError as e:
                yield settings.refusal(key, e.message, e.hint)


def _device(settings: Settings, env: Mapping[str, str]) -> Iterator[NeuronError]:
    if settings.harnesses and (why := torch_build.lacks(settings.device, env, torch_build.find())):
        yield settings.refusal("device", f"there is no {settings.device!r}: {why}", CUDA_HINT)
