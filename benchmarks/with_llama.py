"""llama.cpp (xllamacpp), run by the peers' Python: an engine of `benchmarks.lines`, or with a port a server."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import xllamacpp

from benchmarks.lines import Answer, serve


def server(path: str, n_slots: int, context: int, port: int | None = None) -> xllamacpp.Server:
    """A model behind its own loop; it keeps nothing of earlier prompts. ``context`` is that of a slot."""
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel, params.n_ctx = n_slots, n_slots * context
    n_threads = len(os.sched_getaffinity(0))
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
    params.cache_prompt, params.cache_ram_mib = False, 0
    if port is not None:
        params.port, params.hostnames = port, ["127.0.0.1"]
    return xllamacpp.Server(params)


def answer(loaded: xllamacpp.Server, prompt: list[int], n_new: int) -> Answer:
    """See `benchmarks.lines.Child.ask`; the times are the server's own, of its loop alone."""
    asked = {
        "prompt": prompt,
        "n_predict": n_new,
        "temperature": 0,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    times = loaded.handle_completions(asked)["timings"]
    if (times["prompt_n"], times["predicted_n"]) != (len(prompt), n_new):
        raise ValueError(f"llama.cpp computed {times}")
    return Answer(n_new, times["prompt_ms"] / 1e3, times["predicted_ms"] / 1e3)


def main(path: str, port: str = "", n_slots: str = "8", context: str = "1024") -> None:
    if port:
        listening = server(path, int(n_slots), int(context), int(port))
        print(listening.listening_address, flush=True)
        threading.Event().wait()
    begin_s = time.perf_counter()
    loaded = server(path, 1, 4352)
    answer(loaded, [1], 1)
    serve(
        time.perf_counter() - begin_s,
        Path(path).stat().st_size,
        lambda prompt, n_new: answer(loaded, prompt, n_new),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
