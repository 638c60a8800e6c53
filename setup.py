"""Packaging. torch is never imported and never a build requirement: pip would fetch gigabytes to make a wheel.

The fused kernels use torch's stable ABI, of which only the headers are needed, found on disk. What decides:

- ``TORCHACT_BUILD``: ``auto`` builds them where torch's headers and a C++ compiler are there, and makes a pure-Python
  package where not; ``1`` fails where they cannot be built; ``0`` leaves them out.
- ``TORCHACT_CUDA``: ``auto`` builds those for CUDA too where nvcc and a torch with CUDA are there; ``1`` asks for nvcc
  alone, and fails without; ``0`` leaves them out.
- ``TORCHACT_CUDA_ARCHITECTURES``: for which GPUs, by default ``80;90;100;120``.
- ``TORCHACT_TORCH``: the folder of the torch whose headers to use, by default that of the installed one.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "torchact" / "__init__.py").read_text(encoding="utf-8"), re.M)
assert VERSION is not None, "torchact/__init__.py states no __version__"

EXPERIMENTS = ["matplotlib>=3.9", "pandas>=2.2", "scikit-learn>=1.5", "tyro>=0.9"]
DOCUMENTATION = ["furo", "math-core", "matplotlib>=3.9", "myst-parser>=4", "sphinx>=8.1"]
DEVELOPMENT = [
    "accelerate>=1.1",  # without which transformers has no Trainer
    "expecttest",  # torch.testing._internal needs it and hypothesis
    "hypothesis",
    "import-linter",
    "mypy",
    "pytest>=8",
    "pytest-xdist",
    "pytorch-lightning>=2.4",
    "ruff",
    "setuptools>=77",
    "transformers>=5",  # whose models the tests convert and train
    "wheel",
]

BUILD = os.environ.get("TORCHACT_BUILD", "auto")
CUDA = os.environ.get("TORCHACT_CUDA", "auto")
TORCH = os.environ.get("TORCHACT_TORCH")
CUDA_ARCHITECTURES = os.environ.get("TORCHACT_CUDA_ARCHITECTURES", "80;90;100;120").replace(",", ";").split(";")
for name, value in (("TORCHACT_BUILD", BUILD), ("TORCHACT_CUDA", CUDA)):
    if value not in ("auto", "0", "1"):
        raise SystemExit(f"{name}: expected auto, 0 or 1, got {value!r}")

STABLE_ABI = "0x020a000000000000"  # what torch 2.10 has, and every later one
LIMITED_API = "0x030a0000"  # what Python 3.10 has, and every later one
HAS_LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")
X86 = platform.machine().lower() in ("x86_64", "amd64")
SOURCES = ["csrc/library.cpp", "csrc/module.cpp", "csrc/accelerate.cpp", "csrc/cpu/run.cpp", "csrc/cpu/baseline.cpp"]
X86_SOURCES = ["csrc/cpu/avx2.cpp", "csrc/cpu/avx512.cpp"]
CUDA_SOURCES = ["csrc/cuda/run.cpp", "csrc/cuda/kernels.cu", "csrc/cuda/softmax.cu", "csrc/cuda/statistics.cu"]
FLAGS = [
    "-std=c++20",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    # The error bounds of the formulas count on each operation as it is written, and vectorised loops on no trap.
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
]
if sys.platform == "linux":
    FLAGS.append("-fno-thread-jumps")  # GCC's jump threading splits clamps into branches that do not vectorise
FLAGS_OF_FILE = {
    "avx2.cpp": ["-mavx2", "-mfma", "-mf16c"],
    "avx512.cpp": [
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"),
        "-mprefer-vector-width=512",
    ],
}


class CannotBuild(Exception):
    """Why the kernels are left out."""


def why(error: Exception) -> str:
    """Return the reason of a failed build without the compiler's whole command."""
    if isinstance(error, CannotBuild):
        return str(error)
    failed = error.__context__
    if isinstance(failed, subprocess.CalledProcessError):
        return f"{failed.cmd[0]} failed; what it said is above"
    return f"{type(error).__name__}: {error}"


