"""A loop over layers: the numbers and the parameters of layers in a row."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.models.encoders.image import ImageEncoder
from c3r_jax.models.encoders.pretrained.bert import Bert, TransformerSize
from c3r_jax.models.encoders.pretrained.vit import ViT
from c3r_jax.models.encoders.sequence import SequenceEncoder
from c3r_jax.models.encoders.text import TextEncoder
from configs.pretrain_vitb_bertb import get_config

SIZE = TransformerSize(8, 2, 2, 16)
RNG = np.random.default_rng(0)
IDS = jnp.asarray(RNG.integers(0, 20, (4, 6)), jnp.int32)
PIXELS = jnp.asarray(RNG.integers(0, 256, (4, 8, 8, 3)), jnp.uint8)
ENCODERS = {
    "image, mixer": (lambda **ways: ImageEncoder(4, width=8, depth=2, **ways), PIXELS),
    "text": (lambda **ways: TextEncoder(4, 20, width=8, depth=2, num_heads=2, **ways), IDS),
    "sequence": (
        lambda **ways: SequenceEncoder(4, patch=2, width=8, depth=2, num_heads=2, **ways),
        jnp.asarray(RNG.normal(size=(4, 8, 3)) * (np.arange(8) < 6)[:, None], jnp.float32),
    ),
    "bert": (lambda **ways: Bert(SIZE, 20, max_length=6, **ways), IDS),
    "vit": (lambda **ways: ViT(SIZE, patch=4, **ways), PIXELS.astype(jnp.float32)),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_loop_is_the_same(name):
    """Weights of either model are those of the other, name by name, and so are outputs and gradients."""
    make, inputs = ENCODERS[name]
    row, loop = make(), make(scan_layers=True, remat=True)
    shapes = [jax.eval_shape(model.init, jax.random.key(0), inputs)["params"] for model in (row, loop)]
    chex.assert_trees_all_equal_shapes_and_dtypes(*shapes)
    params = jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32) / 4, shapes[0])

    def value(model):
        def loss(params):
            out = model.apply({"params": params}, inputs)
            return (jnp.sin(out) * jnp.linspace(-1, 1, out.size).reshape(out.shape)).sum(), out

        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    chex.assert_trees_all_close(value(loop)(params), value(row)(params), rtol=1e-4, atol=1e-5)


def test_one_layer_is_compiled():
    """The program does not grow with the depth, but for the stacking of parameters."""
    sizes = []
    for depth in (3, 6):
        model = TextEncoder(4, 20, width=8, depth=depth, num_heads=2, scan_layers=True)
        params = jax.eval_shape(model.init, jax.random.key(0), IDS)["params"]
        text = jax.jit(lambda p, model=model: model.apply({"params": p}, IDS)).lower(params).as_text()
        sizes.append(text.count("dot_general"))
    assert sizes[0] == sizes[1]


def test_the_full_size_configuration_loops():
    assert get_config().model.scan_layers
