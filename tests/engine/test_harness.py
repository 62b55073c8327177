"""What importing torch leaves behind costs a node nothing later."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc
from neuron.engine.harness import Harnesses
from neuron.settings import Settings

Harnesses(Settings(device="cpu", threads=1), print, list).torch().close()
print(gc.get_freeze_count(), len(gc.get_objects()))
"""


def test_a_collection_does_not_look_at_what_was_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True
    )
    n_frozen, n_looked_at = map(int, done.stdout.split())
    assert n_frozen > 100_000
    assert n_looked_at < 10_000
