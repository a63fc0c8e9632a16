"""Published encoders, randomly initialised, against their libraries: names, shapes, outputs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import timm
import torch
import torchvision
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from c3r_jax.interop import from_tensors, to_tensors
from c3r_jax.models.pretrained import ARCHITECTURES
from c3r_jax.models.pretrained.bert import BERT_SIZES
from c3r_jax.models.pretrained.vit import VIT_SIZES
from tests.interop.cases import CASES
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
        elif name.startswith("resnet"):
            model = torchvision.models.get_model(name)
        else:
            model = hugging_face(name)
    module = known.make(30522, False, jnp.float32)
    example = jnp.ones((1, 4), jnp.int32) if known.kind == "text" else jnp.ones((1, 224, 224, 3))
    shapes = jax.eval_shape(module.init, jax.random.key(0), example)["params"]
    # Zeros that take no memory: only names and shapes are of interest.
    tensors = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in model.state_dict().items()}
    params = from_tensors(tensors, shapes, known.names)
    assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, shapes)


def test_pytorch_loads_what_is_written(models, tmp_path):
    from safetensors.torch import load_file

    from c3r_jax.interop import write_tensors

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
