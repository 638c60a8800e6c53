"""How Sphinx builds the documentation: ``make docs``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torchact

project = "torchact"
author = "the torchact authors"
project_copyright = author
release = torchact.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docs.generator.mathml",
    "docs.generator.references",
    "docs.generator.writing",
]
exclude_patterns = ["_build", "generator"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"(torch|collections|pathlib|rich)\..*"),  # documented elsewhere
    # aliases in annotations
    ("py:class", r"Tensor|nn\.Module|Gate|TensorFunction|SummaryWriter|torchact\.catalogue\.Function"),
]

myst_enable_extensions = ["attrs_inline", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False  # torch's own say nothing of what is here
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"torchact {release}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