def torch_folder() -> Path:
    """Return the folder of the installed torch; in pip's isolated environment, that of the interpreter outside."""
    spec = importlib.util.find_spec("torch")
    places = [*((spec and spec.submodule_search_locations) or ())]
    places += [str(Path(sysconfig.get_path(key), "torch")) for key in ("purelib", "platlib")]
    if TORCH:
        places = [TORCH]
    folder = next((Path(place) for place in places if Path(place, "version.py").is_file()), None)
    if folder is None:
        raise CannotBuild(f"TORCHACT_TORCH: there is no torch in {TORCH!r}" if TORCH else "torch is not installed")
    version = torch_says(folder, r"^__version__ = '((\d+)\.(\d+).*)'$")
    if version is None or (int(version[2]), int(version[3])) < (2, 10):
        raise CannotBuild(f"torch {version[1] if version else 'of unknown version'} is older than 2.10")
    if not (folder / "include" / "torch" / "csrc" / "stable" / "library.h").is_file():
        raise CannotBuild(f"torch in {folder} has no headers")
    return folder


def torch_says(folder: Path, pattern: str) -> re.Match[str] | None:
    """Return the line that fits in what torch knows about itself."""
    return re.search(pattern, (folder / "version.py").read_text(encoding="utf-8"), re.M)


def cuda_home() -> Path | None:
    """Return the folder of the CUDA toolkit that has nvcc."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    on_path = shutil.which("nvcc")
    if on_path is not None:
        homes.append(str(Path(on_path).resolve().parent.parent))
    return next((Path(home) for home in homes if home and (Path(home) / "bin" / "nvcc").exists()), None)


def wanted_cuda(torch: Path) -> Path | None:
    """Return the folder of the CUDA toolkit to build kernels with, or None for those of the CPU alone."""
    home = cuda_home() if CUDA == "1" or (CUDA == "auto" and torch_says(torch, r"^cuda\b.*= '")) else None
    if home is None and CUDA == "1":
        raise CannotBuild("there is no nvcc")
    return home


def add_what_to_compile(kernels: Extension, torch: Path, cuda: Path | None) -> None:
    """Say what the extension is compiled from, and with what: the headers of ``torch``, and the CUDA toolkit if any."""
    kernels.sources = [*SOURCES, *(X86_SOURCES if X86 else ()), *(CUDA_SOURCES if cuda else ())]
    kernels.define_macros = [("TORCH_TARGET_VERSION", STABLE_ABI), ("Py_LIMITED_API", LIMITED_API)]
    kernels.define_macros += [("TORCHACT_X86", "1")] if X86 else []
    kernels.define_macros += [("TORCHACT_CUDA", "1")] if cuda else []
    kernels.include_dirs = [str(torch / "include")]
    kernels.library_dirs = [str(torch / "lib"), *([str(cuda / "lib64")] if cuda else ())]
    kernels.libraries = ["torch_cpu", "c10", *(["cudart_static", "dl", "rt", "pthread"] if cuda else ())]


class BuildKernels(build_ext):
    """Compiles the kernels, each file with its own flags and all at once; where it cannot, it leaves them out."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.force = True  # what was built before may have been for another torch, or without CUDA

    def build_extension(self, ext: Extension) -> None:
        """Build the kernels or leave them out, and say so in one line; ``pip install -v`` shows it."""
        try:
            devices = self.build_kernels(ext)
        except Exception as error:  # a missing compiler, headers of another version, a full disk, …
            self.leave_out(ext, why(error))
        else:
            say(f"package with fused kernels for {devices}")

    def build_kernels(self, ext: Extension) -> str:
        if BUILD == "0":
            raise CannotBuild("TORCHACT_BUILD=0")
        if sys.platform == "win32":
            raise CannotBuild("they are written for GCC and Clang")
        if not HAS_LIMITED_API:
            raise CannotBuild("a Python without a global interpreter lock has no limited API")
        torch = torch_folder()
        cuda = wanted_cuda(torch)
        try:
            self.compile_and_link(ext, torch, cuda)
        except Exception as error:
            if cuda is None or CUDA == "1":
                raise
            say(f"no kernels for CUDA: {why(error)}")
            cuda = None
            self.compile_and_link(ext, torch, cuda)
        return "CPU and CUDA" if cuda else "CPU"

    def compile_and_link(self, ext: Extension, torch: Path, cuda: Path | None) -> None:
        add_what_to_compile(ext, torch, cuda)
        compile_alike = self.compiler.compile

        def compile_one(source: str, *, extra_postargs: list[str], output_dir: str, **options: Any) -> list[str]:
            if source.endswith(".cu"):
                result = Path(output_dir, source).with_suffix(".o")
                result.parent.mkdir(parents=True, exist_ok=True)
                self.spawn([*nvcc_command(), "-c", source, "-o", str(result)])
                return [str(result)]
            flags = [*extra_postargs, *FLAGS_OF_FILE.get(Path(source).name, ())]
            return compile_alike([source], extra_postargs=flags, output_dir=output_dir, **options)

        def compile_all(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return list(chain.from_iterable(pool.map(lambda source: compile_one(source, **options), sources)))

        self.compiler.compile = compile_all
        try:
            super().build_extension(ext)
        finally:
            self.compiler.compile = compile_alike

    def leave_out(self, ext: Extension, reason: str) -> None:
        if BUILD != "0" and "1" in (BUILD, CUDA):
            asked_for = "TORCHACT_BUILD=1" if BUILD == "1" else "TORCHACT_CUDA=1"
            raise SystemExit(f"torchact: {asked_for}, but the fused kernels cannot be built: {reason}")
        say(f"pure-Python package without fused kernels: {reason}")
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)  # of an earlier build
        self.extensions = self.distribution.ext_modules = []


