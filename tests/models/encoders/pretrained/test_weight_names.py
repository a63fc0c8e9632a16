"""Weights of PyTorch's libraries give their outputs here; names and shapes are checked both ways; nothing is lost."""

import functools
import pathlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from c3r_jax.data.text.tokenizer_files import bert_tokenizer
from c3r_jax.errors import DataError
from c3r_jax.files.tensors import read_tensors, write_tensors
from c3r_jax.models.encoders.pretrained.architectures import ARCHITECTURES
from c3r_jax.models.encoders.pretrained.bert import Bert
from c3r_jax.models.encoders.pretrained.layers import _grouped_convolution, _summed_places
from c3r_jax.models.encoders.pretrained.weight_names import from_tensors, to_tensors
from tests.models.encoders.pretrained.cases import CASES, TINY

WEIGHTS = pathlib.Path(__file__).parent / "weights"
EXPECTED = safetensors.numpy.load_file(WEIGHTS / "expected.safetensors")


@functools.cache
def shapes(name):
    case = CASES[name]
    return jax.eval_shape(case.module.init, jax.random.key(0), case.inputs)["params"]


@functools.cache
def loaded(name):
    return from_tensors(read_tensors(WEIGHTS / f"{name}.safetensors"), shapes(name), CASES[name].names)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_input_gradients_are_those_of_pytorch(name):
    case, params = CASES[name], loaded(name)

    def output(x):
        y = case.module.apply({"params": params}, x)
        return jnp.square(y).sum(), y

    if name == "bert":
        found = jax.jit(output)(case.inputs)[1]
        inside = case.inputs != 0  # what stands in the places of padding means nothing
        np.testing.assert_allclose(found[inside], EXPECTED[name][inside], atol=1e-4)
        return
    (_, found), gradient = jax.jit(jax.value_and_grad(output, has_aux=True))(case.inputs)
    np.testing.assert_allclose(found, EXPECTED[name], atol=1e-4, rtol=1e-4)
    expected = EXPECTED[f"{name}/input_gradient"]
    np.testing.assert_allclose(gradient[:1], expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_round_trip_is_exact(name, tmp_path):
    file = WEIGHTS / f"{name}.safetensors"
    source = read_tensors(file)
    write_tensors(tmp_path / file.name, to_tensors(loaded(name), CASES[name].names, source))
    again = read_tensors(tmp_path)
    assert again.keys() == source.keys()
    for key, value in source.items():
        assert again[key].dtype == value.dtype
        np.testing.assert_array_equal(again[key], value, err_msg=key)
    # Without the file they came from: what the encoder has, under the same names.
    own = to_tensors(loaded(name), CASES[name].names[-1:])
    assert set(own) <= set(source)
    assert all(np.array_equal(own[key], source[key]) for key in own)


@pytest.mark.parametrize(("size", "stride", "side"), [(3, 1, 7), (3, 2, 8), (5, 2, 9), (5, 1, 2)])
def test_both_ways_of_convolving_each_channel_agree(size, stride, side):
    rng = np.random.default_rng(size + side)
    x = rng.normal(size=(2, side, side + 1, 3)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 1, 3)).astype(np.float32)
    one, other = (way(x, kernel, stride=stride) for way in (_summed_places, _grouped_convolution))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_names_and_shapes_are_checked_both_ways():
    case, like = CASES["bert"], shapes("bert")
    source = read_tensors(WEIGHTS / "bert.safetensors")
    renamed = {f"bert.{key}": value for key, value in source.items()} | {"cls.predictions.bias": np.zeros(40)}
    jax.tree.map(np.testing.assert_array_equal, from_tensors(renamed, like, case.names), loaded("bert"))
    wrong = dict(source)
    del wrong["encoder.layer.1.output.dense.bias"]
    wrong["encoder.layer.2.output.dense.bias"] = np.zeros(24, np.float32)
    wrong["embeddings.word_embeddings.weight"] = np.zeros((41, 24), np.float32)
    with pytest.raises(DataError) as error:
        from_tensors(wrong, like, case.names, "model.bin")
    message = str(error.value)
    assert message.startswith("model.bin does not fit the encoder by Hugging Face's names")
    assert "1 tensors are missing: encoder.layer.1.output.dense.bias" in message
    assert "1 tensors have no place: encoder.layer.2.output.dense.bias" in message
    assert "embeddings.word_embeddings.weight (41, 24) instead of (40, 24)" in message
    assert message.endswith("choose the architecture of these weights.")


