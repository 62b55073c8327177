"""A random mix of everything against one real node, for minutes: what it loses, and what it keeps.

python -m tests.reliability.soak 30

Rounds of requests alternate with rests, at which memory, descriptors and threads are read. It writes docs/soak.md
and docs/soak.json; the exit code is 1 if anything was wrong. A second argument is another seed.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.reliability import soak_page
from tests.reliability.soak_account import Sample, faults, lines_of, sample, slope_per_1000
from tests.reliability.soak_requests import MAIN, OTHER, Seen, asked, drawn
from tests.support.node_process import NodeProcess, node
from tests.support.node_server import eventually
from tests.support.scrape import Scrape
from tests.support.tiny_chat import save_tiny_chat

ROOT = Path(__file__).parents[2]
N_CLIENTS = 8
TARGET = 10_000
RSS_KB_PER_1000 = 1000
ROUND_S = 15.0
SEED = 8
LIMITS = ("--threads", "1", "--kv-budget-mb", "32", "--prefix-cache-mb", "2")
"""A cache of earlier prompts that is soon full, since one that fills for an hour looks like a leak."""
PATIENCE = ("--hang-s", "3600", "--stall-s", "3600", "--queue-timeout-s", "3600")
TIMEOUT_S = 1200.0
"""A machine that does other work may stop client and node for minutes, which is no fault of theirs."""
LOOKS = ("/metrics", "/health", "/requests?limit=50", "/models?all=true")


@dataclass
class Soak:
    """What was done and found."""

    seed: int
    took_s: float = 0.0
    seen: list[Seen] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    n_loads: int = 0
    n_looks: int = 0
    n_readers: int = 0
    faults: list[str] = field(default_factory=list)

    def slopes(self) -> dict[str, float]:
        """Growth over a thousand requests."""
        return {of: slope_per_1000(self.samples, of) for of in ("rss_kb", "n_descriptors", "n_threads")}

    def is_flat(self) -> bool:
        """Whether memory grows by less than the limit, and the rest not at all."""
        slopes = self.slopes()
        still = (round(slopes["n_descriptors"], 1), round(slopes["n_threads"], 1))
        return slopes["rss_kb"] < RSS_KB_PER_1000 and still == (0, 0)

    def report(self) -> dict[str, Any]:
        """Everything, for JSON."""
        slopes = self.slopes()
        return {
            "requests": len(self.seen),
            "took_s": round(self.took_s),
            "outcomes": dict(Counter(one.outcome for one in self.seen)),
            "loads": self.n_loads,
            "looks": self.n_looks,
            "readers": self.n_readers,
            "faults": self.faults[:100],
            "rss_mb_per_1000": round(slopes["rss_kb"] / 1e3, 3),
            "descriptors_per_1000": round(slopes["n_descriptors"], 3),
            "threads_per_1000": round(slopes["n_threads"], 3),
            "met": not self.faults and self.is_flat() and len(self.seen) >= TARGET,
            "samples": [asdict(one) for one in self.samples],
        }

    def counts(self) -> str:
        """What was done and what was wrong."""
        outcomes = Counter(one.outcome for one in self.seen)
        ended = ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(outcomes.items()))
        n_requests = f"{len(self.seen):,} requests in {self.took_s:.0f} s ({ended}), {self.n_loads} loads"
        return f"{n_requests}: {len(self.faults)} faults"

    def growth(self) -> str:
        """What was kept."""
        slopes = self.slopes()
        return (
            f"; {slopes['rss_kb'] / 1e3:+.2f} MB, {slopes['n_descriptors']:+.1f} descriptors, "
            f"{slopes['n_threads']:+.1f} threads for 1000 requests"
        )


def soak(duration_s: float, seed: int = SEED, round_s: float = ROUND_S) -> Soak:
    """Run one."""
    done, began_s = Soak(seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, _two_models(Path(folder)) as running:
        while (left_s := duration_s - (time.monotonic() - began_s)) > 0:
            rng = random.Random(f"{seed} {len(done.samples)}")
            asyncio.run(_round(running.url, done, min(round_s, left_s), rng))
            eventually(lambda: _scrape(running).total("neuron_requests_running") == 0, 60)
            done.samples.append(sample(running.process.pid, time.monotonic() - began_s, len(done.seen)))
            if running.process.poll() is not None:
                done.faults.append(f"the node ended with {running.process.returncode}")
                break
        done.faults += faults(done.seen, lines_of(running), _scrape(running))
    done.took_s = time.monotonic() - began_s
    return done


@contextmanager
def _two_models(root: Path) -> Iterator[NodeProcess]:
    for number, name in enumerate((MAIN, OTHER)):
        save_tiny_chat(root / name, seed=number)
    with node(*LIMITS, *PATIENCE, "--model-root", root, root / MAIN) as running:
        running.wait_loaded(MAIN)
        yield running


def _scrape(running: NodeProcess) -> Scrape:
    return Scrape(running.get("/metrics").text)


async def _round(url: str, done: Soak, duration_s: float, rng: random.Random) -> None:
    """Everybody at work for a time; on return nobody holds a connection and the second model is gone."""
    over = asyncio.Event()
    client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False)
    async with client, asyncio.TaskGroup() as group:
        for work in (*[_clients] * N_CLIENTS, _loads, _looks, _reads_events):
            group.create_task(work(client, done, over, random.Random(rng.random())))
        await asyncio.sleep(duration_s)
        over.set()


async def _clients(client: httpx.AsyncClient, done: Soak, over: asyncio.Event, rng: random.Random) -> None:
    while not over.is_set():
        done.seen.append(await asked(client, drawn(rng)))


async def _loads(client: httpx.AsyncClient, done: Soak, over: asyncio.Event, rng: random.Random) -> None:
    """The second model comes and goes."""
    known = (await client.get("/models")).json()
    folder = next(model["source"] for model in known if model["id"] == MAIN)
    while not over.is_set():
        loaded = await client.post("/models/load", json={"model_id": f"{Path(folder).parent / OTHER}"})
        done.n_loads += 1
        await _pause(over, rng.uniform(0.5, 2))
        unloaded = await client.post("/models/unload", json={"model_id": OTHER, "now": rng.random() < 0.5})
        done.faults += [f"{a.url.path}: {a.text}" for a in (loaded, unloaded) if a.status_code != 200]


async def _looks(client: httpx.AsyncClient, done: Soak, over: asyncio.Event, rng: random.Random) -> None:
    """What an operator and a monitor look at."""
    while not over.is_set():
        found = await client.get(rng.choice(LOOKS))
        done.n_looks += 1
        done.faults += [f"{found.url.path}: {found.text}"] if found.status_code != 200 else []
        await _pause(over, 0.25)


async def _reads_events(
    client: httpx.AsyncClient, done: Soak, over: asyncio.Event, rng: random.Random
) -> None:
    """Readers of the node's events, who leave at any time."""
    while not over.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(rng.uniform(0.1, 3)), client.stream("GET", "/events") as answer:
                done.n_readers += 1
                async for _ in answer.aiter_lines():
                    if over.is_set():
                        break


async def _pause(over: asyncio.Event, for_s: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), for_s)


def main() -> int:
    """Soak for so many minutes and write what came of it; 0 if all was well."""
    minutes, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SEED
    about = soak_page.about(ROOT)
    done = soak(60 * minutes, seed)
    print(done.counts() + done.growth(), *done.faults, sep="\n")
    report = {**about, **done.report()}
    (ROOT / "docs" / "soak.json").write_text(json.dumps(report, indent=1) + "\n")
    (ROOT / "docs" / "soak.md").write_text(soak_page.page(report))
    return 0 if report["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
