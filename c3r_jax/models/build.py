"""From a configuration and a data set to a twin network."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from c3r_jax.core.contrastive import CONTRASTIVE_KINDS
from c3r_jax.core.regularizer import C3RConfig
from c3r_jax.errors import ConfigError
from c3r_jax.models.contrastive import PairHead
from c3r_jax.models.encoders import FeatureEncoder, ImageEncoder, TextEncoder
from c3r_jax.models.fusion import ConcatAbsent, CrossAttention, MaskedMean
from c3r_jax.models.pretrained import PretrainedEncoder
from c3r_jax.models.spacetime import SequenceEncoder, VideoEncoder, VolumeEncoder
from c3r_jax.models.twin import TwinNetwork

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_model(
    config: ConfigDict,
    kinds: Mapping[str, str],
    num_classes: int,
    vocab_size: int,
    c3r: C3RConfig,
    task: str = "classification",
) -> TwinNetwork:
    """Builds the twin network of ``config.model`` for any modalities, each encoded by its kind.

    Args:
      config: the ``model`` part of a configuration.
      kinds: {modality: one of the kinds of ``kind_of``}, in the order of ``present``.
      num_classes: K.
      vocab_size: token ids of the text modalities.
      c3r: the instrument's settings.
      task: of the labels: a regression's head gives one number, encoders of a segmentation give maps; or a contrastive
        one, whose head compares.

    Returns:
      An unbound :class:`TwinNetwork`.

    Raises:
      ConfigError: on an unknown kind, dtype or fusion.
    """
    if config.dtype not in DTYPES:
        raise ConfigError(f"config.model.dtype is {config.dtype!r}: expected one of {', '.join(DTYPES)}.")
    dtype = DTYPES[config.dtype]
    encoders = {
        name: _encoder(config, name, kind, vocab_size, task == "segmentation", dtype) for name, kind in kinds.items()
    }
    return TwinNetwork(
        encoders=encoders,
        fusion=_fusion(config, dtype),
        head=_head(task, num_classes, dtype),
        c3r=c3r,
        feature_dim=config.dim,
    )


def _head(task: str, num_classes: int, dtype: Any) -> nn.Module:
    if task in CONTRASTIVE_KINDS:
        return PairHead(offset=-10.0 if task == "sigmoid" else 0.0)
    return nn.Dense(1 if task == "regression" else num_classes, dtype=dtype)


def _encoder(config: ConfigDict, name: str, kind: str, vocab_size: int, dense: bool, dtype: Any) -> nn.Module:
    shared = {"dim": config.dim, "dtype": dtype}
    blocks = shared | {"remat": config.remat}
    if kind in ("image", "text") and config[kind].pretrained:
        own = config[kind]
        sizes = {name: own[name] for name in ("width", "frozen", "dropout")}
        return PretrainedEncoder(architecture=own.pretrained, vocab_size=vocab_size, **sizes, **blocks)
    if kind == "image":
        return ImageEncoder(**_leaves(config.image), **blocks)
    if kind == "video":
        return VideoEncoder(ImageEncoder(**_leaves(config.image), **blocks))
    if kind == "text":
        return TextEncoder(vocab_size=vocab_size, **_leaves(config.text), **blocks)
    if kind == "sequence":
        return SequenceEncoder(**_leaves(config.sequence), **blocks)
    if kind == "volume":
        return VolumeEncoder(dense=dense, **_leaves(config.volume), **blocks)
    if kind == "features":
        return FeatureEncoder(**_leaves(config.features), **shared)
    raise ConfigError(
        f"modality {name!r} is of kind {kind!r}: expected 'image', 'video', 'text', 'sequence', 'volume' or 'features'."
    )


def _leaves(config: ConfigDict) -> dict[str, Any]:
    """The leaves of an encoder's part, which are called as the encoder's attributes; lists hashable."""
    values = {name: config[name] for name in config if name not in ("pretrained", "weights", "frozen")}
    return {name: tuple(value) if isinstance(value, list | tuple) else value for name, value in values.items()}


def _fusion(config: ConfigDict, dtype: Any) -> nn.Module:
    if config.fusion == "mean":
        return MaskedMean()
    if config.fusion == "concat":
        return ConcatAbsent(dim=config.dim, dtype=dtype)
    if config.fusion == "cross_attention":
        return CrossAttention(dim=config.dim, num_heads=config.fusion_heads, dtype=dtype)
    raise ConfigError(f"config.model.fusion is {config.fusion!r}: expected 'mean', 'concat' or 'cross_attention'.")
