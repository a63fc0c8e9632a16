"""Functions that stay eager inside of ``torch.compile``."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def eager(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Keeps a function, and all that it calls, out of programs that ``torch.compile`` makes.

    Compiled functions cannot be differentiated twice, and a counterfactual differentiates the head inside of the loss.
    A compiled step then has the encoders before the call in one program.

    Args:
      function: any function.

    Examples:
      >>> eager(lambda x: 2 * x)(torch.ones(1))
      tensor([2.])
    """
    # Made at the first call: the import of the compiler takes as long as that of PyTorch.
    outside: Any = None

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        nonlocal outside
        if outside is None:
            outside = torch.compiler.disable(function)
        return outside(*args, **kwargs)

    return call
