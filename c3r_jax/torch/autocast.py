"""Mixed precision: the model's functions run as the caller's autocast says, the algebra between them does not."""

from collections.abc import Callable
from typing import Any

import torch


def without_autocast(device: torch.device) -> torch.autocast:
    """A context in which moments, solves and losses keep the precision of their tensors."""
    return torch.autocast(device.type, enabled=False)


def as_outside(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """The function under the autocast that is on now, wherever it is called later.

    Args:
      function: ``predict`` or ``fuse``.
      device: of the features.

    Examples:
      >>> with torch.autocast("cpu", torch.bfloat16):
      ...     product = as_outside(lambda x: (x @ x).dtype, torch.device("cpu"))
      ...     with without_autocast(torch.device("cpu")):
      ...         print(product(torch.eye(2)))
      torch.bfloat16
    """
    if not torch.is_autocast_enabled(device.type):
        return function
    dtype = torch.get_autocast_dtype(device.type)

    def run(*arguments: Any) -> Any:
        with torch.autocast(device.type, dtype):
            return function(*arguments)

    return run
