"""The processor's kernels, compiled where there is a C compiler; without one the program computes with torch alone.

Each build is for one level of the x86-64 instructions; `neuron.model.native` picks what the processor has.
"""

import platform
import sys

from setuptools import Extension, setup

LEVELS = {
    "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    "v3": ["-march=x86-64-v3"],
}
BUILDS = {**(LEVELS if platform.machine().lower() in ("x86_64", "amd64") else {}), "any": []}

setup(
    ext_modules=[
        Extension(
            f"neuron.model._native_{name}",
            sources=["neuron/model/csrc/step.c"],
            depends=[
                f"neuron/model/csrc/{header}.h"
                for header in ("draw", "integers", "matrix", "pool", "product", "prompt", "rows", "vectors")
            ],
            extra_compile_args=["-O3", "-std=gnu11", *flags],
            extra_link_args=["-pthread", "-lm"],
            optional=True,
        )
        for name, flags in BUILDS.items()
        if sys.platform != "win32"
    ]
)
