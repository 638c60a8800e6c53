"""A Sphinx extension for docstrings.

In them |x| is a magnitude, an attribute's comment is text and no more, and what is torch's is linked to its own pages.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata

_TORCH = "https://docs.pytorch.org/docs/stable/generated/{}.html"
_DEFINED_IN = re.compile(r"^torch\.nn\.modules\.\w+\.")  # modules are documented as torch.nn.Linear, and so on
_BEFORE_NAPOLEON, _AFTER_NAPOLEON = 400, 600
_LITERAL = re.compile(r"(`[^`]+`|\.\. math::.*|>>>.*)")
_MAGNITUDE = re.compile(r"\|([^|\s][^|]*)\|")
_comments: dict[str, list[str]] = {}


def setup(app: Sphinx) -> ExtensionMetadata:
    """Connect all three."""
    app.connect("autodoc-process-docstring", _before, _BEFORE_NAPOLEON)
    app.connect("autodoc-process-docstring", _after, _AFTER_NAPOLEON)
    app.connect("missing-reference", _link_to_torch)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _before(app: Sphinx, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Escape the bars of magnitudes, and keep the comments of attributes as they are."""
    lines[:] = map(_with_escaped_bars, lines)
    if what in ("attribute", "data", "property"):
        _comments[name] = lines.copy()


def _after(app: Sphinx, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Put back the comments, of which napoleon takes all before the first colon for a type."""
    lines[:] = _comments.pop(name, lines)


def _with_escaped_bars(line: str) -> str:
    """Return a line in which |x| is no reference to a substitution."""
    pieces = _LITERAL.split(line)
    pieces[::2] = [_MAGNITUDE.sub(r"\\|\1\\|", text) for text in pieces[::2]]
    return "".join(pieces)


def _link_to_torch(
    app: Sphinx, environment: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.reference | None:
    """Return a link to the page that torch has for each of its functions and modules."""
    target = _DEFINED_IN.sub("torch.nn.", node["reftarget"])
    if not target.startswith("torch.nn.") and not (target.startswith("torch.") and node["reftype"] == "func"):
        return None
    return nodes.reference("", "", text, refuri=_TORCH.format(target), internal=False)
