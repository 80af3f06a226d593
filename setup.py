"""Builds the compiled convolutions of lightning_cifar.ext. Everything else about the package is in pyproject.toml.

They are optional: without Cython or a C compiler the package installs without them and convolves with NumPy.
LIGHTNING_CIFAR_EXT_REQUIRE=1 makes a failure to build them an error, LIGHTNING_CIFAR_EXT_DISABLE=1 leaves them out.
LIGHTNING_CIFAR_EXT_CHECKED=1 builds them for a test, with bounds checks and the compiler's sanitizers.
"""

import os
import shutil
import warnings
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

DIRECT = "lightning_cifar/ext/direct"
CHECKED = os.environ.get("LIGHTNING_CIFAR_EXT_CHECKED") == "1"
REQUIRED = os.environ.get("LIGHTNING_CIFAR_EXT_REQUIRE") == "1"
DISABLED = os.environ.get("LIGHTNING_CIFAR_EXT_DISABLE") == "1"


def compiled_modules() -> list[Extension]:
    if DISABLED and not REQUIRED:
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        if REQUIRED:
            raise
        warnings.warn("Cython is not installed, so the compiled convolutions are left out", stacklevel=1)
        return []
    # -O3 for the unrolling; contraction into multiply-add is what the kernels are made of. The instruction sets are
    # chosen inside the sources, one file each, and at run time: no -march here.
    flags = ["-O3", "-ffp-contract=fast", "-pthread"] if os.name == "posix" else []
    checks = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if CHECKED else []
    sources = [f"{DIRECT}/{name}.c" for name in ("convolution", "dispatch", "threads", "portable", "avx2", "avx512")]
    headers = [
        f"{DIRECT}/{name}.h"
        for name in ("convolution", "direct", "threads", "kernels", "transpose", "correlate", "narrow", "grad_weight")
    ]
    modules = [
        Extension(
            "lightning_cifar.ext._conv_naive",
            ["lightning_cifar/ext/_conv_naive.pyx"],
            extra_compile_args=flags[:2] + checks,
            extra_link_args=checks,
        ),
        Extension(
            "lightning_cifar.ext._conv_direct",
            ["lightning_cifar/ext/_conv_direct.pyx", *sources],
            depends=headers,
            include_dirs=[DIRECT],
            extra_compile_args=flags + checks,
            extra_link_args=flags[2:] + checks,
        ),
    ]
    directives = {"boundscheck": True, "initializedcheck": True} if CHECKED else {}
    built: list[Extension] = cythonize(modules, build_dir="build/cython", compiler_directives=directives, quiet=True)
    for module in built:
        module.optional = not REQUIRED  # cythonize makes new ones and forgets this
    return built


class BuildWithConfigs(build_py):
    """Puts configs/ into the package, where lightning_cifar.configuration looks for it; a checkout has it beside."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib) / "lightning_cifar" / "configs", dirs_exist_ok=True)


setup(ext_modules=compiled_modules(), cmdclass={"build_py": BuildWithConfigs})
