"""``make scorecard``: runs the short form of every row and writes ``docs/scorecard.md`` and its JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.support.scorecard import GROUPS

ROOT = Path(__file__).parents[2]
LIMIT_S = 15 * 60 - 30
ENDS_S = 60
TESTS = (
    "tests/reliability",
    "tests/e2e/test_stop_in_every_state.py",
    "tests/model/test_parity.py",
    "tests/daemon/test_fuzz.py",
    "tests/daemon/test_key_process.py",
    "tests/daemon/test_open_responses.py",
    *(file for files in GROUPS.values() for file in files),
)
"""What is run: whole folders, files, or single tests. A test reports by `tests.support.scorecard`."""
SECTIONS: dict[str, dict[int, str]] = {
    "Load held": {
        1: "streams held at once without error",
        2: "refusals under 4-fold overload: time to answer, p99",
        3: "accepted is the capacity, exactly",
        4: "Retry-After of 1 to 60 on every 429 and 503",
        5: "an official client with 5 retries under 2-fold overload",
        6: "`/health` during prefill, load and a body of 8 MB: p99, longest",
        7: "idle connections tolerated while serving",
        8: "soak: requests, slope of memory, descriptors and threads",
        9: "fairness: what a busy key makes another one wait",
        10: "start to ready; start to the error of a taken port",
    },
    "Faults survived": {
        11: "client cut at 5 points, streaming or not, queued",
        12: "tokens decoded after the cut",
        13: "SIGTERM in 7 states",
        14: "second SIGTERM",
        15: "SIGKILL at 10 offsets of a download, then a start",
        16: "SIGKILL in a load and in a generation, then a start",
        17: "disk full in a download, in the log, in the cache",
        18: "file cut, replaced or deleted at 3 points and after the load",
        19: "allocation failure at each of N points",
        20: "killed by a memory cgroup, then restarted",
        21: "logits that are not finite at step k",
        22: "a step that hangs for 10 s",
        23: "native code that hangs and holds the interpreter",
        24: "10 faults of the hub",
        25: "unload at 50 random points of a stream",
        26: "50 parallel loads of one id",
        27: "50 cycles of load, generate, unload: memory",
        28: "clock moved by a day in a stream",
        29: "64 descriptors, 200 connects",
        30: "NVML absent, hanging, or wrong",
    },
    "Bad inputs tried": {
        31: "hostile model files",
        32: "hostile HTTP over raw sockets",
        33: "hostile JSON and parameters",
        34: "generated requests, all phases and modes",
        35: "list of ids and paths, on every endpoint",
        36: "Host, Origin and content types",
        37: "escapes and log payloads",
        38: "secrets in logs and errors after the whole suite",
    },
    "Nothing lost, nothing wrong": {
        39: "requests of a random trace, each replayed alone with the same tokens",
        40: "conformance: Open Responses, official clients, cases of others",
        41: "numbers beside transformers",
        42: "requests admitted are those finished, failed and cut, in log, metrics and at the client",
    },
}
Line = dict[str, str | int]


def measure(results: Path, limit_s: float) -> bool:
    """Run the tests; whether all passed within the time. What they measured goes to ``results`` as they go."""
    env = {**os.environ, "NEURON_SCORECARD": str(results)}
    command = [sys.executable, "-m", "pytest", "-q", *TESTS]
    running = subprocess.Popen(command, cwd=ROOT, env=env)
    try:
        return running.wait(limit_s) == 0
    except subprocess.TimeoutExpired:
        print(f"stopped after {limit_s:.0f} s; rows that had no turn read 'not run'", file=sys.stderr)
        running.send_signal(signal.SIGINT)  # so that the tests end their nodes
        running.wait(ENDS_S)
        return False


def rows(lines: Iterable[Line]) -> list[Line]:
    """One of each row. Several tests may report one: it is met only if all of them say so."""
    told: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        told[int(line["row"])].append(line)
    return [_row(n, about, told[n]) for names in SECTIONS.values() for n, about in names.items()]


def _row(number: int, about: str, told: list[Line]) -> Line:
    verdicts = {str(line["verdict"]) for line in told} or {"not run"}
    verdict = next(word for word in ("missed", "not run", "met") if word in verdicts)
    figures = "; ".join(dict.fromkeys(str(line["figure"]) for line in told))
    targets = "; ".join(dict.fromkeys(str(line["target"]) for line in told))
    return {"row": number, "about": about, "figure": figures, "target": targets, "verdict": verdict}


def page(found: list[Line]) -> str:
    """The document."""
    by_number = {int(row["row"]): row for row in found}
    n = {word: sum(row["verdict"] == word for row in found) for word in ("met", "missed", "not run")}
    parts = [
        "# Scorecard\n\nLoad, faults, bad inputs and right answers, measured with a tiny model on a CPU. "
        "`make scorecard` writes\nthis page and `scorecard.json`. A row that no test reported reads `not run`. "
        "What the long forms last came to is in\n[long-runs.md](long-runs.md) and [soak.md](soak.md).\n\n"
        f"{n['met']} met, {n['missed']} missed, {n['not run']} not run.\n"
    ]
    for section, names in SECTIONS.items():
        table = "\n".join(
            "| {row} | {about} | {figure} | {target} | {verdict} |".format(**by_number[number])
            for number in names
        )
        parts.append(
            f"## {section}\n\n| row | what | figure | target | verdict |\n|---|---|---|---|---|\n{table}\n"
        )
    return "\n".join(parts)


def main() -> int:
    """Measure and write; 0 if every test passed and no row was missed. The one argument is a limit in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        results.touch()
        passed = measure(results, float(sys.argv[1]) if len(sys.argv) > 1 else LIMIT_S)
        found = rows(json.loads(line) for line in results.read_text().splitlines())
    (ROOT / "docs" / "scorecard.json").write_text(json.dumps(found, indent=1) + "\n")
    (ROOT / "docs" / "scorecard.md").write_text(page(found))
    return 0 if passed and not any(row["verdict"] == "missed" for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
