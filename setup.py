"""Packaging. torch is never imported and never a build requirement: pip would fetch gigabytes to make a wheel."""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

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


class BuildPython(build_py):
    """Says what kind of package this is; ``pip install -v`` shows it."""

    def run(self) -> None:
        super().run()
        print("torchact: pure-Python package; this version has no fused kernels to build", file=sys.stderr)


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
    cmdclass={"build_py": BuildPython},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
