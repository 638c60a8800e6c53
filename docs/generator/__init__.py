"""What Sphinx runs to build the documentation: the pages that come from the catalogue, and formulas as MathML.

``writing``, ``mathml`` and ``references`` are Sphinx extensions. An activation becomes a curve (``curves``):
``saturation`` finds where it has no slope, ``plots`` draws its picture and ``activation_page`` writes its page.
"""