class Wheel(bdist_wheel):
    """Names a wheel for what was built: ``cp310-abi3`` and the platform, or ``py3-none-any``."""

    def run(self) -> None:
        self.run_command("build")
        self.skip_build = True
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()


def say(what: str) -> None:
    """Print a line about what is built."""
    print(f"torchact: {what}", file=sys.stderr)


def nvcc_command() -> list[str]:
    """Return the command that compiles for all the GPUs, and for later ones when they load it.

    The kernels use nothing that the oldest GPU lacks, so all start from its code, which takes most of the time to make.
    """
    oldest = min(CUDA_ARCHITECTURES, key=int)
    codes = [f"arch=compute_{oldest},code=sm_{number}" for number in CUDA_ARCHITECTURES]
    codes.append(f"arch=compute_{oldest},code=compute_{oldest}")
    generate = [option for code in codes for option in ("-gencode", code)]
    flags = ["-O3", "-std=c++20", "-fmad=false", "--compress-mode=size", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    return [str(cuda_home() / "bin" / "nvcc"), *flags, *generate]


KERNELS = Extension(
    "torchact._kernels",
    [*SOURCES, *X86_SOURCES],  # until it is known what is there to compile them with
    depends=sorted(str(path.relative_to(HERE)) for path in (HERE / "csrc").rglob("*.h")),
    extra_compile_args=FLAGS,
    language="c++",
    py_limited_api=HAS_LIMITED_API,
)

setup(
    name="torchact-gradients",
    version=VERSION.group(1),
    description="Activations with hand-derived derivatives, and instruments that explain vanishing gradients",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the torchact authors",
    license_expression="BSD-3-Clause",
    license_files=["LICENSE"],
    packages=find_packages(include=["torchact", "torchact.*"]),
    package_data={"torchact": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=["torch>=2.10", "rich>=13", "tensorboard>=2.16"],
    extras_require={
        "experiments": EXPERIMENTS,
        "documentation": DOCUMENTATION,
        "development": EXPERIMENTS + DOCUMENTATION + DEVELOPMENT,
    },
    ext_modules=[KERNELS],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if HAS_LIMITED_API else {},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
