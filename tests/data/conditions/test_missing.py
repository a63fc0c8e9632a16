"""Missing rates and misaligned pairs: exact rates, no fixed point, and the same however the split is read."""

import numpy as np
import pytest

from c3r_jax.data.batches.one_pass import eval_batches
from c3r_jax.data.batches.pipeline import train_batches
from c3r_jax.data.conditions.missing import DegradedSource, Misaligned, Missing, origins, partners, still_present
from c3r_jax.data.conditions.protocols import noise_condition, protocol_conditions
from c3r_jax.data.counter_rng import uniform
from c3r_jax.data.sets.standardised import feature_scales
from c3r_jax.data.text.tokenizers import ByteTokenizer
from c3r_jax.errors import DataError

NAMES = ("image", "text", "sound")
N = 4000
ALL = np.ones((N, 3), bool)


def left(rates, *, labels=None, present=ALL, seed=0):
    labels = np.zeros(len(present), int) if labels is None else labels
    return still_present(Missing(rates), NAMES, np.arange(len(present)), labels, present, seed)


def assert_rate(hit, p):
    assert abs(hit.mean() - p) <= 5 * np.sqrt(p * (1 - p) / len(hit)), (hit.mean(), p)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rates_are_those_of_the_formula(rate):
    """Of M modalities at one rate r each misses r - r^M / M: all would go with r^M, and one at random then stays."""
    kept = left(tuple((name, None, rate) for name in NAMES))
    assert kept.any(axis=1).all()
    for m in range(3):
        assert_rate(~kept[:, m], rate - rate**3 / 3)
    assert_rate(~kept[:, 0] & ~kept[:, 1], rate**2 - 2 * rate**3 / 3)  # independent, but for the one that stays


def test_extreme_rates():
    np.testing.assert_array_equal(left(tuple((name, None, 0.0) for name in NAMES)), ALL)
    everything = left(tuple((name, None, 1.0) for name in NAMES))
    np.testing.assert_array_equal(everything.sum(axis=1), 1)
    for m in range(3):
        assert_rate(everything[:, m], 1 / 3)
    # At a rate of 1 a modality is gone for good wherever another one has a lower rate.
    some = left((("image", None, 1.0), ("text", None, 1.0), ("sound", None, 0.9)))
    assert not some[:, :2].any() and some[:, 2].all()


def test_what_is_missing_at_one_rate_is_missing_at_the_next():
    kept = [left(tuple((name, None, x / 10) for name in NAMES)) for x in range(11)]
    for low, high in zip(kept, kept[1:], strict=False):
        assert not (high & ~low).any()
    assert (left((("text", None, 0.5),), seed=1) != left((("text", None, 0.5),))).any()


def test_natural_missingness_is_respected():
    present = np.array([[True, False, False], [False, True, True], [False, False, False]])
    kept = left((("image", None, 1.0), ("text", None, 1.0)), present=present)
    np.testing.assert_array_equal(kept, [[True, False, False], [False, False, True], [False, False, False]])


def test_a_class_has_a_rate_of_its_own():
    labels = np.arange(N) % 2
    kept = left((("text", 1, 1.0), ("text", None, 0.2)), labels=labels)  # whatever the order of the entries
    assert not kept[labels == 1, 1].any()
    assert_rate(~kept[labels == 0, 1], 0.2)
    assert kept[:, [0, 2]].all()


@pytest.mark.parametrize("n", [2, 3, 1000])
def test_partners_are_a_derangement(n):
    partner = partners(n, 4, "text")
    np.testing.assert_array_equal(np.sort(partner), np.arange(n))
    assert (partner != np.arange(n)).all()


def test_misaligned_shares():
    here = np.arange(N)
    for share in (0.0, 0.3, 1.0):
        origin = origins(N, share, 0, "text")
        assert_rate(origin != here, share)
        np.testing.assert_array_equal(origin[origin != here], partners(N, 0, "text")[origin != here])
    low, high = origins(N, 0.3, 0, "text"), origins(N, 0.4, 0, "text")
    assert (high[low != here] == low[low != here]).all()
    assert (origins(N, 1.0, 0, "image") != origins(N, 1.0, 0, "text")).any()
    with pytest.raises(DataError, match="A split of 1 examples cannot be misaligned: expected at least 2"):
        origins(1, 0.5, 0, "text")


