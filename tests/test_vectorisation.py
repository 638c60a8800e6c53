"""What the compiler makes of the loops over formulas: without vectors they are ten times as slow, and as right."""

import platform
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compilers import COMPILER

CSRC = Path(__file__).parent.parent / "csrc"


def is_gcc():
    if COMPILER is None or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    said = subprocess.run([COMPILER, "--version"], capture_output=True, text=True).stdout
    return "Free Software Foundation" in said


def line_of_the_loop():
    """Return the line of the one loop in which all formulas run, but for waves."""
    lines = (CSRC / "cpu" / "loops.h").read_text().splitlines()
    begin = next(i for i, line in enumerate(lines) if "void for_each(int64_t begin" in line)
    return next(i for i in range(begin, len(lines)) if lines[i].strip().startswith("for (")) + 1


@pytest.mark.skipif(not is_gcc(), reason="there is no GCC for x86, which says what it vectorised")
def test_every_loop_over_a_formula_is_vectorised_and_asks_memory_ahead(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["setup.py", "--version"])
    build = runpy.run_path(str(CSRC.parent / "setup.py"))
    flags = [*build["FLAGS"], *build["FLAGS_OF_FILE"]["avx2.cpp"], "-DTORCHACT_X86", "-fopt-info-vec-all"]
    compiled = subprocess.run(
        [COMPILER, *flags, "-S", "-o", tmp_path / "avx2.s", CSRC / "cpu" / "avx2.cpp"], capture_output=True, text=True
    )
    assert compiled.returncode == 0, compiled.stderr[-2000:]
    found = re.findall(
        rf"loops\.h:{line_of_the_loop()}:\d+: (optimized: loop vectorized|missed: couldn't)", compiled.stderr
    )
    assert found.count("optimized: loop vectorized") > 200
    assert found.count("missed: couldn't") == 0
    # GCC leaves out calls of a function that does nothing but that, unless they are inlined early.
    assert (tmp_path / "avx2.s").read_text().count("prefetch") > 1000