@pytest.mark.parametrize(
    ("name", "tensor", "shape", "advice"),
    [
        (
            "bert",
            "embeddings.word_embeddings.weight",
            (41, 24),
            "config.data.tokenizer to the tokeniser of these weights",
        ),
        ("bert", "embeddings.word_embeddings.weight", (40, 25), "choose the architecture of these weights"),
        ("bert", "embeddings.position_embeddings.weight", (17, 24), "choose the architecture of these weights"),
        ("vit", "embeddings.position_embeddings", (1, 17, 24), "config.data.image_size to .* images, such as 16"),
        ("vit", "embeddings.position_embeddings", (1, 5, 25), "choose the architecture of these weights"),
        (
            "vit",
            "embeddings.patch_embeddings.projection.weight",
            (24, 3, 8, 8),
            "choose the architecture of these weights",
        ),
    ],
)
def test_a_shape_that_depends_on_the_data_is_not_the_architectures(name, tensor, shape, advice):
    source = read_tensors(WEIGHTS / f"{name}.safetensors") | {tensor: np.zeros(shape, np.float32)}
    with pytest.raises(DataError, match=rf"1 tensors have other shapes: {tensor} .*: (set )?{advice}[^:]*\.$"):
        from_tensors(source, shapes(name), CASES[name].names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * np.nan, r"with 24 of 24 numbers that are not finite"),
        (lambda x: np.where(np.arange(24) == 3, np.inf, x), r"with 1 of 24 numbers that are not finite"),
        (lambda x: x.astype(np.float64) + 1e39, r"with 24 of 24 numbers that are not finite in float32"),
        (lambda x: (127 * x).astype(np.int8), r"in int8, expected floating point numbers"),
        (lambda x: x > 0, r"in bool, expected floating point numbers"),
    ],
)
def test_numbers_that_are_no_weights_are_refused_by_name(change, message):
    case, source, tensor = CASES["bert"], read_tensors(WEIGHTS / "bert.safetensors"), "embeddings.LayerNorm.bias"
    source[tensor] = change(source[tensor])
    with pytest.raises(DataError, match=rf"model\.bin has {tensor} {message}.*: .* the "):
        from_tensors(source, shapes("bert"), case.names, "model.bin")
    source = read_tensors(WEIGHTS / "bert.safetensors") | {"cls.predictions.bias": np.full(3, np.nan)}
    from_tensors(source, shapes("bert"), case.names)  # what the encoder does not have may be anything


def test_weights_in_bfloat16_of_jax():
    source = read_tensors(WEIGHTS / "bert.safetensors")
    half = {key: value.astype(jnp.bfloat16) for key, value in source.items()}
    found = from_tensors(half, shapes("bert"), CASES["bert"].names)["embeddings_norm"]["bias"]
    np.testing.assert_array_equal(found, half["embeddings.LayerNorm.bias"].astype(np.float32), strict=True)


