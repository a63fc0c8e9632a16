"""Builds twin networks from settings and a data set, or from values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from c3r_jax.core.config import C3RConfig
from c3r_jax.errors import ConfigError
from c3r_jax.models.encoders.features import FeatureEncoder
from c3r_jax.models.encoders.image import ImageEncoder
from c3r_jax.models.encoders.sequence import SequenceEncoder
from c3r_jax.models.encoders.text import TextEncoder
from c3r_jax.models.encoders.unet import UNetEncoder
from c3r_jax.models.encoders.video import VideoEncoder
from c3r_jax.models.encoders.volume import VolumeEncoder
from c3r_jax.models.fusion.decisions import Confidence, Decision, DecisionFusion, Evidential, Late
from c3r_jax.models.fusion.representations import (
    Bottleneck,
    ConcatAbsent,
    CrossAttention,
    Gated,
    MaskedMean,
    OfficialFusion,
)
from c3r_jax.models.pair_head import PairHead
from c3r_jax.models.twin import TwinNetwork
from c3r_jax.settings.fields import Part, values_of
from c3r_jax.settings.model import ModelSettings, VolumeSettings
from c3r_jax.tasks.base import TaskSpec
from c3r_jax.tasks.classification import CLASSIFICATION
from c3r_jax.tasks.contrastive import ContrastiveSpec

PUBLISHED = ("image", "text", "sequence")  # configuration parts that can name a published encoder
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_model(
    settings: ModelSettings,
    kinds: Mapping[str, str],
    num_classes: int,
    vocab_size: int,
    c3r: C3RConfig,
    task: TaskSpec = CLASSIFICATION,
    *,
    intervener: nn.Module | None = None,
) -> TwinNetwork:
    """Builds the twin network of ``config.model`` for any modalities, each encoded by its kind.

    Args:
      settings: the network's settings.
      kinds: {modality: one of the kinds of ``kind_of``}, in the order of ``present``.
      num_classes: K.
      vocab_size: number of token ids of the text modalities.
      c3r: the instrument's settings.
      task: determines the head's outputs and whether encoders return maps; contrastive tasks get a pair head.
      intervener: a module that the method trains along with the network, see :class:`TwinNetwork`.

    Returns:
      An unbound :class:`TwinNetwork`.

    Raises:
      ConfigError: on an unknown kind, network, dtype or fusion, or a fusion that does not fit the task.
    """
    if settings.dtype not in DTYPES:
        raise ConfigError(f"config.model.dtype is {settings.dtype!r}: expected one of {', '.join(DTYPES)}.")
    dtype = DTYPES[settings.dtype]
    encoders = {name: _encoder(settings, name, kind, vocab_size, task.dense, dtype) for name, kind in kinds.items()}
    if settings.fusion in ("evidential", "confidence") and not task.one_class_per_example:
        raise ConfigError(
            f"config.model.fusion is {settings.fusion!r}, which needs classes, but config.task is {task.name!r}: "
            "use 'late'."
        )
    if settings.fusion == "late" and task.contrastive:
        raise ConfigError(f"config.model.fusion is 'late', but config.task is {task.name!r}, which makes no decisions.")
    num_outputs = task.num_outputs(num_classes)
    fusion = build_fusion(
        settings.fusion,
        settings.dim,
        num_outputs,
        heads=settings.fusion_heads,
        tokens=settings.fusion_tokens,
        depth=settings.fusion_depth,
        dtype=dtype,
    )
    head = _head(task, fusion, num_outputs, dtype, settings.first_scale)
    return make_network(encoders, fusion, head, c3r, dim=settings.dim, intervener=intervener)


def build_feature_model(
    modalities: Sequence[str],
    num_classes: int,
    c3r: C3RConfig,
    *,
    dim: int,
    hidden: Sequence[int],
    fusion: str = "mean",
    official: bool = False,
    intervener: nn.Module | None = None,
) -> TwinNetwork:
    """Builds the twin network for classification of feature vectors in memory.

    Args:
      modalities: their names.
      num_classes: K.
      c3r: the instrument's settings.
      dim: width of the representations.
      hidden: widths of the encoders' hidden layers.
      fusion: a value of ``config.model.fusion``.
      official: fuse as the public PyTorch code does instead.
      intervener: as for :func:`build_model`.

    Raises:
      ConfigError: on an unknown fusion.
    """
    encoders = {name: FeatureEncoder(dim, tuple(hidden)) for name in modalities}
    fused = OfficialFusion(dim) if official else build_fusion(fusion, dim, num_classes)
    return make_network(encoders, fused, head_of(fused, num_classes), c3r, dim=dim, intervener=intervener)


def make_network(
    encoders: Mapping[str, nn.Module],
    fusion: nn.Module,
    head: nn.Module,
    c3r: C3RConfig,
    *,
    dim: int,
    intervener: nn.Module | None = None,
) -> TwinNetwork:
    """Joins the parts of a twin network, see :class:`TwinNetwork`; ``dim`` is the width of the representations."""
    return TwinNetwork(encoders, fusion, head, c3r, dim, intervener)


def _head(task: TaskSpec, fusion: nn.Module, num_outputs: int, dtype: Any, first_scale: float) -> nn.Module:
    if isinstance(task, ContrastiveSpec):
        return PairHead(first_scale or task.first_scale, task.first_offset)
    return head_of(fusion, num_outputs, dtype)


def head_of(fusion: nn.Module, num_outputs: int, dtype: Any = jnp.float32) -> nn.Module:
    """A linear head; the identity for fusions of decisions."""
    return Decision() if isinstance(fusion, DecisionFusion) else nn.Dense(num_outputs, dtype=dtype)


def _encoder(settings: ModelSettings, name: str, kind: str, vocab_size: int, dense: bool, dtype: Any) -> nn.Module:
    """The encoder of a modality, chosen by its kind."""
    shared: dict[str, Any] = {"dim": settings.dim, "dtype": dtype}
    volumes: dict[str, Any] = shared | {"remat": settings.remat}
    blocks: dict[str, Any] = volumes | {"scan_layers": settings.scan_layers}
    part: Any = getattr(settings, "image" if kind == "video" else kind, None)
    if getattr(part, "pretrained", ""):
        from c3r_jax.models.encoders.pretrained.encoder import PretrainedEncoder  # many modules, seldom needed

        sizes = {"width": part.width, "frozen": part.frozen, "dropout": part.dropout, "scratch": not part.weights}
        return PretrainedEncoder(architecture=part.pretrained, vocab_size=vocab_size, **sizes, **blocks)
    builders: dict[str, Callable[[], nn.Module]] = {
        "image": lambda: ImageEncoder(**_leaves(settings.image), **blocks),
        "video": lambda: VideoEncoder(ImageEncoder(**_leaves(settings.image), **blocks)),
        "text": lambda: TextEncoder(vocab_size=vocab_size, **_leaves(settings.text), **blocks),
        "sequence": lambda: SequenceEncoder(**_leaves(settings.sequence), **blocks),
        "volume": lambda: _volume_encoder(settings.volume, dense, volumes),
        "features": lambda: FeatureEncoder(**_leaves(settings.features), **shared),
    }
    if kind not in builders:
        *others, last = map(repr, builders)
        raise ConfigError(f"modality {name!r} is of kind {kind!r}: expected {', '.join(others)} or {last}.")
    return builders[kind]()


def _volume_encoder(settings: VolumeSettings, dense: bool, shared: dict[str, Any]) -> nn.Module:
    leaves = _leaves(settings)
    network, stride = leaves.pop("network"), leaves.pop("stride")
    if network == "dilated":
        return VolumeEncoder(dense=dense, stride=stride, **leaves, **shared)
    return UNetEncoder(dense=dense, **leaves, **shared)


def _leaves(settings: Part) -> dict[str, Any]:
    """The leaves of an encoder's part, which are named like the encoder's attributes."""
    return {name: x for name, x in values_of(settings).items() if name not in ("pretrained", "weights", "frozen")}


def build_fusion(
    name: str, dim: int, num_outputs: int, *, heads: int = 4, tokens: int = 4, depth: int = 2, dtype: Any = jnp.float32
) -> nn.Module:
    """The fusion with a name, as in ``config.model.fusion``.

    Args:
      name: the fusion's name.
      dim: width of the representations, and of z unless decisions are fused.
      num_outputs: K, outputs of the head.
      heads: attention heads.
      tokens: tokens of the bottleneck.
      depth: layers of the bottleneck.
      dtype: dtype of the computation.

    Raises:
      ConfigError: on an unknown name.
    """
    builders = _fusions(dim, num_outputs, heads, tokens, depth, dtype)
    if name not in builders:
        raise ConfigError(f"config.model.fusion is {name!r}: expected one of {', '.join(builders)}.")
    return builders[name]()


def _fusions(
    dim: int, num_outputs: int, heads: int, tokens: int, depth: int, dtype: Any
) -> dict[str, Callable[[], nn.Module]]:
    return {
        "mean": MaskedMean,
        "concat": lambda: ConcatAbsent(dim, dtype),
        "gated": lambda: Gated(dim, dtype),
        "cross_attention": lambda: CrossAttention(dim, heads, dtype),
        "bottleneck": lambda: Bottleneck(dim, heads, tokens, depth, dtype),
        "late": lambda: Late(num_outputs, dtype),
        "evidential": lambda: Evidential(num_outputs, dtype),
        "confidence": lambda: Confidence(num_outputs, dtype),
    }


FUSIONS = tuple(_fusions(1, 1, 1, 1, 1, jnp.float32))  # their names
