"""Build the compiled convolutions of lightning_cifar.ext. All other settings of the package are in pyproject.toml.

They are optional: without Cython or a C compiler, the package is installed without them and uses NumPy.
LIGHTNING_CIFAR_EXT_REQUIRE=1 makes a failure to build them an error, LIGHTNING_CIFAR_EXT_DISABLE=1 skips them.
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
        warnings.warn("Cython is not installed, so the compiled convolutions are not built", stacklevel=1)
        return []
    # -O3 for unrolling; the kernels depend on contraction into multiply-add. No -march: each instruction set has a
    # separate source file, selected at run time.
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
        module.optional = not REQUIRED  # cythonize creates new extensions without this attribute
    return built


class BuildWithConfigs(build_py):
    """Copy configs/ into the package, where lightning_cifar.configuration finds it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib) / "lightning_cifar" / "configs", dirs_exist_ok=True)


setup(ext_modules=compiled_modules(), cmdclass={"build_py": BuildWithConfigs})
