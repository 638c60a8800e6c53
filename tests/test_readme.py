"""The README holds what it promises: its snippets run, its table is the catalogue's, its picture exists."""

import re
import runpy
from pathlib import Path

import pytest

from torchact import catalogue, definition

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.strip().splitlines()[-1][:40])
def test_every_snippet_runs(snippet, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    for key in [key for key, record in catalogue.CATALOGUE.items() if record.origin]:
        definition.undefine(key)
    if "print" in snippet or "report" in snippet:
        assert capsys.readouterr().out


def test_there_is_a_snippet_for_each_way_in():
    code = "\n".join(SNIPPETS)
    for name in (
        "torchact.ReLU()",
        "functional.leaky_relu",
        "torchact.convert",
        "torchact.define",
        "GradientMonitor",
        "diagnose",
        "theory",
    ):
        assert name in code


def test_the_table_is_the_catalogues():
    docs = runpy.run_path(str(ROOT / "docs" / "readme_table.py"))
    assert docs["with_table"](README) == README, "run `python docs/readme_table.py`"


def test_linked_files_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).is_file(), link


def test_the_experiments_that_it_names_exist():
    from experiments.__main__ import EXPERIMENTS

    named = set(re.findall(r"-m experiments ([\w-]+)", README))
    modules = {settings.__module__.rpartition(".")[2].replace("_", "-") for settings in EXPERIMENTS}
    assert named == modules
