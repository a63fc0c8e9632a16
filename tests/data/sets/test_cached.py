"""Kept examples are read once, stay as they are, and do not travel to other processes."""

import dataclasses
import pickle

import numpy as np
import pytest

from c3r_jax.data.sets.cached import CachedSource, cached_source
from c3r_jax.data.source import DatasetInfo
from c3r_jax.experiments.experiment import build_experiment


class Counting:
    """Counts how often each example is read."""

    streamed = True
    texts = ("a", "b")

    def __init__(self):
        self.info = DatasetInfo("demo", ("sound",), ("low", "high"))
        self.reads = [0, 0, 0]

    def __len__(self):
        return 3

    def __getitem__(self, position):
        self.reads[position] += 1
        return {"sound": np.full(4, position, np.float32), "label": position % 2}


def test_examples_are_read_once_and_stay_as_they_are():
    inner = Counting()
    kept = CachedSource(inner)
    for position in (0, 2, 2, np.int64(0)):
        example = kept[position]
        np.testing.assert_array_equal(example["sound"], np.full(4, position))
        example["label"] = 7
        with pytest.raises(ValueError, match="read-only"):
            example["sound"][0] = 1
    assert inner.reads == [1, 0, 1] and kept[2]["label"] == 0
    assert (len(kept), kept.info, kept.texts, kept.streamed) == (3, inner.info, inner.texts, False)
    assert not hasattr(kept, "gather")


def test_what_is_kept_does_not_travel():
    kept = CachedSource(Counting())
    kept[1]
    travelled = pickle.loads(pickle.dumps(kept))
    assert travelled._source.reads == [0, 1, 0]
    travelled[1]
    assert travelled._source.reads == [0, 2, 0]


def test_runs_share_what_has_been_read_of_one_file():
    sources = [Counting() for _ in range(4)]
    for source, digest in zip(sources, ("one", "one", "two", None), strict=True):
        source.info = dataclasses.replace(source.info, sha256=digest)
    first, again, other, nameless = (cached_source(source, "train 24") for source in sources)
    assert first is again and cached_source(sources[0], "train 32") is not first
    assert len({id(source) for source in (first, other, nameless)}) == 3
    assert cached_source(sources[3], "train 24") is not nameless


def test_sets_made_of_one_file_are_not_mistaken(small_config):
    small_config.data.keep = True
    plain = build_experiment(small_config).sources["train"]
    small_config.data.name = "emoji_shift"
    cued = build_experiment(small_config).sources["train"]
    assert plain.info.sha256 == cued.info.sha256 and plain[0]["text"] != cued[0]["text"]
