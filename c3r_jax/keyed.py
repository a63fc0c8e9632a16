"""Arguments of functions that remember their results: two are the same argument if their keys are equal."""

import dataclasses
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Keyed(Generic[T]):
    """A value that may have no hash, known by all that a result depends on.

    Examples:
      >>> Keyed("a", [1]) == Keyed("a", [2]), len({Keyed("a", [1]), Keyed("b", [1])})
      (True, 2)
    """

    key: str
    value: T = dataclasses.field(compare=False)
