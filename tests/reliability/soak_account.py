"""What is held against a soak: requests as client, log and metrics have them, and what the node keeps at rest."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reliability.soak_requests import LEAVING, OTHER, Seen
from tests.support.node_process import NodeProcess
from tests.support.scrape import Scrape

FINISHED = frozenset({"stop", "length", "tool_calls", "done"})
CUT = "client_gone"
RETRY = (503, 529)
REST_S = 5.0
"""For the last connections of a round to be closed on both sides."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A node at rest between two rounds."""

    at_s: float
    n_requests: int
    rss_kb: int
    n_descriptors: int
    n_threads: int


def sample(pid: int, at_s: float, n_requests: int) -> Sample:
    """Read what the process holds, once nothing runs. Descriptors are the fewest seen within `REST_S`, until
    they stay the same: a connection that has just been closed takes a moment to go."""
    deadline_s, fewest, same = time.monotonic() + REST_S, 1 << 30, 0
    while same < 5 and time.monotonic() < deadline_s:
        time.sleep(0.05)
        found = len(os.listdir(f"/proc/{pid}/fd"))
        same = same + 1 if found == fewest else 0
        fewest = min(fewest, found)
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    status = {words[0]: words[1] for words in lines if len(words) > 1}
    return Sample(at_s, n_requests, int(status["VmRSS:"]), fewest, int(status["Threads:"]))


def slope_per_1000(samples: Sequence[Sample], of: str) -> float:
    """Growth over a thousand requests, by least squares, after the first third of the samples."""
    rest = samples[len(samples) // 3 :]
    if len({one.n_requests for one in rest}) < 2:
        return 0.0
    values = [float(getattr(one, of)) for one in rest]
    return 1e3 * statistics.linear_regression([one.n_requests for one in rest], values).slope


def lines_of(running: NodeProcess) -> list[dict[str, Any]]:
    """The log so far."""
    return [json.loads(line) for line in list(running.log) if line.startswith("{")]


def faults(seen: Iterable[Seen], lines: Sequence[dict[str, Any]], found: Scrape) -> list[str]:
    """A sentence for each answer of 5xx that has no excuse, each request that is told of differently, each error
    in the log."""
    seen = list(seen)
    admitted = {line["id"]: line["finish"] for line in lines if line["event"] in ("generation", "embeddings")}
    refused = {line["id"]: line["code"] for line in lines if line["event"] == "refused" and "id" in line}
    wrong = [f"5xx: {one.about}" for one in seen if one.status >= 500 and not _is_leaving(one)]
    wrong += [f"failed: {one}" for one in seen if one.outcome == "failed" and OTHER not in one.about]
    wrong += [f"bug: {line}" for line in lines if line["event"] == "bug"]
    wrong += [told for one in seen if (told := _told_differently(one, admitted, refused))]
    return wrong + _uncounted(seen, admitted, refused, found)


def _is_leaving(one: Seen) -> bool:
    """The second model was on its way out: that is to be tried again."""
    return one.status in RETRY and f'"{OTHER}"' in one.about and (one.code in LEAVING or one.code is None)


def _told_differently(one: Seen, admitted: dict[str, str], refused: dict[str, str]) -> str | None:
    """What is wrong with the log's line of one request."""
    if one.request_id is None:
        return None
    finish, code = admitted.get(one.request_id), refused.get(one.request_id)
    right = {
        "finished": finish in FINISHED and code is None,
        "cut": (finish or code) in FINISHED | LEAVING | {CUT},
        "failed": finish is not None and finish not in FINISHED and code is None,
        "refused": (finish is None) is not (code is None) and one.code in (finish, code, None),
    }[one.outcome]
    return None if right else f"client {one}, log {finish or code}"


def _uncounted(
    seen: Sequence[Seen], admitted: dict[str, str], refused: dict[str, str], found: Scrape
) -> list[str]:
    """Sums that differ. Whoever left before the head of the answer knows no id, and is in the log with an id that
    no client has."""
    unnamed = sum(one.request_id is None for one in seen)
    unknown = len((admitted.keys() | refused.keys()) - {one.request_id for one in seen})
    ended = {reason: int(n) for (reason,), n in found.by("neuron_requests_ended_total", "reason").items()}
    sums = {
        "requests without an id: client, log": (unnamed, unknown),
        "admitted: log, metrics": (len(admitted), int(found.total("neuron_requests_admitted_total"))),
        "refused: log, metrics": (len(refused), int(found.total("neuron_requests_refused_total"))),
        "ended, by reason: log, metrics": (dict(Counter(admitted.values())), ended),
        "running: metrics": (int(found.total("neuron_requests_running")), 0),
    }
    return [f"{name}: {one} and {other}" for name, (one, other) in sums.items() if one != other]
