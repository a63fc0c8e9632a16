"""Published encoders, randomly initialised, against their libraries: names, shapes, outputs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import timm
import torch
import torchvision
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from c3r_jax.models.encoders.pretrained.architectures import ARCHITECTURES
from c3r_jax.models.encoders.pretrained.bert import BERT_SIZES
from c3r_jax.models.encoders.pretrained.encoder import PretrainedEncoder
from c3r_jax.models.encoders.pretrained.vit import VIT_SIZES
from c3r_jax.models.encoders.pretrained.weight_names import from_tensors, to_tensors
from tests.models.encoders.pretrained.cases import CASES
from tools.build_weights import torch_models, torch_outputs

pytestmark = pytest.mark.torch


def state(model):
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def models():
    return torch_models()


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients(name, models):
    model, case = models[name], CASES[name]
    tensors = state(model)
    shapes = jax.eval_shape(case.module.init, jax.random.key(0), case.inputs)["params"]
    params = from_tensors(tensors, shapes, case.names)
    expected, x = torch_outputs(model, case.inputs)
    inside = case.inputs != 0 if name == "bert" else np.ones(expected.shape[:-1], bool)
    weight = np.random.default_rng(1).normal(size=expected.shape) * inside[..., None]
    (expected * torch.from_numpy(weight).float()).sum().backward()

    def objective(params, inputs):
        output = case.module.apply({"params": params}, inputs)
        return (output * weight.astype(np.float32)).sum(), output

    wanted = (0,) if name == "bert" else (0, 1)
    gradients, output = jax.jit(jax.grad(objective, wanted, has_aux=True))(params, case.inputs)
    np.testing.assert_allclose(output[inside], expected.detach().numpy()[inside], atol=1e-4, rtol=1e-4)
    if name != "bert":
        own = x.grad.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(gradients[1], own, atol=1e-3 * np.abs(own).max())
    theirs = dict(model.named_parameters())
    compared = 0
    for key, value in to_tensors(gradients[0], case.names[-1:], tensors).items():
        if key in theirs and theirs[key].grad is not None:
            own = theirs[key].grad.numpy()
            np.testing.assert_allclose(value, own, atol=1e-3 * max(np.abs(own).max(), 1e-2), err_msg=key)
            compared += 1
    assert compared >= len(jax.tree.leaves(shapes)) / 2


def hugging_face(name):
    if name in BERT_SIZES:
        size, make, model = BERT_SIZES[name], BertConfig, BertModel
    else:
        size, make, model = VIT_SIZES[name], ViTConfig, ViTModel
    return model(
        make(
            hidden_size=size.width,
            num_hidden_layers=size.depth,
            num_attention_heads=size.num_heads,
            intermediate_size=size.mlp_dim,
        )
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_and_shapes_of_the_real_sizes(name):
    known = ARCHITECTURES[name]
    with torch.device("meta"):
        if name == "efficientnet_lite0":
            model = timm.create_model("tf_efficientnet_lite0")
        elif "resnet" in name:
            model = torchvision.models.get_model(name.removeprefix("audio_"))
            if name.startswith("audio"):
                model.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)  # as the public code of OGM-GE has it
        else:
            model = hugging_face(name)
    module = known.make(30522, False, jnp.float32)
    shape = (1, 224, 224, 1 if known.kind == "sequence" else 3)
    example = jnp.ones((1, 4), jnp.int32) if known.kind == "text" else jnp.ones(shape)
    shapes = jax.eval_shape(module.init, jax.random.key(0), example)["params"]
    # Zeros that take no memory: only names and shapes are of interest.
    tensors = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in model.state_dict().items()}
    params = from_tensors(tensors, shapes, known.names)
    assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, shapes)


def test_resnet_18_of_sound_gives_what_torchvision_does():
    """The whole encoder, of a spectrogram as CREMA-D's are: the mean over places, and every weight's gradient."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    model.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    model.fc = torch.nn.Identity()
    model.eval()
    for key, value in model.state_dict().items():
        if "bn" in key or "downsample.1" in key:
            value.copy_(torch.rand_like(value) + 0.5) if value.is_floating_point() else None
    encoder = PretrainedEncoder(4, "audio_resnet18", frozen=False)
    sound = np.random.default_rng(0).normal(size=(2, 188, 257)).astype(np.float32)
    expected = model(torch.from_numpy(sound)[:, None])
    weight = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    (expected * torch.from_numpy(weight)).sum().backward()
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), sound)["params"]
    tensors = state(model)
    params = from_tensors(tensors, shapes["backbone"], ARCHITECTURES["audio_resnet18"].names)

    def objective(params):
        output = encoder.apply({"params": {"backbone": params}}, sound, method=encoder.features)
        return (output * weight).sum(), output

    gradient, output = jax.jit(jax.grad(objective, has_aux=True))(params)
    scale = np.abs(expected.detach().numpy()).max()
    np.testing.assert_allclose(output, expected.detach().numpy(), atol=1e-4 * scale)
    ours = to_tensors(gradient, ARCHITECTURES["audio_resnet18"].names, tensors)
    compared = {key: value.grad.numpy() for key, value in model.named_parameters()}
    assert len(compared) == 60
    for key, value in compared.items():
        np.testing.assert_allclose(ours[key], value, atol=1e-3 * np.abs(value).max(), err_msg=key)


def test_pytorch_loads_what_is_written(models, tmp_path):
    from safetensors.torch import load_file

    from c3r_jax.files.tensors import write_tensors

    model, case = models["bert"], CASES["bert"]
    shapes = jax.eval_shape(case.module.init, jax.random.key(0), case.inputs)["params"]
    params = from_tensors(state(model), shapes, case.names)
    write_tensors(
        tmp_path / "a.safetensors", to_tensors(jax.tree.map(lambda x: x + 1, params), case.names, state(model))
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(load_file(tmp_path / "a.safetensors"), strict=True)
    for key, value in model.state_dict().items():
        expected = before[key] if key.startswith("pooler") else before[key] + 1
        assert torch.equal(value, expected), key
    model.load_state_dict(before)
