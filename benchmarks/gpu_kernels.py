"""Which tiles of the kernels for 8- and 4-bit weights are best on a device: ``python -m benchmarks.gpu_kernels``.

Prints what each reads in GB/s, for the matrices of an 8B-shaped decoder, out of a cold cache. The best belong in
`neuron.model.grouped_kernels` (`ONE_ROW`, `FEW_ROWS`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from triton.runtime.errors import OutOfResources
from triton.testing import do_bench

from benchmarks.gpu import fill_groups
from neuron.model import grouped_kernels as kernels
from neuron.model.grouped import LAYOUTS, GroupedWeight, Scratch
from neuron.model.packed import FORMATS

CUDA = torch.device("cuda")
SHAPES = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096))
ROWS = (1, 8, 64)
ONE_ROW = tuple(
    {"OUTS": outs, "GROUPS": groups, "num_warps": warps}
    for outs, groups, warps in (
        (1, 64, 1),
        (2, 32, 1),
        (4, 16, 1),
        (2, 64, 2),
        (2, 64, 4),
        (4, 64, 4),
        (4, 128, 8),
        (2, 128, 4),
    )
)
FEW_ROWS = tuple(
    {"OUTS": outs, "GROUPS": groups, "num_warps": warps, "num_stages": stages}
    for outs, groups, warps, stages in (
        (64, 4, 4, 3),
        (64, 4, 4, 4),
        (64, 2, 4, 4),
        (64, 8, 4, 2),
        (64, 4, 8, 3),
        (128, 4, 8, 3),
        (128, 2, 4, 4),
    )
)


def main() -> None:
    """Every format, matrix, number of rows and tile."""
    for fmt in LAYOUTS:
        for shape in SHAPES:
            weight = GroupedWeight.empty(FORMATS[fmt], *shape, CUDA, Scratch(torch.bfloat16))
            fill_groups(weight)
            for n in ROWS:
                found = sorted(speeds(weight, n), key=lambda pair: -pair[0])
                told = "; ".join(f"{gb_s:,.0f} {tile}" for gb_s, tile in found)
                print(f"{fmt} {shape[0]}x{shape[1]}, {n} rows: {told}", flush=True)


def speeds(weight: GroupedWeight, n: int) -> Iterator[tuple[float, str]]:
    """GB/s of the weights' bytes and the tile, for each that the device has room for."""
    x = torch.randn(n, weight.shape[1], dtype=torch.bfloat16, device=CUDA)
    y = x.new_empty(n, weight.shape[0])
    used, tiles = (kernels.ONE_ROW, ONE_ROW) if n == 1 else (kernels.FEW_ROWS, FEW_ROWS)
    before = dict(used)
    for tile in tiles:
        used.update(tile)
        try:
            time_ms = do_bench(partial(kernels.product, x, weight.stored, None, y), return_mode="median")
        except OutOfResources:
            continue
        yield weight.nbytes / float(time_ms) / 1e6, shown(tile)
    used.update(before)


def shown(tile: dict[str, Any]) -> str:
    return "/".join(map(str, tile.values()))


if __name__ == "__main__":
    main()
