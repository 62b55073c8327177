"""Our own parsers under atheris, which lets the coverage of their code guide what it tries.

python -m tests.reliability.fuzz 30 [TARGET …]

Seconds for each target, all targets if none is named. It begins with the corpus and ends at the first input that
breaks a promise, which it prints: such an input belongs into ``tests/reliability/corpus`` with the repair.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.reliability.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
"""One file for each target: texts, or bytes in base64 after ``base64:``."""
CUT_BYTES = 8
"""At the begin of an input: the lengths of the first pieces."""
CHILD = """
import sys, atheris
with atheris.instrument_imports(include=["neuron"]):
    from neuron import gguf, gguf_header, safetensors_header, toml_file
    from neuron.cli import terminal_text
    from neuron.sources import reference
    from neuron.text import answer, detokenize, json_span, reader, stop, tool_calls, tool_python, tool_xml
    from neuron.wire import event_stream
from tests.reliability.targets import TARGETS
check = TARGETS[sys.argv[1]]
atheris.Setup(sys.argv[1:], lambda data: check(data[8:], [byte % 16 for byte in data[:8]]))
atheris.Fuzz()
"""


def kept(name: str) -> list[bytes]:
    """The inputs of a target that were worth keeping."""
    listed: list[str] = json.loads((CORPUS / f"{name.replace(' ', '-')}.json").read_text(encoding="utf-8"))
    return [
        base64.b64decode(one[7:]) if one.startswith("base64:") else one.encode(errors="surrogatepass")
        for one in listed
    ]


def fuzz(name: str, seconds: int, folder: Path) -> int:
    """Exit code of the fuzzer; its figures go to standard error."""
    for n, data in enumerate(kept(name)):
        (folder / str(n)).write_bytes(bytes([3, 1] * (CUT_BYTES // 2)) + data)
    limits = [f"-max_total_time={seconds}", "-max_len=4096", "-rss_limit_mb=4096", "-timeout=120"]
    artifacts = f"-artifact_prefix={tempfile.gettempdir()}/"
    command = [sys.executable, "-c", CHILD, name, *limits, artifacts, str(folder)]
    return subprocess.run(command).returncode


def main(args: list[str]) -> int:
    """1 if any target broke a promise, 69 where atheris is not installed."""
    if subprocess.run([sys.executable, "-c", "import atheris"], capture_output=True).returncode:
        print("atheris is not installed: pip install -e '.[fuzz]'", file=sys.stderr)
        return 69
    broken = []
    for name in args[1:] or list(TARGETS):
        with tempfile.TemporaryDirectory() as folder:
            if fuzz(name, int(args[0]), Path(folder)):
                broken.append(name)
    print("broken:", ", ".join(broken) or "none")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
