"""Compiles the kernels of grouped weights for GPUs that need not be here.

``python -m tests.model.compiled_kernels Q8_0 bf16`` prints what each takes. It fails where one does not compile, or
takes more than there is.
"""

from __future__ import annotations

import sys
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from neuron.model import grouped_kernels as kernels
from neuron.model.grouped import LAYOUTS

SHARED_KIB = {86: 99, 90: 227}
"""Memory of its own that a program can have, by what CUDA calls the processor's capability."""
POINTERS = {"x", "bias", "y", "out"}
"""To numbers of the decoder's dtype."""


def main(fmt: str, kind: str) -> None:
    """Every kernel for one format and dtype."""
    layout = LAYOUTS[fmt]
    flags = {"NIBBLES": layout.bits == 4, "OFFSET": layout.offset, "MINIMA": layout.n_halves == 2}
    wide = kernels.WIDE if kind == "fp32" else {}
    calls: list[tuple[Any, dict[str, Any]]] = [
        (kernels._one_row, {"BIAS": True, **flags, **kernels.ONE_ROW}),
        (kernels._unpack, {**flags, **kernels.UNPACK}),
        *(
            (kernels._few_rows, {"BIAS": True, "ROWS": n, "SPLITS": 4, **flags, **kernels.FEW_ROWS, **wide})
            for n in (16, 64)
        ),
    ]
    for capability, kib in SHARED_KIB.items():
        for kernel, constants in calls:
            shared = shared_bytes(kernel, constants, kind, capability)
            print(capability, kernel.__name__, constants, f"{shared} bytes of shared memory")
            assert shared <= kib << 10


def shared_bytes(kernel: Any, constants: dict[str, Any], kind: str, capability: int) -> int:
    """Compile a kernel with the constants of a call, its pointers aligned as torch's are."""
    options = {name: n for name, n in constants.items() if name.startswith("num_")}
    constants = {name: n for name, n in constants.items() if name not in options}
    others = {"values": "*u8", "scales": "*fp16", "minima": "*fp16"}
    types = {
        name: "constexpr"
        if name in constants
        else f"*{kind}"
        if name in POINTERS
        else others.get(name, "i32")
        for name in kernel.arg_names
    }
    aligned = {(i,): [["tt.divisibility", 16]] for i, t in enumerate(types.values()) if t.startswith("*")}
    at = {(kernel.arg_names.index(name),): n for name, n in constants.items()}
    built = compile(
        ASTSource(kernel, types, at, aligned), target=GPUTarget("cuda", capability, 32), options=options
    )
    assert built.asm["cubin"]
    return int(built.metadata.shared)


if __name__ == "__main__":
    main(*sys.argv[1:])
