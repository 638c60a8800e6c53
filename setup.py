"""Packaging. torch is never imported and never a build requirement: pip would fetch gigabytes to make a wheel.

The fused kernels use torch's stable ABI, of which only the headers are needed, found on disk. What decides:

- ``TORCHACT_BUILD``: ``auto`` builds them where torch's headers and a C++ compiler are there and installs pure Python
  where not; ``1`` fails where they cannot be built; ``0`` leaves them out.
- ``TORCHACT_CUDA``: ``auto`` builds those for CUDA too where nvcc and a torch with CUDA are there; ``1`` asks for nvcc
  alone; ``0`` leaves them out.
- ``TORCHACT_CUDA_ARCHITECTURES``: for which GPUs, by default ``80;90;100;120``.
- ``TORCHACT_TORCH``: the folder of the torch whose headers to use.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "torchact" / "__init__.py").read_text(encoding="utf-8"), re.M)
assert VERSION is not None, "torchact/__init__.py states no __version__"

EXPERIMENTS = ["matplotlib>=3.9", "pandas>=2.2", "scikit-learn>=1.5", "tyro>=0.9"]
DOCUMENTATION = ["furo", "math-core", "matplotlib>=3.9", "myst-parser>=4", "sphinx>=8.1"]
DEVELOPMENT = [
    "expecttest",  # torch.testing._internal needs it and hypothesis
    "hypothesis",
    "import-linter",
    "mypy",
    "pytest>=8",
    "pytest-xdist",
    "ruff",
    "setuptools>=77",
    "transformers>=5",  # whose models the tests convert
    "wheel",
]

BUILD = os.environ.get("TORCHACT_BUILD", "auto")
CUDA = os.environ.get("TORCHACT_CUDA", "auto")
CUDA_ARCHITECTURES = os.environ.get("TORCHACT_CUDA_ARCHITECTURES", "80;90;100;120").replace(",", ";").split(";")
for name, value in (("TORCHACT_BUILD", BUILD), ("TORCHACT_CUDA", CUDA)):
    if value not in ("auto", "0", "1"):
        raise SystemExit(f"{name}: expected auto, 0 or 1, got {value!r}")

STABLE_ABI = "0x020a000000000000"  # what torch 2.10 has, and every later one
LIMITED_API = "0x030a0000"  # what Python 3.10 has, and every later one
X86 = platform.machine().lower() in ("x86_64", "amd64")
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


def torch_folder() -> Path:
    """Return the folder of the installed torch; in pip's isolated environment, that of the interpreter outside."""
    spec = importlib.util.find_spec("torch")
    places = [os.environ.get("TORCHACT_TORCH"), *((spec and spec.submodule_search_locations) or ())]
    places += [Path(sysconfig.get_path(key)) / "torch" for key in ("purelib", "platlib")]
    found = [Path(place) for place in places if place and (Path(place) / "version.py").is_file()]
    for folder in found:
        if (folder / "include" / "torch" / "csrc" / "stable" / "library.h").is_file():
            return folder
    raise CannotBuild("torch 2.10 or newer is not installed" if not found else f"{found[0]} has no stable headers")


def torch_has_cuda(folder: Path) -> bool:
    """Whether this torch was built for CUDA."""
    return re.search(r"^cuda\b.*= '", (folder / "version.py").read_text(encoding="utf-8"), re.M) is not None


def cuda_home() -> Path | None:
    """Return the folder of the CUDA toolkit that has nvcc."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    on_path = shutil.which("nvcc")
    if on_path is not None:
        homes.append(str(Path(on_path).resolve().parent.parent))
    return next((Path(home) for home in homes if home and (Path(home) / "bin" / "nvcc").exists()), None)


def kernels() -> Iterator[Extension]:
    """Yield the extension with the fused kernels."""
    torch = torch_folder()
    sources = ["csrc/library.cpp", "csrc/accelerate.cpp", "csrc/cpu/run.cpp", "csrc/cpu/baseline.cpp"]
    macros = [("TORCH_TARGET_VERSION", STABLE_ABI), ("Py_LIMITED_API", LIMITED_API)]
    libraries, folders = ["torch_cpu", "c10"], [torch / "lib"]
    if X86:
        sources += ["csrc/cpu/avx2.cpp", "csrc/cpu/avx512.cpp"]
        macros.append(("TORCHACT_X86", "1"))
    home = cuda_home() if CUDA == "1" or (CUDA == "auto" and torch_has_cuda(torch)) else None
    if home is not None:
        sources += ["csrc/cuda/run.cpp", "csrc/cuda/kernels.cu"]
        macros.append(("TORCHACT_CUDA", "1"))
        libraries += ["cudart_static", "dl", "rt", "pthread"]
        folders.append(home / "lib64")
    elif CUDA == "1":
        raise CannotBuild("TORCHACT_CUDA=1, but there is no nvcc")
    yield Extension(
        "torchact._kernels",
        sources,
        depends=sorted(str(path) for path in Path("csrc").rglob("*.h")),
        include_dirs=[str(torch / "include")],
        library_dirs=[str(folder) for folder in folders],
        libraries=libraries,
        define_macros=macros,
        extra_compile_args=FLAGS,
        py_limited_api=True,
    )


def extensions() -> list[Extension]:
    """Return what is to be compiled: the kernels, or nothing."""
    if BUILD == "0":
        return skipped("TORCHACT_BUILD=0")
    try:
        return list(kernels())
    except CannotBuild as reason:
        return skipped(str(reason))


def skipped(reason: str) -> list[Extension]:
    """Say in one line why there are no kernels, or fail where they were asked for."""
    if BUILD == "1":
        raise SystemExit(f"torchact: TORCHACT_BUILD=1, but the fused kernels cannot be built: {reason}")
    print(f"torchact: pure-Python package without fused kernels: {reason}", file=sys.stderr)
    return []


class BuildKernels(build_ext):
    """Compiles each file with its own flags, CUDA sources with nvcc, and goes on without kernels where it fails."""

    def build_extensions(self) -> None:
        compile_one = self.compiler._compile

        def compile_with_its_flags(
            obj: str, src: str, ext: str, cc_args: list[str], extra: list[str], pp_opts: list[str]
        ) -> None:
            if ext == ".cu":
                self.spawn([*nvcc_command(), "-c", src, "-o", obj])
            else:
                compile_one(obj, src, ext, cc_args, [*extra, *FLAGS_OF_FILE.get(Path(src).name, ())], pp_opts)

        self.compiler._compile = compile_with_its_flags
        self.compiler.src_extensions.append(".cu")
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:  # a missing compiler, headers of another version, a full disk, …
            skipped(f"{type(error).__name__}: {error}")
            self.extensions = []
            self.distribution.ext_modules = []


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


EXTENSIONS = extensions()

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
    ext_modules=EXTENSIONS,
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if EXTENSIONS else {},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
