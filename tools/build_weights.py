"""Makes tests/models/encoders/pretrained/weights: tiny random encoders of PyTorch libraries, with their outputs.

Needs PyTorch, transformers, torchvision and timm; the files are committed, so that parity can be tested without them:

pip install torch torchvision timm transformers safetensors
python tools/build_weights.py tests/models/encoders/pretrained/weights
"""

import functools
import pathlib
import sys
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from safetensors.numpy import save_file
from timm.models._efficientnet_builder import decode_arch_def  # pyright: ignore[reportMissingImports]
from timm.models.efficientnet import EfficientNet  # pyright: ignore[reportMissingImports]
from timm.models.resnet import BasicBlock, Bottleneck, ResNet  # pyright: ignore[reportMissingImports]
from transformers import BertConfig, BertModel, ViTConfig, ViTModel  # pyright: ignore[reportMissingImports]

from tests.models.encoders.pretrained.cases import CASES, STAGES, TINY, VOCAB

SIZES = {
    "hidden_size": TINY.width,
    "num_hidden_layers": TINY.depth,
    "num_attention_heads": TINY.num_heads,
    "intermediate_size": TINY.mlp_dim,
}


def torch_models() -> dict[str, Any]:
    """{name of a case: the same encoder in PyTorch, random everywhere (also where libraries begin with 0 and 1)}."""
    torch.manual_seed(0)
    blocks = [
        f"ds_r{s.count}_k{s.kernel}_s{s.stride}_e1_c{s.channels}"
        if s.expand == 1
        else f"ir_r{s.count}_k{s.kernel}_s{s.stride}_e{s.expand}_c{s.channels}"
        for s in STAGES
    ]
    models = {
        "bert": BertModel(BertConfig(vocab_size=VOCAB, max_position_embeddings=16, **SIZES)),
        "vit": ViTModel(ViTConfig(image_size=8, patch_size=4, **SIZES)),
        "resnet_basic": ResNet(BasicBlock, [1, 1], channels=(4, 8), num_classes=0),
        "resnet_bottleneck": ResNet(Bottleneck, [2, 1], channels=(4, 8), num_classes=0),
        "efficientnet": EfficientNet(
            decode_arch_def([[block] for block in blocks]),
            num_classes=0,
            num_features=24,
            stem_size=8,
            fix_stem=True,
            round_chs_fn=lambda channels, **_: channels,
            pad_type="same",
            act_layer=torch.nn.ReLU6,
            norm_layer=functools.partial(torch.nn.BatchNorm2d, eps=1e-3),
        ),
        "audio": ResNet(BasicBlock, [1, 1], channels=(4, 8), in_chans=1, num_classes=0),
    }
    generator = torch.Generator().manual_seed(1)
    for model in models.values():
        model.eval()
        for name, value in model.state_dict().items():
            if value.ndim == 1 and value.is_floating_point():
                noise = 0.2 * torch.randn(value.shape, generator=generator)
                value.copy_(noise if name.endswith(("bias", "mean")) else 1 + noise.abs())
    return models


def torch_outputs(model: Any, inputs: np.ndarray) -> tuple[Any, Any]:
    """The encoder's output, channels last, and its input (a leaf, if it has gradients)."""
    if inputs.ndim == 2:
        ids = torch.from_numpy(inputs).long()
        return model(ids, attention_mask=(ids != 0).long()).last_hidden_state, ids
    x = torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy()).requires_grad_()
    if isinstance(model, ViTModel):
        return model(x).last_hidden_state, x
    if isinstance(model, ResNet):  # whose own method expects four stages
        y = model.maxpool(model.act1(model.bn1(model.conv1(x))))
        return model.layer2(model.layer1(y)).permute(0, 2, 3, 1), x
    return model.forward_features(x).permute(0, 2, 3, 1), x


def main(folder: pathlib.Path) -> None:
    """Writes each encoder's weights, what they put out for the case's input, and small files of torch.save."""
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, np.ndarray] = {}
    for name, model in torch_models().items():
        state = {key: value.numpy().copy() for key, value in model.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors", metadata={"format": "pt"})
        output, x = torch_outputs(model, CASES[name].inputs)
        output.square().sum().backward()
        expected[name] = output.detach().numpy().copy()
        if x.is_floating_point():
            expected[f"{name}/input_gradient"] = x.grad[:1].numpy().transpose(0, 2, 3, 1).copy()
    save_file(expected, folder / "expected.safetensors")
    for path in folder.iterdir():
        path.chmod(0o644)
    values = torch.arange(12).reshape(3, 4)
    saved = {
        "plain": values.float(),
        "turned": values.float().t(),
        "half": values.half(),
        "bfloat": values.bfloat16(),
        "whole": values,
        "part": values[1:, 2:],
        "scalar": torch.tensor(7.5, dtype=torch.float64),
        "parameter": torch.nn.Parameter(values.float()),
    }
    torch.save(saved, folder / "saved_zip.pth")
    torch.save(torch.nn.ModuleDict({"bn": torch.nn.BatchNorm1d(3)}).state_dict(), folder / "saved_module.pth")
    torch.save(saved, folder / "saved_sequence.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
