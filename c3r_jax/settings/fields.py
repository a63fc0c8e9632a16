"""Declares a part of a configuration: each leaf has a default, one line of meaning, and bounds.

A part is a frozen dataclass whose fields are declared by :func:`setting` and :func:`part`. It checks its values when
it is built, so that every part that exists is valid.
"""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

from c3r_jax.errors import ConfigError

# Names of the leaves' types in messages and lists.
KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", tuple: "a tuple"}
ELEMENTS = {int: "whole numbers", float: "numbers", str: "texts"}


class Bounds(NamedTuple):
    """The values that a leaf may have, within its default's type.

    Attributes:
      choices: all allowed values; empty: any.
      least: the smallest number.
      most: the largest number.
      above: every number is larger than this.
      below: every number is smaller than this.
      off: whether 0 turns something off.
    """

    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    off: bool = False

    def hold(self, value: Any) -> bool:
        """Whether a value of the right type is within the bounds; bounded numbers must be finite."""
        if self.choices:
            return value in self.choices
        if (self.least, self.most, self.above, self.below) == (None,) * 4:
            return True
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def text(self, name: str, kind: str) -> str:
        """The expected values, in words; empty without bounds.

        Args:
          name: the leaf's name; its last word stands for the value where both ends are bounded.
          kind: one of :data:`KINDS`.

        Examples:
          >>> Bounds(least=0, below=1, off=True).text("ema_decay", "a number")
          '0 (off) <= decay < 1'
          >>> Bounds(least=1).text("steps", "a whole number")
          'a whole number of at least 1'
        """
        if self.choices:
            *others, last = map(repr, self.choices)
            return f"{', '.join(others)} or {last}"
        low, high = _first(self.least, self.above), _first(self.most, self.below)
        if (self.least, self.most) == (0, 1):
            return "a share between 0 and 1"
        if low is not None and high is not None:
            ends = " (off) <=" if self.off else " <=" if self.least is not None else " <"
            return f"{low:g}{ends} {name.split('_')[-1]} {'<=' if self.most is not None else '<'} {high:g}"
        if low is None:
            return ""
        if self.off:
            return f"0 (off) or a positive {kind.removeprefix('a ')}"
        if self.above is not None:
            return f"a positive {kind.removeprefix('a ')}" if low == 0 else f"{kind} above {low:g}"
        return f"{kind} of at least {low:g}" if kind == KINDS[int] else f"{kind} >= {low:g}"


FREE = Bounds()


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def setting(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    off: bool = False,
) -> Any:
    """A leaf, as a field of a dataclass.

    Args:
      default: its value if a configuration does not set it; its type is the leaf's type.
      meaning: one line.
      choices: see :class:`Bounds`, also for the arguments below.
      least: the smallest number.
      most: the largest number.
      above: every number is larger.
      below: every number is smaller.
      off: whether 0 turns something off.

    Examples:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Demo(Part, place="demo"):
      ...     rate: float = setting(0.1, "Share of rows.", least=0, most=1)
      >>> Demo(rate=2.0)
      Traceback (most recent call last):
      ...
      c3r_jax.errors.ConfigError: config.demo.rate is 2.0: expected a share between 0 and 1.
    """
    bounds = Bounds(choices, least, most, above, below, off)
    return dataclasses.field(default=default, metadata={"meaning": meaning, "bounds": bounds})


def part(kind: Any) -> Any:
    """A part within a part, as a field of a dataclass; ``kind`` is its dataclass."""
    return dataclasses.field(default_factory=kind)


@dataclasses.dataclass(frozen=True)
class Part:
    """Base class of all parts. ``class Demo(Part, place="demo")`` holds the leaves ``config.demo.*``.

    Raises:
      ConfigError: naming a leaf whose value differs from its default in type, or is out of bounds.
    """

    place: ClassVar[str] = ""

    def __init_subclass__(cls, place: str = "", **more: Any):
        super().__init_subclass__(**more)
        cls.place = place

    def __post_init__(self) -> None:
        values = vars(self)
        for field in fields_of(type(self)):
            if "bounds" in field.metadata:
                name = f"{self.place}.{field.name}".lstrip(".")
                check(name, values[field.name], field.default, field.metadata["bounds"])
                _check_elements(name, values[field.name], field.type)


