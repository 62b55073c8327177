"""``schemathesis`` over the node's own document, against the real server code on the fake engine.

python -m tests.support.fuzz --max-examples 30
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuron.daemon.operations import MODEL
from neuron.settings import Settings
from tests.support.fake_engine import FakeEngine
from tests.support.node_server import node_server

SCHEMATHESIS = Path(sys.executable).with_name("st")
CONFIG = f"""
hooks = "hooks.py"

[parameters]
"path.model_id" = "{MODEL}"

[checks]
# The document can't say all that a request must satisfy (which id is in the vocabulary, which regex compiles).
positive_data_acceptance.enabled = false
"""
HOOKS = f"""
import schemathesis

@schemathesis.hook
def map_query(context, query):
    return {{**(query or {{}}), "follow": "false"}} if context.operation.path == "/events" else query

@schemathesis.hook
def map_body(context, body):
    named = isinstance(body, dict) and isinstance(body.get("model"), str)
    return {{**body, "model": "{MODEL}"}} if named else body
"""
"""A body that names a model, by any string, names the one that answers: else nearly all would be 404."""


class FuzzedEngine(FakeEngine):
    """Keeps its model whatever is unloaded and never drains, so that every phase reaches a generation."""

    def refuse_new(self) -> None:
        pass

    async def unload(self, model_id: str, *, now: bool = False) -> None:
        kept = self.models.get(MODEL)
        await super().unload(model_id, now=now)
        if model_id == MODEL and kept is not None:
            self.models[MODEL] = kept


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found."""

    exit_code: int
    n_cases: int
    n_passed: int
    text: str


def fuzz(folder: Path, options: Sequence[str]) -> Outcome:
    """All phases in both modes, from a configuration that is written into ``folder``."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    (folder / "hooks.py").write_text(HOOKS)
    settings = Settings(port=0, response_store=folder)
    with node_server(FuzzedEngine(models=[MODEL]), settings) as node:
        command = [SCHEMATHESIS, "--config-file", config, "run", f"{node.url}/schema/openapi.json"]
        fixed = ["--mode", "all", "--no-color", "--generation-database", "none", *options]
        done = subprocess.run([*command, *fixed], capture_output=True, text=True, cwd=folder)
    text = done.stdout + done.stderr
    return Outcome(done.returncode, _count(text, "generated"), _count(text, "passed"), text)


def _count(text: str, what: str) -> int:
    """A number of the report's last lines."""
    _, _, counts = text.rpartition("Test cases:")
    found = re.search(rf"(\d+) {what}", counts)
    return int(found[1]) if found else 0


def main(options: Sequence[str]) -> int:
    """Print the report; the exit code is the tool's, or 1 where too little was tried."""
    import tempfile

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        outcome = fuzz(Path(folder), options)
    print(outcome.text)
    return outcome.exit_code or int(outcome.n_cases < 2000)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
