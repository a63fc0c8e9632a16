"""From a configuration and a data set to a twin network."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from c3r_jax.core.contrastive import CONTRASTIVE_KINDS
from c3r_jax.core.regularizer import C3RConfig
from c3r_jax.errors import ConfigError
from c3r_jax.models.blocks import Intervener
from c3r_jax.models.contrastive import PairHead
from c3r_jax.models.decision import Confidence, Decision, DecisionFusion, Evidential, Late
from c3r_jax.models.encoders import FeatureEncoder, ImageEncoder, TextEncoder
from c3r_jax.models.fusion import Bottleneck, ConcatAbsent, CrossAttention, Gated, MaskedMean
from c3r_jax.models.pretrained import PretrainedEncoder
from c3r_jax.models.spacetime import SequenceEncoder, VideoEncoder, VolumeEncoder
from c3r_jax.models.twin import TwinNetwork
from c3r_jax.models.unet import UNetEncoder

PUBLISHED = ("image", "text", "sequence")  # parts of a configuration that can name a published encoder
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_model(
    config: ConfigDict,
    kinds: Mapping[str, str],
    num_classes: int,
    vocab_size: int,
    c3r: C3RConfig,
    task: str = "classification",
    *,
    intervener: bool = False,
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
      intervener: whether the rival "casn" is trained, which needs one.

    Returns:
      An unbound :class:`TwinNetwork`.

    Raises:
      ConfigError: on an unknown kind, network, dtype or fusion, or a fusion that is not for the task.
    """
    if config.dtype not in DTYPES:
        raise ConfigError(f"config.model.dtype is {config.dtype!r}: expected one of {', '.join(DTYPES)}.")
    dtype = DTYPES[config.dtype]
    encoders = {
        name: _encoder(config, name, kind, vocab_size, task == "segmentation", dtype) for name, kind in kinds.items()
    }
    if config.fusion in ("evidential", "confidence") and task != "classification":
        raise ConfigError(
            f"config.model.fusion is {config.fusion!r}, which needs classes, but config.task is {task!r}: use 'late'."
        )
    if config.fusion == "late" and task in CONTRASTIVE_KINDS:
        raise ConfigError(f"config.model.fusion is 'late', but config.task is {task!r}, where nothing is decided.")
    num_outputs = 1 if task == "regression" else num_classes
    fusion = build_fusion(
        config.fusion,
        config.dim,
        num_outputs,
        heads=config.fusion_heads,
        tokens=config.fusion_tokens,
        depth=config.fusion_depth,
        dtype=dtype,
    )
    return TwinNetwork(
        encoders=encoders,
        fusion=fusion,
        head=_head(task, fusion, num_outputs, dtype),
        c3r=c3r,
        feature_dim=config.dim,
        intervener=Intervener() if intervener else None,
    )


def _head(task: str, fusion: nn.Module, num_outputs: int, dtype: Any) -> nn.Module:
    if task in CONTRASTIVE_KINDS:
        return PairHead(offset=-10.0 if task == "sigmoid" else 0.0)
    return head_of(fusion, num_outputs, dtype)


def head_of(fusion: nn.Module, num_outputs: int, dtype: Any = jnp.float32) -> nn.Module:
    """A linear head; none where the fusion decides."""
    return Decision() if isinstance(fusion, DecisionFusion) else nn.Dense(num_outputs, dtype=dtype)


def _encoder(config: ConfigDict, name: str, kind: str, vocab_size: int, dense: bool, dtype: Any) -> nn.Module:
    shared = {"dim": config.dim, "dtype": dtype}
    blocks = shared | {"remat": config.remat}
    part = "image" if kind == "video" else kind
    if part in PUBLISHED and config[part].pretrained:
        own = config[part]
        sizes = {name: own[name] for name in ("width", "frozen", "dropout")} | {"scratch": not own.weights}
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
        return _volume_encoder(config.volume, dense, blocks)
    if kind == "features":
        return FeatureEncoder(**_leaves(config.features), **shared)
    raise ConfigError(
        f"modality {name!r} is of kind {kind!r}: expected 'image', 'video', 'text', 'sequence', 'volume' or 'features'."
    )


def _volume_encoder(config: ConfigDict, dense: bool, shared: dict[str, Any]) -> nn.Module:
    leaves = _leaves(config)
    network, stride = leaves.pop("network"), leaves.pop("stride")
    if network == "dilated":
        return VolumeEncoder(dense=dense, stride=stride, **leaves, **shared)
    if network == "unet":
        return UNetEncoder(dense=dense, **leaves, **shared)
    raise ConfigError(f"config.model.volume.network is {network!r}: expected 'dilated' or 'unet'.")


def _leaves(config: ConfigDict) -> dict[str, Any]:
    """The leaves of an encoder's part, which are called as the encoder's attributes; lists hashable."""
    values = {name: config[name] for name in config if name not in ("pretrained", "weights", "frozen")}
    return {name: tuple(value) if isinstance(value, list | tuple) else value for name, value in values.items()}


def build_fusion(
    name: str, dim: int, num_outputs: int, *, heads: int = 4, tokens: int = 4, depth: int = 2, dtype: Any = jnp.float32
) -> nn.Module:
    """The fusion of a name that ``config.model.fusion`` may have.

    Args:
      name: which.
      dim: width of the representations, and of z unless decisions are fused.
      num_outputs: of the head, K.
      heads: of attention.
      tokens: of the bottleneck.
      depth: layers of the bottleneck.
      dtype: of the computation.

    Raises:
      ConfigError: on an unknown name.
    """
    made: dict[str, Callable[[], nn.Module]] = {
        "mean": MaskedMean,
        "concat": lambda: ConcatAbsent(dim, dtype),
        "gated": lambda: Gated(dim, dtype),
        "cross_attention": lambda: CrossAttention(dim, heads, dtype),
        "bottleneck": lambda: Bottleneck(dim, heads, tokens, depth, dtype),
        "late": lambda: Late(num_outputs, dtype),
        "evidential": lambda: Evidential(num_outputs, dtype),
        "confidence": lambda: Confidence(num_outputs, dtype),
    }
    if name not in made:
        raise ConfigError(f"config.model.fusion is {name!r}: expected one of {', '.join(made)}.")
    return made[name]()
