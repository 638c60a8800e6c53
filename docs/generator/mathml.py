"""A Sphinx extension that turns formulas into MathML while the pages are built: reading them needs no script."""

from __future__ import annotations

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

_logger = logging.getLogger(__name__)
_converter = LatexToMathML(fancy_error=False)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the renderer under the name that ``html_math_renderer`` takes."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def _block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{_mathml(node, block=True)}</div>\n')
    raise nodes.SkipNode


def _mathml(node: nodes.math | nodes.math_block, *, block: bool) -> str:
    latex = node.astext()
    try:
        return _converter.convert_with_local_state(latex, displaystyle=block)
    except LatexError as error:
        _logger.warning("no MathML for %s: %s", latex, error, location=node)
        return ""
