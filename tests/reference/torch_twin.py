"""The feature-vector twin network in PyTorch, and its weights as this package's parameters, both ways."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn


class TorchTwin(nn.Module):
    """An MLP encoder for each modality, the mean of what is present, a linear head.

    Args:
      widths: {modality: features of its input}.
      hidden: widths of the encoders' hidden layers.
      dim: width of the representations.
      num_classes: K.
    """

    def __init__(self, widths: Mapping[str, int], hidden: tuple[int, ...], dim: int, num_classes: int):
        super().__init__()
        self.encoders = nn.ModuleDict({name: _mlp((width, *hidden, dim)) for name, width in sorted(widths.items())})
        self.head = nn.Linear(dim, num_classes)

    def encode(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}

    def fuse(self, h: Mapping[str, torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        return masked_mean(h, present)

    def forward(self, inputs: Mapping[str, torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        return self.head(self.fuse(self.encode(inputs), present))


def masked_mean(h: Mapping[str, torch.Tensor], present: torch.Tensor) -> torch.Tensor:
    stacked = torch.stack([h[name] for name in sorted(h)], dim=1)
    return (stacked * present[..., None]).sum(1) / present.sum(1, keepdim=True).clamp(min=1)


def _mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def to_state_dict(params: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Parameters of this package's feature-vector network under the names of :class:`TorchTwin`."""
    state = {}
    for module, layers in params.items():
        if module == "head":
            _put(state, "head", layers)
            continue
        for layer, values in layers.items():
            # Dense_i is followed by a ReLU, which has a number of its own; "project" is the last.
            number = 2 * (len(layers) - 1) if layer == "project" else 2 * int(layer.removeprefix("Dense_"))
            _put(state, f"encoders.{module.removeprefix('encoders_')}.{number}", values)
    return state


def _put(state: dict[str, torch.Tensor], name: str, values: Mapping[str, Any]) -> None:
    state[f"{name}.weight"] = torch.from_numpy(np.array(values["kernel"]).T.copy())
    state[f"{name}.bias"] = torch.from_numpy(np.array(values["bias"]))


def to_params(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The inverse of :func:`to_state_dict`."""
    params: dict[str, Any] = {}
    last = {}
    for name in state:
        if name.startswith("encoders."):
            _, modality, number, _ = name.split(".")
            last[modality] = max(last.get(modality, 0), int(number))
    for name, value in state.items():
        module, part = name.rsplit(".", 1)
        kind, array = ("kernel", value.detach().numpy().T) if part == "weight" else ("bias", value.detach().numpy())
        if module == "head":
            params.setdefault("head", {})[kind] = array
            continue
        _, modality, number = module.split(".")
        layer = "project" if int(number) == last[modality] else f"Dense_{int(number) // 2}"
        params.setdefault(f"encoders_{modality}", {}).setdefault(layer, {})[kind] = array
    return params
