"""Tiny encoders of every architecture, with an input of each; tools/build_weights.py makes the same with PyTorch."""

from typing import NamedTuple

import flax.linen as nn
import numpy as np

from c3r_jax.models.encoders.pretrained.architectures import BERT_NAMES, COUNTERS, RESNET_NAMES, VIT_NAMES, timm_table
from c3r_jax.models.encoders.pretrained.bert import Bert, TransformerSize
from c3r_jax.models.encoders.pretrained.efficientnet import EfficientNetLite, Stage
from c3r_jax.models.encoders.pretrained.resnet import ResNet, ResNetSize
from c3r_jax.models.encoders.pretrained.vit import ViT
from c3r_jax.models.encoders.pretrained.weight_names import Names

TINY = TransformerSize(width=24, depth=2, num_heads=4, mlp_dim=24)
STAGES = (Stage(1, 3, 1, 1, 8), Stage(2, 5, 2, 6, 8), Stage(1, 3, 2, 6, 12))
VOCAB, LENGTH = 40, 12
IMAGES = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
IDS = np.where(np.arange(LENGTH) < np.array([[12], [7], [1]]), np.arange(1, 3 * LENGTH + 1).reshape(3, -1), 0)


class Case(NamedTuple):
    """An encoder, its sources' names, its input."""

    module: nn.Module
    names: tuple[Names, ...]
    inputs: np.ndarray


CASES = {
    "bert": Case(Bert(TINY, VOCAB, max_length=16), BERT_NAMES, IDS.astype(np.int32)),
    "vit": Case(ViT(TINY, patch=4), VIT_NAMES, IMAGES[:, :8, :8]),
    "resnet_basic": Case(ResNet(ResNetSize((1, 1), bottleneck=False, channels=4)), RESNET_NAMES, IMAGES),
    "resnet_bottleneck": Case(ResNet(ResNetSize((2, 1), bottleneck=True, channels=4)), RESNET_NAMES, IMAGES),
    "efficientnet": Case(
        EfficientNetLite(STAGES, stem=8, head=24),
        (Names("timm", timm_table(STAGES), left_out=COUNTERS + r"|^classifier\."),),
        IMAGES[:, :31, :30],
    ),
    "audio": Case(ResNet(ResNetSize((1, 1), bottleneck=False, channels=4)), RESNET_NAMES, IMAGES[:, :, :21, :1]),
}
