"""The compilers that are here, and how to have them compile soon what need not be fast."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

COMPILER = shutil.which(os.environ.get("CXX") or sysconfig.get_config_var("CXX").split()[0])


def _toolkit():
    folders = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    if nvcc := shutil.which("nvcc"):
        folders.append(str(Path(nvcc).resolve().parent.parent))
    return next((Path(folder) for folder in folders if folder and (Path(folder) / "bin" / "nvcc").exists()), None)


TOOLKIT = _toolkit()  #: the folder of the CUDA toolkit


def unoptimised(folder):
    """Return settings of ``setup.py`` by which kernels are not optimised, and those for CUDA are PTX alone."""
    _write(folder / "c++", f"command = ['{COMPILER}', *arguments, '-O0']")
    if TOOLKIT is None:
        return {"CXX": str(folder / "c++"), "TORCHACT_CUDA": "0"}
    toolkit = folder / "toolkit"
    (toolkit / "bin").mkdir(parents=True)
    (toolkit / "lib64").symlink_to(TOOLKIT / "lib64")
    _write(
        toolkit / "bin" / "nvcc",
        "slow = ('-O3', '--compress-mode=size')  # compressing takes half of the time\n"
        "arguments = [a.replace('code=sm_', 'code=compute_') for a in arguments if a not in slow]\n"
        f"command = ['{TOOLKIT}/bin/nvcc', *arguments, '--compress-mode=none', '-Xcicc', '-O0']",
    )
    architectures = {"TORCHACT_CUDA": "1", "TORCHACT_CUDA_ARCHITECTURES": "90"}
    return {"CXX": str(folder / "c++"), "CUDA_HOME": str(toolkit)} | architectures


def _write(path, command):
    """Write a program that runs a command instead, made of its arguments."""
    lines = ("import os, sys", "arguments = sys.argv[1:]", command, "os.execv(command[0], command)")
    path.write_text("\n".join((f"#!{sys.executable}", *lines, "")))
    path.chmod(0o755)
