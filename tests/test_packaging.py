"""The package builds where there is no torch, and says in one line what it is."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import torchact

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Build a wheel with a torch in the way that must not be imported; return the wheel and what was printed."""
    folder = tmp_path_factory.mktemp("wheel")
    trap = folder / "trap" / "torch"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise RuntimeError('setup.py imported torch')")
    source = folder / "source"
    shutil.copytree(ROOT / "torchact", source / "torchact", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "csrc", source / "csrc")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "--no-index"]
    result = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(source)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(trap.parent)},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel, result.stdout + result.stderr


def test_the_wheel_is_pure_python_under_the_distributions_own_name(build):
    assert build[0].name == f"torchact_gradients-{torchact.__version__}-py3-none-any.whl"


def test_it_says_so_in_one_line(build):
    assert build[1].count("torchact: pure-Python package") == 1


def test_the_wheel_holds_the_package_and_nothing_else(build):
    names = zipfile.ZipFile(build[0]).namelist()
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "torchact").rglob("*.py")}
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == package | {"torchact/py.typed"}


def test_the_metadata_names_licence_python_and_torch(build):
    archive = zipfile.ZipFile(build[0])
    (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    metadata = archive.read(name).decode()
    for line in ("License-Expression: BSD-3-Clause", "Requires-Python: >=3.10", "Requires-Dist: torch>=2.10"):
        assert line in metadata.splitlines()


def test_importing_torchact_is_light():
    """TensorBoard, matplotlib and pandas are imported when they are needed, not before."""
    heavy = ("tensorboard", "matplotlib", "pandas", "sklearn", "torch.utils.tensorboard")
    code = f"import sys, torchact; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
