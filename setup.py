"""What pyproject.toml cannot say: conf/ travels as the package zoo.conf, and the C of zoo.nn.native
is compiled where there is a compiler. Everything works without it, decoding more slowly."""

import runpy

from setuptools import Extension, find_namespace_packages, setup

NATIVE = "zoo/nn/native"
sources = runpy.run_path(f"{NATIVE}/sources.py")

setup(
    packages=[
        *find_namespace_packages(include=["zoo", "zoo.*"], exclude=["*.__pycache__"]),
        "zoo.conf",
    ],
    package_dir={"zoo": "zoo", "zoo.conf": "conf"},
    ext_modules=[
        Extension(
            "zoo.nn.native.kernels",
            [f"{NATIVE}/{name}" for name in sources["FILES"]],
            depends=[f"{NATIVE}/native.h"],
            define_macros=[("SOURCES", f'"{sources["digest"]()}"')],
            # sums in the processor's order, but NaN and infinity as they are
            extra_compile_args=[
                "-O3",
                "-g0",
                "-fassociative-math",
                "-fno-signed-zeros",
                "-fno-trapping-math",
                "-fno-math-errno",
                "-ffp-contract=fast",
                "-Wno-psabi",
            ],
            optional=True,
        )
    ],
)
