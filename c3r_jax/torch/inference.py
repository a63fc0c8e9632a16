"""Functions that differentiate inside, called under ``torch.inference_mode``, and trees of tensors."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Nested tuples and dicts with each tensor replaced; everything else as it is.

    Args:
      function: of one tensor.
      tree: named and other tuples, dicts, tensors.

    Examples:
      >>> map_tensors(torch.neg, ({"a": torch.ones(1)}, None))
      ({'a': tensor([-1.])}, None)
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {name: map_tensors(function, value) for name, value in tree.items()}
    if isinstance(tree, tuple):
        values = [map_tensors(function, value) for value in tree]
        return type(tree)(*values) if hasattr(tree, "_fields") else tuple(values)
    return tree


def outside_inference(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Runs a function under ``torch.no_grad`` where the caller has ``torch.inference_mode`` on.

    A counterfactual differentiates the head, which inference mode forbids, also on the tensors made in it: so it is
    left, and the function gets copies.

    Args:
      function: any function.

    Examples:
      >>> with torch.inference_mode():
      ...     outside_inference(lambda x: (x.is_inference(), torch.is_grad_enabled()))(torch.ones(1))
      (False, False)
    """

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            torch.clear_autocast_cache()  # of weights that were cast in inference mode
            args, kwargs = map_tensors(torch.clone, (args, kwargs))
            return function(*args, **kwargs)

    return call
