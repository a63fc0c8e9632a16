"""Smaller learning rates for published encoders, decaying from their last layers to their first."""

import re
from collections.abc import Iterable
from typing import Any

import jax
import optax

BACKBONE = "backbone"  # the module of PretrainedEncoder that takes published weights
# BERT's and ViT's layer_3, EfficientNet's block_3, ResNet's layer2_1.
_BLOCK = re.compile(r"(?:layer|block)(\d*)_(\d+)$")
_LAST = ("norm", "head", "head_norm")  # modules after the last block


def depths(names: Iterable[str]) -> dict[str, int]:
    """Depth of each part of a published encoder: 1 to K for blocks, 0 for parts before them, K for parts after them.

    Args:
      names: names of the encoder's parts.

    Examples:
      >>> depths(["conv1", "layer1_0", "layer1_1", "layer2_0"])
      {'conv1': 0, 'layer1_0': 1, 'layer1_1': 2, 'layer2_0': 3}
    """
    names = list(names)
    numbers = {name: match.groups() for name in names if (match := _BLOCK.match(name))}
    order = sorted(numbers, key=lambda name: (int(numbers[name][0] or 0), int(numbers[name][1])))
    blocks = {name: number for number, name in enumerate(order, start=1)}
    return {name: blocks.get(name, len(blocks) if name in _LAST else 0) for name in names}


def scaled_backbones(scale: float, decay: float) -> optax.GradientTransformation:
    """Multiplies the updates of block k of K of a published encoder by ``scale * decay**(K - k)``.

    It comes last in a chain, so that weight decay is scaled as well. Embeddings and stems are block 0; parts after the
    last block count as part of it.

    Args:
      scale: factor for every published encoder.
      decay: factor from a block to the one before.

    References:
      J. Howard and S. Ruder, Universal language model fine-tuning for text classification, 2018 (discriminative rates).
      H. Bao et al., BEiT: BERT pre-training of image transformers, 2022 (layer-wise decay).
    """

    def visit(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {name: scaled(value) if name == BACKBONE else visit(value) for name, value in tree.items()}

    def scaled(backbone: dict[str, Any]) -> dict[str, Any]:
        depth = depths(backbone)
        last = max(depth.values())
        factors = {name: scale * decay ** (last - depth[name]) for name in backbone}
        return {name: jax.tree.map(lambda x, f=factors[name]: f * x, part) for name, part in backbone.items()}

    return optax.stateless(lambda updates, _: visit(updates))
