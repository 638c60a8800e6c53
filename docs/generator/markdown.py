"""Pieces of MyST Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

#: How the catalogue names a paper by number, and where that paper is.
_PAPERS = {r"arXiv:(\d{4}\.\d{4,5})": r"https://arxiv.org/abs/\1", r"doi:(10\.[^\s,;)]+)": r"https://doi.org/\1"}


def table(rows: Iterable[Sequence[str]], *options: str) -> str:
    """Return a table; unlike one of pipes, its cells may hold formulas with vertical bars."""
    lines = [
        f"{'* -' if position == 0 else '  -'} {cell}".rstrip() for row in rows for position, cell in enumerate(row)
    ]
    return "\n".join(["```{list-table}", *(f":{option}" for option in options), "", *lines, "```"])


def linked(source: str) -> str:
    """Return the text of a source, in which numbers of papers are links."""
    for number, address in _PAPERS.items():
        source = re.sub(number, rf"[\g<0>]({address})", source)
    return source


def moved(markdown: str, beside: Collection[str]) -> str:
    """Return a Markdown file of the repository's root with its links as they are from a folder in ``docs``.

    Args:
        markdown: the text of the file.
        beside: the files of the root that the folder holds too.
    """

    def relinked(match: re.Match[str]) -> str:
        target = match[1]
        if target in beside or target.startswith("#") or "://" in target:
            return match[0]
        return f"](../{target.removeprefix('docs/')})" if target.startswith("docs/") else f"](../../{target})"

    return re.sub(r"\]\(([^)\s]+)\)", relinked, markdown)
