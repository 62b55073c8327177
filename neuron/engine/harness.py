"""The harnesses of this build by name, imported on first use: torch takes seconds to import."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import threading
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

from neuron.engine.sequence import Output
from neuron.errors import HarnessNotEnabled, UnknownHarness
from neuron.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neuron.engine.loaded import LoadedModel
    from neuron.engine.torch_harness import TorchHarness
    from neuron.engine.worker import Worker

    Models = Callable[[], Sequence[LoadedModel]]

HARNESSES = {"torch": "neuron.engine.torch_harness"}


class Harnesses:
    """What runs models. ``deliver`` is called on a device thread with what a step brought, ``models`` from any
    thread for all that are in memory."""

    def __init__(self, settings: Settings, deliver: Callable[[list[Output]], None], models: Models) -> None:
        self._settings = settings
        self._deliver = deliver
        self._models = models
        self._torch: TorchHarness | None = None
        self._lock = threading.Lock()

    def configure(self, settings: Settings) -> None:
        """Models that are loaded from now on get these limits."""
        self._settings = settings
        if self._torch is not None:
            self._torch.configure(settings)

    def check(self, name: str) -> None:
        """Raise `UnknownHarness` or `HarnessNotEnabled` unless the harness may be used."""
        if name not in HARNESSES:
            raise UnknownHarness(f"unknown harness: {name}", hint=f"known: {', '.join(HARNESSES)}")
        if name not in self._settings.harnesses:
            raise HarnessNotEnabled(
                f"harness {name} is not enabled on this node", hint="enable it in `harnesses`"
            )

    def torch(self) -> TorchHarness:
        """The torch harness; blocking. Raises `HarnessNotEnabled` where torch is not installed."""
        with self._lock:
            if self._torch is None:
                module = _imported()
                self._torch = module.TorchHarness(self._settings, self._deliver, self._models)
            return self._torch

    def workers(self) -> list[Worker]:
        """The device threads that run."""
        return self._torch.workers() if self._torch else []

    def free_memory(self) -> None:
        """Give back what a model left; blocking."""
        if self._torch is not None:
            self._torch.free_memory()

    def close(self) -> None:
        """End the device threads; blocking."""
        if self._torch is not None:
            self._torch.close()


def _imported() -> ModuleType:
    """The module with everything that it needs, above all torch."""
    is_first = "torch" not in sys.modules
    # Threads of a kernel that wait in a busy loop make a step 5 to 10 times slower where the cores are
    # shared, and no faster where they are not. Read once, when the library is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # torch says so once where NumPy is missing, which nothing here uses
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    try:
        module = importlib.import_module(HARNESSES["torch"])
    except ModuleNotFoundError as e:
        if e.name != "torch":
            raise
        raise HarnessNotEnabled("harness torch needs PyTorch", hint="pip install torch") from e
    if is_first:
        # What was imported stays. A full collection, as after each unload, would look at 200,000 objects of it and
        # hold the interpreter for a tenth of a second.
        gc.freeze()
    return module