def test_an_altered_source_by_hand(three_modalities):
    """Texts come from the partner; sounds only where both have one; then the rates, example by example."""
    missing, misaligned = Missing((("image", None, 0.5),)), Misaligned((("text", 1.0), ("sound", 1.0)))
    altered = DegradedSource(three_modalities, 3, missing=missing, misaligned=misaligned)
    text, sound = partners(10, 3, "text"), partners(10, 3, "sound")
    swapped = 0
    for i in range(10):
        example, own = altered[i], three_modalities[i]
        assert example["text"] == f"word{text[i]} and more"
        both = i % 2 == 1 and sound[i] % 2 == 1
        swapped += both
        if i % 2:
            np.testing.assert_array_equal(example["sound"], three_modalities[sound[i] if both else i]["sound"])
        assert example["label"] == own["label"] and example["index"] == i
        gone = uniform(3, "missing", "image", np.array([i]))[0] < 0.5
        np.testing.assert_array_equal(example["present"], [not gone, True, i % 2 == 1])
        assert gone == (not example["image"].any())
    assert 0 < swapped < 5
    np.testing.assert_array_equal(three_modalities[0]["present"], [True, True, False])


def rows(batches, count=None):
    """The examples of some batches, in order, as bytes of everything they hold."""
    found = []
    for batch in batches:
        for i in np.flatnonzero(batch["where"]):
            parts = [batch["inputs"][name][i] for name in sorted(batch["inputs"])]
            found.append(b"".join(np.asarray(p).tobytes() for p in (*parts, batch["present"][i], batch["index"][i])))
        if count is not None and len(found) >= count:
            return found[:count]
    return found


@pytest.mark.parametrize("name", ["official noise 5", "official salt 10", "missing 50 %", "misaligned text 50 %"])
def test_conditions_are_the_same_however_they_are_read(three_modalities, name):
    """Batch size and number of processes change no example; misaligned pairs come from the whole split."""
    condition = next(c for c in protocol_conditions(["official", "missing", "misaligned"], NAMES) if c.name == name)
    how = {"tokenizer": ByteTokenizer(), "condition": condition, "seed": 3}
    one, clean = (
        rows(eval_batches(three_modalities, batch_size=10, **kind)) for kind in (how, {"tokenizer": how["tokenizer"]})
    )
    assert one != clean
    assert rows(eval_batches(three_modalities, batch_size=3, **how)) == one
    shards = [list(eval_batches(three_modalities, batch_size=2, shard_index=i, shard_count=3, **how)) for i in range(3)]
    assert rows(batch for together in zip(*shards, strict=True) for batch in together) == one


def test_training_is_the_same_however_it_is_read(three_modalities):
    """Noise of each epoch, missing and misaligned data over batch sizes, processes and workers."""
    missing, misaligned = Missing((("image", None, 0.5),)), Misaligned((("text", 0.5),))
    source = DegradedSource(three_modalities, 1, missing=missing, misaligned=misaligned)
    how = {"seed": 1, "noise": noise_condition("official_gaussian:5", NAMES), "scales": feature_scales(source)}
    one = rows(train_batches(source, ByteTokenizer(), batch_size=20, **how), 60)
    assert rows(train_batches(source, ByteTokenizer(), batch_size=7, **how), 60) == one
    shards = [train_batches(source, ByteTokenizer(), batch_size=5, shard_index=i, shard_count=2, **how) for i in (0, 1)]
    assert rows((batch for together in zip(*shards, strict=True) for batch in together), 60) == one
    worker = train_batches(source, ByteTokenizer(), batch_size=20, num_workers=1, **how)
    assert rows(worker, 60) == one
    worker.close()
    assert len(set(one)) > 30  # each of the ten examples has new draws in every epoch


def test_scales_by_hand(list_source):
    """Per feature of vectors and sequences (over time), per channel of volumes or as a whole; absent ones left out."""
    rng = np.random.default_rng(0)
    columns = {
        "features": rng.standard_normal((8, 3)) * [1, 2, 0] + 1e6,
        "sequence": rng.standard_normal((8, 5, 2)),
        "volume": rng.standard_normal((8, 2, 3, 4)),
        "channels": rng.standard_normal((8, 2, 3, 4, 2)),
    }
    names = (*columns, "text")
    present = [[i != 3] * 4 + [True] for i in range(8)]
    info = type("Info", (), {"modalities": names})
    examples = [{**{k: v[i] for k, v in columns.items()}, "text": "a", "present": present[i]} for i in range(8)]
    scales = feature_scales(list_source(examples, info))
    kept = {name: np.delete(value, 3, 0) for name, value in columns.items()}
    assert set(scales) == set(columns)
    np.testing.assert_allclose(scales["features"], kept["features"].std(0), rtol=1e-6)
    np.testing.assert_allclose(scales["sequence"], kept["sequence"].std((0, 1)))
    np.testing.assert_allclose(scales["volume"], [kept["volume"].std()])
    np.testing.assert_allclose(scales["channels"], kept["channels"].std((0, 1, 2, 3)))
