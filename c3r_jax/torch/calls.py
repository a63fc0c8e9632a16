"""The caller's predict and fuse as this folder calls them: several times a step, on values of their own, checked."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from c3r_jax.torch.autocast import as_outside

# What PyTorch says where something has no second derivative, or no gradient at all.
NOT_DIFFERENTIABLE = (
    "derivative for",
    "double backward",
    "differentiate twice",
    "not require grad",
    "been used in the",
)


@dataclasses.dataclass(frozen=True)
class _Call:
    """A function of tensors that works on copies of them, so that what it changes in place is nobody else's."""

    name: str
    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Tensor:
        rows = arguments[-1].shape[0]
        found = self.function(*map(_copied, arguments))
        if not isinstance(found, Tensor):
            raise ValueError(f"{self.name} is a {type(found).__name__}, but one tensor of {rows} rows was expected.")
        if not found.ndim or found.shape[0] != rows:
            raise ValueError(
                f"{self.name} has shape {tuple(found.shape)}, but {rows} rows were expected, one for each example."
            )
        return found


def predict_of(predict: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """``predict`` under the autocast that is on now, on copies of z.

    Its first layer may then work in place, as ``nn.ReLU(inplace=True)`` does: the same z is needed again.

    Args:
      predict: z (B, d) -> outputs (B, K).
      device: of z.

    Raises:
      ValueError: when it is called, and returns no tensor or another number of rows.

    Examples:
      >>> z = torch.tensor([[-1.0, 2.0]])
      >>> predict_of(torch.nn.ReLU(inplace=True), z.device)(z), z
      (tensor([[0., 2.]]), tensor([[-1.,  2.]]))
    """
    return predict if isinstance(predict, _Call) else _Call("predict(z)", as_outside(predict, device))


def fuse_of(fuse: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """``fuse`` under the autocast that is on now, with a dict and values of its own in each call.

    Args:
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d).
      device: of the features.

    Raises:
      ValueError: when it is called, and returns no tensor or another number of rows.

    Examples:
      >>> h, present = {"a": torch.ones(1, 2)}, torch.tensor([[True]])
      >>> fuse_of(lambda h, present: h.pop("a").add_(1), torch.device("cpu"))(h, present), h
      (tensor([[2., 2.]]), {'a': tensor([[1., 1.]])})
    """
    return fuse if isinstance(fuse, _Call) else _Call("fuse(features, present)", as_outside(fuse, device))


def _copied(argument: Any) -> Any:
    if isinstance(argument, Mapping):
        return {name: value.clone() for name, value in argument.items()}
    return argument.clone()


@contextlib.contextmanager
def differentiating() -> Iterator[None]:
    """Says what to do where predict has no second derivative; every other error stays what it is.

    Raises:
      ValueError: in place of PyTorch's RuntimeError about a derivative.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in NOT_DIFFERENTIABLE):
            raise
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"predict was expected to be differentiable twice and fuse once, but PyTorch says: {reason}; run "
            "attention in predict with torch.nn.attention.sdpa_kernel(SDPBackend.MATH), do not compile it, "
            "detach nothing in it, or use counterfactual='instrumented' or 'mean'."
        ) from error
