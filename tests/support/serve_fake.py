"""A node process over a fake engine, for tests that send signals: prints its URL, then serves until stopped."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from neuron import keys
from neuron.daemon import process, protocol
from neuron.daemon.listen import listen
from neuron.daemon.server import serve
from neuron.settings import Settings
from tests.support.fake_engine import FakeEngine, Script


def main(settings: dict[str, object], script: dict[str, object], deadlines: dict[str, float]) -> int:
    """Serve; the exit code. The engine's calls are printed last, in order."""
    if file := settings.pop("keys_file", None):
        settings["keys_file"] = Path(str(file))
    chosen = Settings(**{"port": 0, "log_format": "json", **settings})  # type: ignore[arg-type]
    hasten(**deadlines)
    engine = FakeEngine(Script(**script))  # type: ignore[arg-type]
    ring = keys.load(chosen.keys_file, os.environ) if chosen.keys_file else None
    socks = listen(chosen, guarded=ring is not None)
    code = serve(chosen, socks, keys=ring, engine=engine, on_listening=lambda url: print(url, flush=True))
    print(json.dumps(engine.calls), "torch" in sys.modules, flush=True)
    return code


def hasten(keep_alive_s: int = process.KEEP_ALIVE_S, **deadlines: float) -> None:
    """Other patience with clients: ``header_s``, ``body_s``, ``write_s``, ``max_connections``."""
    process.KEEP_ALIVE_S = keep_alive_s
    for name, value in deadlines.items():
        assert hasattr(protocol.DeadlineProtocol, name), name
        setattr(protocol.DeadlineProtocol, name, value)


if __name__ == "__main__":
    sys.exit(main(*map(json.loads, sys.argv[1:]), *[{}] * (4 - len(sys.argv))))
