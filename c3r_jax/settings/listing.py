"""Descriptions of the leaves of a configuration, for readers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from c3r_jax.settings.fields import KINDS, Part, fields_of, inner_part


class Leaf(NamedTuple):
    """The description of a leaf.

    Attributes:
      name: its name with its parts, e.g. "train.steps".
      default: its value if a configuration does not set it.
      meaning: one line.
      bounds: its allowed values, in words; empty: all values of its type.
    """

    name: str
    default: Any
    meaning: str
    bounds: str


def leaves(kind: type[Part], only: str = "") -> Iterator[Leaf]:
    """Every leaf of a part and of the parts within it, in order of declaration.

    Args:
      kind: the part's dataclass.
      only: one of its fields; empty: all.
    """
    for field in fields_of(kind):
        if only not in ("", field.name):
            continue
        inner = inner_part(field)
        if inner is not None:
            yield from leaves(inner)
        elif "bounds" in field.metadata:
            yield described(f"{kind.place}.{field.name}".lstrip("."), field)


def described(name: str, field: Any) -> Leaf:
    """Describes a field declared by ``setting`` as the leaf of this name."""
    bounds = field.metadata["bounds"].text(field.name, KINDS[type(field.default)])
    return Leaf(name, field.default, field.metadata["meaning"], bounds)


def titles(kind: type[Part]) -> dict[str, str]:
    """{place: first line of the docstring} of a part and of the parts within it."""
    lines = {kind.place: title_of(kind)}
    for field in fields_of(kind):
        inner = inner_part(field)
        lines |= titles(inner) if inner is not None else {}
    return lines


def title_of(kind: Any) -> str:
    """The first line of a class's docstring."""
    return (kind.__doc__ or "").partition("\n")[0]


def documented_leaves(kind: Any, place: str, without: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """The leaves of a dataclass that is not a Part: their meanings are from "Attributes:" in its docstring.

    Args:
      kind: the dataclass.
      place: the leaves' place in a configuration.
      without: names of fields that are not leaves.
    """
    described = attributes_of(kind)
    for field in fields_of(kind):
        if field.name not in without:
            meaning = described[field.name]
            yield Leaf(f"{place}.{field.name}", field.default, meaning[:1].upper() + meaning[1:], "")


def attributes_of(kind: Any) -> dict[str, str]:
    """The section "Attributes:" of a class's docstring.

    Examples:
      >>> attributes_of(Leaf)["meaning"]
      'one line.'
    """
    meanings: dict[str, str] = {}
    _, _, section = (kind.__doc__ or "").partition("Attributes:\n")
    name, indent = "", None
    for line in section.splitlines():
        if not line.strip():
            break
        depth = len(line) - len(line.lstrip())
        indent = depth if indent is None else indent
        if depth == indent:
            name, _, text = line.strip().partition(": ")
            meanings[name] = text
        else:
            meanings[name] += f" {line.strip()}"
    return meanings
