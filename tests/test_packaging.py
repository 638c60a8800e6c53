"""The package builds with fused kernels and without, says in one line what it is, and runs where it is installed."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
import setuptools
import torch

import torchact
from tests.compilers import COMPILER, TOOLKIT, unoptimised
from torchact import kernels

ROOT = Path(__file__).parent.parent
OUTSIDE = Path(torch.__file__).parents[1]  # the folder that torch is installed in
PURE, WITH_KERNELS = "torchact: pure-Python package without fused kernels", "torchact: package with fused kernels"

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")


def run(*command, where=None, **environment):
    """Run a program with no setting of ours but these."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TORCHACT_")}
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=where,
        env=inherited | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
    )


def copy_source(folder):
    """Copy what a package is built from, as a checkout has it: nothing that was built before."""
    built = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("torchact", "csrc"):
        shutil.copytree(ROOT / name, folder / name, ignore=built)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)


def build(folder, **environment):
    """Build a wheel where importing torch fails; return how that went."""
    trap = folder / "trap" / "torch"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise RuntimeError('setup.py imported torch')")
    copy_source(folder / "source")
    options = ("-v", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    command = (sys.executable, "-m", "pip", "wheel", *options, folder / "source")
    return run(*command, PYTHONPATH=str(trap.parent), **environment)


class Built(NamedTuple):
    wheel: Path
    said: list[str]  # the lines that begin with our name
    warnings: list[str]  # what compilers say of our sources


def built(folder, **environment):
    """Build a wheel; return it, and what setup.py said."""
    result = build(folder, **environment)
    printed = result.stdout + result.stderr
    assert result.returncode == 0, printed
    (wheel,) = folder.glob("*.whl")
    return Built(wheel, said(printed), re.findall(r"^.*csrc/.*[:(]\d+\D.*warning.*", printed, flags=re.M))


def said(printed):
    return re.findall(r"^ *(torchact: .*)", printed, flags=re.M)


@pytest.fixture(scope="module")
def pure(tmp_path_factory):
    return built(tmp_path_factory.mktemp("pure"), TORCHACT_BUILD="0")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """For CUDA too, where nvcc is: against any torch, and loaded by one without CUDA."""
    folder = tmp_path_factory.mktemp("compiled")
    return built(folder, TORCHACT_BUILD="1", **unoptimised(folder))


def contents(wheel):
    """Return the files of the package that a wheel holds."""
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def package():
    return {str(path.relative_to(ROOT)) for path in (ROOT / "torchact").rglob("*.py")} | {"torchact/py.typed"}


def name_with(tag):
    return f"torchact_gradients-{torchact.__version__}-{tag}.whl"


# ---- without kernels


def test_without_kernels_the_wheel_is_pure_python_under_the_distributions_own_name(pure):
    assert pure.wheel.name == name_with("py3-none-any")


def test_it_says_so_in_one_line(pure):
    assert pure.said == [f"{PURE}: TORCHACT_BUILD=0"]


def test_the_pure_wheel_holds_the_package_and_nothing_else(pure):
    assert contents(pure.wheel) == package()


def test_the_metadata_names_licence_python_and_torch(pure):
    archive = zipfile.ZipFile(pure.wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    metadata = archive.read(name).decode()
    for line in ("License-Expression: BSD-3-Clause", "Requires-Python: >=3.10", "Requires-Dist: torch>=2.10"):
        assert line in metadata.splitlines()


def test_without_a_compiler_the_wheel_is_pure_and_one_line_says_why(tmp_path):
    wheel, (line,), _ = built(tmp_path, CXX=str(tmp_path / "no-compiler"))
    assert wheel.name == name_with("py3-none-any")
    assert contents(wheel) == package()
    assert re.fullmatch(rf"{PURE}: CompileError: .*no-compiler.*", line)


def test_kernels_that_were_asked_for_and_cannot_be_compiled_are_an_error(tmp_path):
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho what the compiler says >&2\nexit 1\n")
    compiler.chmod(0o755)
    result = build(tmp_path, CXX=str(compiler), TORCHACT_BUILD="1")
    assert result.returncode != 0
    printed = result.stdout + result.stderr
    assert "what the compiler says" in printed
    assert f"torchact: TORCHACT_BUILD=1, but the fused kernels cannot be built: {compiler} failed" in printed
    assert not list(tmp_path.glob("*.whl"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Return a Python that has setuptools and no torch, and a copy of the source beside it."""
    folder = tmp_path_factory.mktemp("bare")
    python = fresh_environment(folder)
    outside = Path(setuptools.__file__).parents[1]
    for path in (outside / "_distutils_hack", *outside.glob("setuptools*")):
        (site_packages(python) / path.name).symlink_to(path)
    copy_source(folder / "source")
    return python, folder / "source"


def setup(bare, *command, **environment):
    python, source = bare
    return run(python, "setup.py", "--quiet", *command, where=source, **environment)


def test_where_there_is_no_torch_the_package_is_pure_and_one_line_says_why(bare, tmp_path):
    result = setup(bare, "bdist_wheel", "--dist-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    assert said(result.stderr) == [f"{PURE}: torch is not installed"]
    assert [path.name for path in tmp_path.iterdir()] == [name_with("py3-none-any")]


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("'2.9.1+cu130'", r"torch 2\.9\.1\+cu130 is older than 2\.10"),
        ("'2.13.0'", "torch in .* has no headers"),
        (None, "TORCHACT_TORCH: there is no torch in '.*'"),
    ],
)
def test_what_is_wrong_with_a_torch_is_said(bare, tmp_path, version, reason):
    if version is not None:
        (tmp_path / "version.py").write_text(f"__version__ = {version}\n")
    result = setup(bare, "build_ext", TORCHACT_BUILD="1", TORCHACT_TORCH=str(tmp_path))
    assert result.returncode != 0
    asked = "torchact: TORCHACT_BUILD=1, but the fused kernels cannot be built"
    assert re.fullmatch(f"{asked}: {reason}\n", result.stderr)


@pytest.mark.parametrize("name", ["TORCHACT_BUILD", "TORCHACT_CUDA"])
def test_settings_that_mean_nothing_are_refused(bare, name):
    result = setup(bare, "--version", **{name: "yes"})
    assert result.returncode != 0
    assert result.stderr == f"{name}: expected auto, 0 or 1, got 'yes'\n"


def test_a_source_distribution_holds_all_that_is_compiled_and_tested(bare, tmp_path):
    shutil.copytree(ROOT / "tests", bare[1] / "tests", dirs_exist_ok=True)
    result = setup(bare, "sdist", "--dist-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    (archive,) = tmp_path.iterdir()
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    for folder in ("csrc", "torchact", "tests"):
        files = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.*") if path.is_file()}
        files = {path for path in files if path.suffix in (".py", ".h", ".cpp", ".cu")}
        assert not {path for path in files if not (unpacked / path).is_file()}


# ---- with kernels


@needs_compiler
def test_one_wheel_serves_every_later_python_and_torch(compiled):
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert compiled.wheel.name == name_with(f"cp310-abi3-{platform}")


@needs_compiler
def test_what_was_built_is_said_in_one_line(compiled):
    assert compiled.said == [f"{WITH_KERNELS} for CPU" + " and CUDA" * (TOOLKIT is not None)]


@needs_compiler
def test_it_is_compiled_without_a_warning(compiled):
    assert compiled.warnings == []


@needs_compiler
def test_the_compiled_wheel_holds_the_package_the_kernels_and_nothing_else(compiled):
    assert contents(compiled.wheel) == package() | {"torchact/_kernels.abi3.so"}


def test_kernels_that_were_built_here_are_loaded():
    if not (Path(torchact.__file__).parent / "_kernels.abi3.so").exists():
        pytest.skip("they were not built")
    if os.environ.get("TORCHACT_KERNELS") == "0":
        pytest.skip("TORCHACT_KERNELS=0 turns them off")
    assert kernels.status().loaded, kernels.status()


# ---- installed elsewhere


def fresh_environment(folder):
    """Make an environment with nothing in it; return its Python."""
    venv.create(folder / "environment", with_pip=False)
    return folder / "environment" / "bin" / "python"


def site_packages(python):
    (folder,) = python.parents[1].glob("lib/python*/site-packages")
    return folder


def install(folder, wheel):
    """Install a wheel into a fresh environment, with torch from outside; return its Python."""
    python = fresh_environment(folder)
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check")
    result = run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel)
    assert result.returncode == 0, result.stderr
    # Folders that a .pth file adds come last, and .pth files in them, those of editable installs too, do nothing.
    (site_packages(python) / "outside.pth").write_text(f"{OUTSIDE}\n")
    return python


PROGRAM = """
import dataclasses, json, torch, torchact
from torchact import functional, kernels
x = torch.linspace(-8, 8, 1001)
leaf = x.clone().requires_grad_()
functional.silu(leaf).sum().backward()
print(json.dumps({
    "status": dataclasses.asdict(kernels.status()),
    "file": torchact.__file__,
    "value": functional.silu(x).tolist(),
    "derivative": leaf.grad.tolist(),
}))
"""


def results(python, folder, **environment):
    """Return what a small program prints there, run from an empty folder."""
    (folder / "empty").mkdir(exist_ok=True)
    result = run(python, "-W", "error", "-c", PROGRAM, where=folder / "empty", **environment)
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert Path(printed["file"]).is_relative_to(site_packages(python))
    x = torch.linspace(-8, 8, 1001).double()
    sigmoid = torch.sigmoid(x)
    for name, expected in (("value", x * sigmoid), ("derivative", sigmoid * (1 + x * (1 - sigmoid)))):
        error = (torch.tensor(printed[name], dtype=torch.float64) - expected).abs()
        assert bool((error <= 4 * torch.finfo(torch.float32).eps * expected.abs()).all()), name
    return printed


@pytest.fixture(scope="module")
def installed(compiled, tmp_path_factory):
    """Return the Python of a fresh environment that has the compiled wheel."""
    return install(tmp_path_factory.mktemp("installed"), compiled.wheel)


@needs_compiler
def test_the_kernels_run_where_the_wheel_is_installed_and_turned_off_they_give_the_same(installed, tmp_path):
    with_kernels, without = (results(installed, tmp_path, TORCHACT_KERNELS=setting) for setting in "10")
    assert (with_kernels["status"]["loaded"], with_kernels["status"]["reason"]) == (True, None)
    assert with_kernels["status"]["instruction_set"] in ("baseline", "AVX2", "AVX-512")
    assert without["status"]["loaded"] is False
    assert without["status"]["reason"] == "TORCHACT_KERNELS=0 turns them off"
    for name in ("value", "derivative"):
        one, other = torch.tensor(with_kernels[name]), torch.tensor(without[name])
        torch.testing.assert_close(one, other, rtol=4 * torch.finfo(torch.float32).eps, atol=0)


OPERATORS = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torchact import functional
from torchact.kernels import extension
print(extension.status().cuda)
dtypes = []
for autocast in (False, True):  # which the kernel would not obey
    torch.set_autocast_enabled("cuda", autocast)
    with FakeTensorMode():
        dtypes.append(functional.softmin(torch.empty(8, 64, dtype=torch.bfloat16, device="cuda"), 1).dtype)
print(*dtypes)
for name in extension.operator_names():
    if torch._C._dispatch_has_kernel_for_dispatch_key(f"torchact::{name}", "CUDA"):
        print(name)
"""


@needs_compiler
@pytest.mark.skipif(TOOLKIT is None, reason="there is no nvcc")
def test_one_library_has_the_kernels_for_both_devices(installed, tmp_path):
    result = run(installed, "-W", "error", "-c", OPERATORS, where=tmp_path)
    assert result.returncode == 0, result.stderr
    cuda, dtypes, *names = result.stdout.splitlines()
    assert cuda == "True"
    assert dtypes == "torch.bfloat16 torch.float32"
    assert {"silu", "silu_backward", "prelu", "prelu_backward", "swiglu_packed", "swiglu_packed_backward"} <= set(names)


def test_the_pure_wheel_runs_where_it_is_installed(pure, tmp_path):
    status = results(install(tmp_path, pure.wheel), tmp_path)["status"]
    assert status["loaded"] is False
    assert "not built" in status["reason"]


@needs_compiler
def test_kernels_for_another_torch_are_left_out_with_the_reason(pure, tmp_path):
    python = install(tmp_path, pure.wheel)
    source = tmp_path / "kernels.cpp"
    source.write_text(
        'extern "C" void torch_of_the_future(); extern "C" void PyInit__kernels() { torch_of_the_future(); }'
    )
    library = site_packages(python) / "torchact" / "_kernels.abi3.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, source], check=True)
    status = results(python, tmp_path)["status"]
    assert status["loaded"] is False
    assert re.fullmatch("they do not load: .*undefined symbol: torch_of_the_future", status["reason"])


# ---- everywhere


def test_importing_torchact_is_light():
    """TensorBoard, matplotlib and pandas are imported when they are needed, not before."""
    heavy = ("tensorboard", "matplotlib", "pandas", "sklearn", "torch.utils.tensorboard")
    code = f"import sys, torchact; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
