import sys

import numpy as np
import pytest

from c3r_jax.data import ByteTokenizer, eval_batches, load_emoji

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:etils", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def builder(tmp_path_factory, small_emoji):
    from c3r_jax.data.emoji_tfds import Emoji

    builder = Emoji(path=small_emoji, data_dir=tmp_path_factory.mktemp("tfds"))
    builder.download_and_prepare()
    return builder


def test_builder_gives_the_examples_of_load_emoji(builder, small_emoji):
    from c3r_jax.data.emoji_tfds import TfdsSource

    for split in ("train", "validation", "test"):
        expected = load_emoji(split, path=small_emoji, image_size=64)
        source = TfdsSource(builder, split, modalities=("image", "text"))
        found = {source[i]["index"]: source[i] for i in range(len(source))}
        assert len(found) == len(source) == len(expected) > 0
        for example in (expected[i] for i in range(len(expected))):
            other = found[example["index"]]
            np.testing.assert_array_equal(other["image"], example["image"])
            assert (other["text"], other["label"]) == (example["text"], example["label"])
        assert source.info.class_names == expected.info.class_names
        assert source.info.split_sizes == expected.info.split_sizes
    assert "tensorflow" not in sys.modules


def test_builder_feeds_the_pipeline(builder):
    from c3r_jax.data.emoji_tfds import TfdsSource

    source = TfdsSource(builder, "train[:10]", modalities=("image", "text"))
    batches = list(eval_batches(source, ByteTokenizer(), batch_size=8))
    assert [int(batch["where"].sum()) for batch in batches] == [8, 2]
    assert batches[0]["inputs"]["image"].shape == (8, 64, 64, 3)
    assert "tensorflow" not in sys.modules
