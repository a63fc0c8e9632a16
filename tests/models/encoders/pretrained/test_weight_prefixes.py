"""Names as trainers, wrappers and older libraries write them give the same parameters as the publisher's own."""

import jax
import numpy as np
import pytest

from c3r_jax.errors import DataError
from c3r_jax.files.tensors import read_tensors
from c3r_jax.models.encoders.pretrained.weight_names import from_tensors, to_tensors
from tests.models.encoders.pretrained.cases import CASES
from tests.models.encoders.pretrained.test_weight_names import WEIGHTS, loaded, shapes

RNG = np.random.default_rng(0)


def source(name):
    return read_tensors(WEIGHTS / f"{name}.safetensors")


def check(name, tensors):
    found = from_tensors(tensors, shapes(name), CASES[name].names, "model.bin")
    jax.tree.map(np.testing.assert_array_equal, found, loaded(name))
    again = to_tensors(found, CASES[name].names, tensors)
    assert again.keys() == tensors.keys()
    assert all(np.array_equal(again[key], value) for key, value in tensors.items())


@pytest.mark.parametrize("name", ["bert", "vit", "resnet_basic", "efficientnet"])
@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "backbone.",
        "model.",
        "encoder.",
        "module.model.",
        "module.encoder_q.",
        "bert.",
        "_orig_mod.",
        "model.image_encoder.0.",
    ],
)
def test_any_prefix(name, prefix):
    check(name, {prefix + key: value for key, value in source(name).items()})


@pytest.mark.parametrize("prefix", ["module.", "net.backbone.", "student."])
def test_other_parts_of_a_larger_model_are_left_alone(prefix):
    rest = {"head.0.weight": RNG.normal(size=(3, 4)), "text.embeddings.weight": RNG.normal(size=(5, 2))}
    check("resnet_basic", {**{prefix + key: value for key, value in source("resnet_basic").items()}, **rest})


def old(key):
    return key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize("prefix", ["", "bert.", "module.bert."])
def test_the_first_published_names_of_norms(prefix):
    """As in the file of bert-base-uncased, with its heads."""
    tensors = {prefix + old(key): value for key, value in source("bert").items()}
    heads = ["pooler.dense.weight", "pooler.dense.bias"] if prefix else []
    tensors |= {prefix + head: np.zeros(3) for head in heads}
    tensors |= {
        "cls.predictions.bias": np.zeros(40),
        "cls.predictions.transform.LayerNorm.gamma": np.zeros(24),
        "cls.predictions.transform.LayerNorm.beta": np.zeros(24),
        "cls.seq_relationship.weight": np.zeros((2, 24)),
    }
    check("bert", tensors)


@pytest.mark.parametrize("word", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrappers_within_names(word):
    def wrapped(key):
        first, _, rest = key.partition(".")
        return f"{word}.{first}.{word}.{rest}"

    check("resnet_bottleneck", {wrapped(key): value for key, value in source("resnet_bottleneck").items()})


@pytest.mark.parametrize("two", [("encoder_q.", "encoder_k."), ("", "teacher."), ("student.", "teacher.")])
def test_an_encoder_that_is_there_twice_is_refused_unless_both_are_equal(two):
    tensors = source("resnet_basic")
    both = {prefix + key: value + (prefix == two[1]) for prefix in two for key, value in tensors.items()}
    with pytest.raises(DataError, match=rf"model\.bin has the encoder more than once.* {two[1]}\*.*save the one"):
        check("resnet_basic", both)
    if "" not in two:
        check("resnet_basic", {prefix + key: value for prefix in two for key, value in tensors.items()})


@pytest.mark.parametrize("other", ["vit", "efficientnet", "bert"])
def test_another_architecture_is_refused_by_names(other):
    with pytest.raises(DataError, match=r"model\.bin (has none of the encoder's tensors|does not fit .*are missing)"):
        check("resnet_basic", {f"module.{key}": value for key, value in source(other).items()})


@pytest.mark.parametrize("prefix", ["module.", "bert.", "a.b."])
def test_a_deeper_encoder_under_a_prefix_is_refused(prefix):
    tensors = {prefix + key: value for key, value in source("bert").items()}
    tensors[f"{prefix}encoder.layer.2.output.dense.bias"] = np.zeros(24, np.float32)
    with pytest.raises(DataError, match=rf"1 tensors have no place: {prefix}encoder\.layer\.2\.output"):
        check("bert", tensors)