def test_tokens_are_the_publishers_where_padding_is_not_zero():
    vocabulary = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]", "red", "apple"]
    tokenizer = bert_tokenizer(vocabulary)
    names, module = CASES["bert"].names, Bert(TINY, len(vocabulary), max_length=16)
    source = {**read_tensors(WEIGHTS / "bert.safetensors")}
    source["embeddings.word_embeddings.weight"] = source["embeddings.word_embeddings.weight"][:7]
    like = jax.eval_shape(module.init, jax.random.key(0), np.ones((1, 4), np.int32))["params"]
    params = from_tensors(source, like, names, padding=tokenizer.padding_row)
    ids = tokenizer.encode("red apple", 6)
    found = module.apply({"params": params}, ids[None])[0, ids != 0]
    # A free row in front: the publisher's ids, each one higher, have no padding among them.
    words = np.concatenate([np.zeros((1, TINY.width), np.float32), source["embeddings.word_embeddings.weight"]])
    free = {**params, "word_embeddings": {"embedding": words}}
    published = np.array([[vocabulary.index(piece) + 1 for piece in ("[CLS]", "red", "apple", "[SEP]")]])
    expected = module.clone(vocab_size=8).apply({"params": free}, published)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for like_source in (source, None):
        back = to_tensors(params, names, like_source, padding=tokenizer.padding_row)
        assert all(np.array_equal(back[key], source[key]) for key in back)


def test_half_precision_files_keep_their_precision():
    case, source = CASES["resnet_basic"], read_tensors(WEIGHTS / "resnet_basic.safetensors")
    half = {key: value.astype(np.float16) for key, value in source.items()}
    params = from_tensors(half, shapes("resnet_basic"), case.names)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    back = to_tensors(params, case.names, half)
    assert all(back[key].dtype == np.float16 and np.array_equal(back[key], half[key]) for key in half)


def test_statistics_of_batch_norms_get_no_gradient():
    case, params = CASES["resnet_basic"], loaded("resnet_basic")
    gradient = jax.jit(jax.grad(lambda p: jnp.square(case.module.apply({"params": p}, case.inputs)).sum()))(params)
    for path, value in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.any(value) != path[-1].key.startswith("running_"), path


@pytest.mark.parametrize("name", ["resnet_bottleneck", "vit"])
def test_half_precision_computation_keeps_float32_parameters(name):
    case = CASES[name]
    module = case.module.clone(dtype=jnp.bfloat16)
    found = jax.eval_shape(lambda x: module.apply({"params": loaded(name)}, x), case.inputs)
    assert found.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes(name))} == {np.dtype(np.float32)}


PARAMETERS = {  # millions, of the encoder alone, as its publishers count them
    "resnet18": 11.177,
    "resnet50": 23.508,
    "resnet152": 58.144,
    "efficientnet_lite0": 3.371,
    "vit_s16": 21.666,
    "bert_tiny": 4.369,
    "minilm_l6": 22.565,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_sizes(name):
    known = ARCHITECTURES[name]
    module = known.make(30522, False, jnp.float32)
    example = jnp.ones((1, 4), jnp.int32) if known.kind == "text" else jnp.ones((1, 224, 224, 3))
    output, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), example)
    assert output.shape[-1] == known.width
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    count = sum(leaf.size for path, leaf in leaves if not path[-1].key.startswith("running_"))
    assert round(count / 1e6, 3) == PARAMETERS[name]


def test_files_folders_and_wheels(tmp_path):
    tensors = {"a": np.arange(3, dtype=np.float32)}
    write_tensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not read, for there is safetensors")
    with zipfile.ZipFile(tmp_path / "some-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(tmp_path / "model.safetensors", "some/model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors", tmp_path / "some-1.0-py3-none-any.whl"):
        np.testing.assert_array_equal(read_tensors(path)["a"], tensors["a"])
    write_tensors(tmp_path / "second.safetensors", tensors)
    with pytest.raises(DataError, match="2 files that end in .safetensors .*: name the one meant"):
        read_tensors(tmp_path)
    with pytest.raises(DataError, match="missing cannot be read .*: check the path"):
        read_tensors(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no file that ends in .safetensors, .pth, .pt, .bin"):
        read_tensors(tmp_path / "empty")
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-4])
    with pytest.raises(DataError, match="no whole safetensors file"):
        read_tensors(tmp_path / "model.safetensors")
