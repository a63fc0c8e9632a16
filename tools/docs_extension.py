"""How the documentation site renders docstrings: formulas as MathML, cross-references as code.

An extension of Griffe, which mkdocs.yml names. Formulas are rendered while the site is built: a page needs no script.
"""

import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

_MATH = re.compile(r"^([ \t]*)\.\. math::[ \t]*(.*(?:\n(?=\1[ \t]+\S).*)*)", re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|data|attr|mod):`~?([^`]+)`")


def to_markdown(docstring: str) -> str:
    r"""Returns a docstring with ``.. math::`` blocks as MathML and roles such as :func:`f` as code.

    Example:
      >>> to_markdown("See :func:`f`.\n\n.. math:: x^2")[:60]
      'See `f`.\n\n<div class="formula"><math xmlns="http://www.w3.org'
    """
    return _ROLE.sub(r"`\1`", _MATH.sub(_formula, docstring))


def _formula(found: re.Match[str]) -> str:
    tex = " ".join(textwrap.dedent(found[2]).split()).replace(r"\argmax", r"\operatorname{argmax}")
    if "&" in tex and r"\begin" not in tex:
        tex = rf"\begin{{aligned}} {tex} \end{{aligned}}"
    return f'{found[1]}<div class="formula">{convert(tex, display="block")}</div>'


class Docstrings(griffe.Extension):
    """Changes every docstring before it is rendered."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """See Griffe: called for each object that was loaded."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
