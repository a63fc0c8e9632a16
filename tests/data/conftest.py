"""Sources and a tokeniser that the data tests share; loaded once."""

import numpy as np
import pytest

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.sets.emoji import load_emoji, read_index, write_subset
from c3r_jax.data.source import DatasetInfo
from c3r_jax.data.text.tokenizers import train_word_piece


@pytest.fixture(scope="session")
def emoji_train():
    return load_emoji("train", image_size=16)


@pytest.fixture(scope="session")
def emoji_test():
    return load_emoji("test", image_size=16)


@pytest.fixture(scope="session")
def tokenizer(emoji_train):
    return train_word_piece(emoji_train.texts, vocab_size=500)


@pytest.fixture(scope="session")
def emoji_index():
    return read_index()[0]


@pytest.fixture(scope="session")
def small_emoji(tmp_path_factory, emoji_index):
    """A copy of emoji.zip with every twentieth emoji, and its checksum."""
    path = tmp_path_factory.mktemp("small") / "emoji.zip"
    write_subset(path, emoji_index["items"][::20])
    return path


class ListSource:
    """Examples in a list, with nothing but what the protocol asks for."""

    def __init__(self, examples, info):
        self.examples = examples
        self.info = info

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, position):
        return self.examples[position]


@pytest.fixture
def list_source():
    return ListSource


@pytest.fixture
def three_modalities():
    """Ten examples of image, text and sound; half of them have no sound."""
    rng = np.random.default_rng(0)
    info = DatasetInfo("demo", ("image", "text", "sound"), ("a", "b", "c"), image_size=4)
    present = np.ones((10, 3), bool)
    present[::2, 2] = False
    columns = {
        "image": rng.integers(0, 256, (10, 4, 4, 3)).astype(np.uint8),
        "text": [f"word{i} and more" for i in range(10)],
        "sound": rng.standard_normal((10, 5)).astype(np.float32),
    }
    return ArraySource(columns, np.arange(10) % 3, info=info, present=present)
