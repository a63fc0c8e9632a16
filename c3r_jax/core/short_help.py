"""What ``help`` shows of a public function: the names of its arguments, then what it does."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
LONGEST = 40  # characters of a default that is written out


class _Shown:
    """Stands for a default in the text alone."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class _ShortSignature(inspect.Signature):
    """A signature whose text has neither types nor long defaults; all else is as ever."""

    def __str__(self) -> str:
        shown: list[inspect.Parameter] = []
        for parameter in self.parameters.values():
            value = parameter.default
            if value is not parameter.empty and len(repr(value)) > LONGEST:
                parameter = parameter.replace(default=_Shown(f"{type(value).__name__}(...)"))
            shown.append(parameter.replace(annotation=parameter.empty))
        return str(inspect.Signature(shown))

    def format(self, **options: Any) -> str:
        """The text for :mod:`pydoc` of newer Pythons."""
        del options
        return str(self)


def short_help(function: Function) -> Function:
    """Leaves the types out of the text of a signature: with shapes they are a paragraph.

    The signature itself keeps annotations and defaults; the docstring says every shape.

    Examples:
      >>> @short_help
      ... def double(x: dict[str, tuple[int, ...]], *, times: tuple[int, ...] = tuple(range(99))) -> list[int]: ...
      >>> print(inspect.signature(double), len(inspect.signature(double).parameters["times"].default))
      (x, *, times=tuple(...)) 99
    """
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    short = _ShortSignature(parameters, return_annotation=signature.return_annotation)
    setattr(function, "__signature__", short)  # noqa: B010  (functions have no such attribute for type checkers)
    return function
