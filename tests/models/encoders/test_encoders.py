"""Encoders: shapes, padding, dropout by example, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.data.text.tokenizers import ByteTokenizer
from c3r_jax.models.encoders.blocks import ExampleDropout, patches
from c3r_jax.models.encoders.features import FeatureEncoder
from c3r_jax.models.encoders.image import ImageEncoder
from c3r_jax.models.encoders.text import TextEncoder, hashed_ngrams

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
IDS = np.array([[5, 6, 7, 0, 0, 0], [5, 6, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.int32)


@pytest.mark.parametrize("block", ["mixer", "transformer"])
def test_image_encoder_sees_every_pixel(block):
    encoder = ImageEncoder(dim=5, patch=8, width=8, depth=1, block=block, num_heads=2)
    variables = encoder.init(jax.random.key(0), IMAGES)
    assert encoder.apply(variables, IMAGES).shape == (3, 5)

    def total(pixels):
        # Through the same path as uint8 images, but differentiable: one step per grey level.
        return jnp.square(encoder.apply(variables, jnp.asarray(pixels))).sum()

    base = total(IMAGES)
    for row, column in ((0, 0), (7, 8), (15, 15)):
        changed = IMAGES.copy()
        changed[0, row, column] ^= 255
        assert abs(total(changed) - base) > 1e-6


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("orders", [(), (2, 3)])
def test_text_padding_changes_nothing(depth, orders):
    encoder = TextEncoder(dim=5, vocab_size=10, width=8, depth=depth, orders=orders, buckets=32, num_heads=2)
    variables = encoder.init(jax.random.key(0), IDS)
    out = encoder.apply(variables, IDS)
    assert bool(jnp.isfinite(out).all())  # a text without a single token too
    if depth == 0:  # with blocks, positions are learned for a fixed length
        shorter = encoder.apply(variables, IDS[:, :4])
        np.testing.assert_allclose(out, shorter, rtol=1e-5, atol=1e-6)
    moved = jax.tree.map(lambda x: x, variables)
    table = np.array(moved["params"]["embed"]["embedding"])
    table[0] += 100.0  # what padding is embedded as
    moved["params"]["embed"]["embedding"] = jnp.asarray(table)
    np.testing.assert_allclose(out, encoder.apply(moved, IDS), rtol=1e-5, atol=1e-5)


def test_ngrams_are_those_of_the_text():
    a = hashed_ngrams(jnp.array([[5, 6, 7, 8]]), 2, 1 << 20)
    b = hashed_ngrams(jnp.array([[9, 5, 6, 7]]), 2, 1 << 20)
    np.testing.assert_array_equal(a[0, :2], b[0, 1:3])  # "5 6" and "6 7", wherever they stand
    assert len(set(np.asarray(a[0]).tolist())) == 4
    assert hashed_ngrams(jnp.array([[6, 5]]), 2, 1 << 20)[0, 0] != a[0, 0]  # order counts
    many = hashed_ngrams(jnp.arange(20000)[:, None], 1, 64).ravel()
    counts = np.bincount(many, minlength=64)
    assert counts.min() > 0.8 * counts.mean() and counts.max() < 1.2 * counts.mean()


def test_words_are_told_apart_and_hold_their_ngrams():
    def told(*texts, **changed):
        ids = np.stack([ByteTokenizer().encode(text, 12) for text in texts])
        settings = {"width": 8, "depth": 0, "orders": (2, 3), "buckets": 1 << 10, "word_break": ord(" ") + 2}
        encoder = TextEncoder(dim=5, vocab_size=258, **(settings | changed))
        params = jax.jit(encoder.init)(jax.random.key(0), ids)["params"]
        params["embed"] = jax.tree.map(jnp.zeros_like, params["embed"])  # words and n-grams alone
        return np.asarray(jax.jit(encoder.apply)({"params": params}, ids)) * np.sqrt((ids != 0).sum(1)[:, None] + 1)

    both, turned, one, other, hidden = told("ab cde", "cde ab", "ab", "cde", "ab[MASK]")
    np.testing.assert_allclose(both, turned, atol=1e-6)  # no n-gram goes from word to word; their places do not count
    np.testing.assert_allclose(both, one + other, atol=1e-6)
    np.testing.assert_allclose(hidden, one, atol=1e-6)  # of a hidden word nothing is left but its length
    across, turned = told("ab cde", "cde ab", word_break=-1)
    assert np.abs(across - turned).max() > 1e-3
    word, turned, longer = told("ab", "ba", "abab", orders=())
    assert np.abs(word - turned).max() > 1e-3  # letters of a word are in order
    assert np.abs(2 * word - longer).max() > 1e-3  # a word is more than its letters


def test_dropout_is_each_examples_own():
    keys = jax.random.split(jax.random.key(0), 6)
    x = jnp.ones((6, 1000))
    dropped = ExampleDropout(0.3).apply({}, x, keys)
    halves = [ExampleDropout(0.3).apply({}, x[rows], keys[rows]) for rows in (slice(0, 2), slice(2, 6))]
    np.testing.assert_array_equal(dropped, jnp.concatenate(halves))
    assert set(np.unique(np.asarray(dropped)).round(4)) == {0.0, np.float32(1 / 0.7).round(4)}
    assert abs(float((dropped == 0).mean()) - 0.3) < 0.03
    np.testing.assert_array_equal(ExampleDropout(0.3).apply({}, x, None), x)


def test_bfloat16_encoders_keep_float32_parameters():
    encoder = FeatureEncoder(dim=4, hidden=(8,), dtype=jnp.bfloat16)
    x = jnp.ones((2, 3))
    variables = encoder.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert encoder.apply(variables, x).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ImageEncoder(dim=4).init(jax.random.key(0), jnp.ones((2, 8, 8, 3))), r"float32.*expected uint8"),
        (lambda: ImageEncoder(dim=4, patch=5).init(jax.random.key(0), IMAGES), r"\(3, 16, 16, 3\).*5 divides"),
        (lambda: ImageEncoder(dim=4, block="conv").init(jax.random.key(0), IMAGES), r"'conv' is unknown"),
        (lambda: TextEncoder(dim=4, vocab_size=9).init(jax.random.key(0), jnp.ones((2, 3))), "expected integers"),
        (lambda: TextEncoder(4, 9, word_break=9).init(jax.random.key(0), IDS), "word_break is 9, but there are 9 tok"),
        (lambda: FeatureEncoder(dim=4).init(jax.random.key(0), jnp.ones((2,))), r"\(2,\).*expected floats"),
        (lambda: patches(jnp.ones((1, 4, 6, 1)), 4), r"\(1, 4, 6, 1\).*4 divides"),
    ],
)
def test_wrong_inputs_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
