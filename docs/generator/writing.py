"""A Sphinx extension that writes the pages of the activations before Sphinx reads its sources.

They go to ``docs/activations``, and copies of the repository's own Markdown files to ``docs/project``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from docs.generator import plots
from docs.generator.activation_index import index
from docs.generator.activation_page import page, picture
from docs.generator.curves import curve_of
from docs.generator.markdown import moved
from docs.generator.saturation import flatness, words
from torchact.catalogue import CATALOGUE

PROJECT_FILES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Have the pages written once Sphinx is set up."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir)))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(docs: Path) -> None:
    """Write what is generated into the folder of Sphinx's sources, and remove what no longer is.

    Files that are there with the same text are left alone, for Sphinx reads again what has changed.
    """
    torch.set_num_threads(1)  # tensors this small gain nothing from more
    for folder, texts in {"activations": activations(), "project": project(docs.parent)}.items():
        (docs / folder).mkdir(exist_ok=True)
        for path in (docs / folder).iterdir():
            if path.name not in texts:
                path.unlink()
        for name, text in texts.items():
            path = docs / folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")


def activations() -> dict[str, str]:
    """Return the pages and pictures of all activations, by the names of their files."""
    texts, said = {}, {}
    for activation in CATALOGUE.values():
        curve = curve_of(activation)
        found = flatness(curve)
        said[activation.key] = words(curve, found)
        texts[f"{activation.key}.md"] = page(activation, curve, said[activation.key])
        texts |= {picture(activation, theme): svg for theme, svg in plots.pictures(curve, found).items()}
    return texts | {"index.md": index(said)}


def project(root: Path) -> dict[str, str]:
    """Return the repository's own Markdown files, with their links as they are from a folder of the documentation."""
    return {name: moved((root / name).read_text(encoding="utf-8"), PROJECT_FILES) for name in PROJECT_FILES}