AnyPart = TypeVar("AnyPart", bound=Part)


def check(name: str, value: Any, default: Any, bounds: Bounds = FREE) -> None:
    """Refuses a leaf's value that differs from its default in type, or is out of bounds.

    Args:
      name: the leaf's name, with its parts.
      value: the value to check; an integer may stand for a float.
      default: the leaf's default.
      bounds: the leaf's bounds.

    Raises:
      ConfigError: naming the leaf, its value and what was expected.
    """
    kind, leaf = KINDS[type(default)], name.rpartition(".")[2]
    accepted = (int, float) if isinstance(default, float) else type(default)
    fits = isinstance(value, accepted) and isinstance(value, bool) == isinstance(default, bool)
    if not fits or not bounds.hold(value):
        raise ConfigError(f"config.{name} is {value!r}: expected {bounds.text(leaf, kind) or kind}.")


def _check_elements(name: str, value: Any, annotated: Any) -> None:
    """Refuses a tuple whose elements are not of the TYPE in ``tuple[TYPE, ...]``."""
    if not isinstance(value, tuple):
        return
    kind = typing.get_args(annotated)[0]
    accepted = (int, float) if kind is float else kind
    if any(not isinstance(x, accepted) or isinstance(x, bool) for x in value):
        raise ConfigError(f"config.{name} is {value!r}: expected a tuple of {ELEMENTS[kind]}.")


def fields_of(kind: Any) -> tuple[Any, ...]:
    """The fields of a dataclass, for types that a type checker does not know to be one."""
    return dataclasses.fields(kind)


def defaults(kind: type[Part]) -> dict[str, Any]:
    """The default of every leaf of a part, nested like its parts.

    Examples:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Demo(Part, place="demo"):
      ...     rate: float = setting(0.1, "Share of rows.")
      >>> defaults(Demo)
      {'rate': 0.1}
    """
    values = {}
    for field in fields_of(kind):
        inner = inner_part(field)
        if inner is not None:
            values[field.name] = defaults(inner)
        elif "bounds" in field.metadata:
            values[field.name] = field.default
    return values


def values_of(settings: Part) -> dict[str, Any]:
    """The values of a part's own leaves, by name, for a function or class that takes all of them."""
    return {field.name: getattr(settings, field.name) for field in fields_of(type(settings))}


def inner_part(field: Any) -> type[Part] | None:
    """The dataclass of a field that is a part itself; None for a leaf."""
    factory = field.default_factory
    return factory if isinstance(factory, type) and issubclass(factory, Part) else None


def read(kind: type[AnyPart], values: Mapping[str, Any]) -> AnyPart:
    """Builds a part from a mapping, nested like :func:`defaults`; lists become tuples, as JSON has no tuples.

    Args:
      kind: the part's dataclass.
      values: values of its leaves; missing leaves take their default.

    Raises:
      ConfigError: on an unknown leaf, or a value that cannot be used.

    Examples:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Demo(Part, place="demo"):
      ...     widths: tuple[int, ...] = setting((8,), "Widths of the layers.")
      >>> read(Demo, {"widths": [4, 2]}).widths
      (4, 2)
    """
    known = {field.name: field for field in fields_of(kind)}
    refuse_unknown(kind.place, values, known)
    fields = {}
    for name in values:
        inner = inner_part(known[name])
        fields[name] = as_tuple(values[name]) if inner is None else read(inner, values[name])
    return kind(**fields)


def refuse_unknown(place: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuses leaves that a part does not have.

    Raises:
      ConfigError: naming the first unknown leaf.
    """
    unknown = sorted(set(values) - set(known))
    if unknown:
        name = f"{place}.{unknown[0]}".lstrip(".")
        raise ConfigError(f"config.{name} is unknown: expected one of {', '.join(known)}.")


def as_tuple(value: Any) -> Any:
    """Lists, also nested ones, as tuples; everything else unchanged."""
    return tuple(map(as_tuple, value)) if isinstance(value, (list, tuple)) else value
