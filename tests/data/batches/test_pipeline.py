import itertools
import json

import numpy as np
import pytest

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.batches.augment import AugmentConfig
from c3r_jax.data.batches.one_pass import eval_batches
from c3r_jax.data.batches.pipeline import TEXT_LENGTH, train_batches
from c3r_jax.data.conditions.protocols import apply_condition, standard_conditions
from c3r_jax.data.source import DatasetInfo, kind_of
from c3r_jax.data.text.tokenizers import ByteTokenizer
from c3r_jax.errors import DataError

AUGMENT = AugmentConfig(shift=2, flip=True, brightness=0.1, contrast=0.2, colour=0.1, word_drop=0.3, feature_noise=0.1)


def assert_same(left, right):
    assert list(left) == list(right)
    for key, value in left.items():
        if isinstance(value, dict):
            assert_same(value, right[key])
        else:
            np.testing.assert_array_equal(value, right[key], strict=True)


def take(iterator, n):
    return list(itertools.islice(iterator, n))


def rows(batches):
    """All examples of some batches, one dict of arrays each, in order."""
    found = []
    for batch in batches:
        for i in np.flatnonzero(batch["where"]):
            found.append(
                {
                    **{name: value[i] for name, value in batch["inputs"].items()},
                    **{key: batch[key][i] for key in ("present", "labels", "index")},
                }
            )
    return found


def assert_same_rows(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert_same(one, other)


def test_format(emoji_train, tokenizer):
    batch = next(train_batches(emoji_train, tokenizer, batch_size=8, seed=0, text_length=12))
    assert {name: (value.shape, value.dtype.name) for name, value in batch["inputs"].items()} == {
        "image": ((8, 16, 16, 3), "uint8"),
        "text": ((8, 12), "int32"),
    }
    assert {key: (batch[key].shape, batch[key].dtype.name) for key in ("present", "labels", "where", "index")} == {
        "present": ((8, 2), "bool"),
        "labels": ((8,), "int32"),
        "where": ((8,), "bool"),
        "index": ((8,), "int32"),
    }
    assert batch["where"].all()
    assert batch["present"].all()


def test_rows_belong_together(emoji_train, tokenizer):
    place = {int(index): position for position, index in enumerate(emoji_train.index)}
    for row in rows(take(train_batches(emoji_train, tokenizer, batch_size=16, seed=0), 3)):
        example = emoji_train[place[int(row["index"])]]
        np.testing.assert_array_equal(row["image"], example["image"])
        np.testing.assert_array_equal(row["text"], tokenizer.encode(example["text"], TEXT_LENGTH))
        assert row["labels"] == example["label"]


def test_every_epoch_has_every_example_once(three_modalities):
    batches = take(train_batches(three_modalities, ByteTokenizer(), batch_size=4, seed=1), 15)
    epochs = np.concatenate([batch["index"] for batch in batches]).reshape(6, 10)
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(10), (6, 1)))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 6  # each in another order


def test_batch_larger_than_the_split(three_modalities):
    batch = next(train_batches(three_modalities, ByteTokenizer(), batch_size=25, seed=1))
    np.testing.assert_array_equal(np.bincount(batch["index"][:20]), [2] * 10)


@pytest.mark.parametrize("shards", [1, 2])
def test_no_batch_has_an_example_twice_without_remainders(three_modalities, shards):
    """Of ten examples in batches of four, an epoch has two batches; other examples are left out in each."""
    settings = {"batch_size": 4 // shards, "seed": 1, "shard_count": shards, "drop_remainder": True}
    streams = [train_batches(three_modalities, ByteTokenizer(), **settings, shard_index=i) for i in range(shards)]
    indices = [[batch["index"] for batch in take(stream, 40)] for stream in streams]
    epochs = np.concatenate(indices, axis=1).reshape(20, 8)
    assert all(len(set(epoch)) == 8 for epoch in epochs.tolist())
    assert set(epochs.ravel().tolist()) == set(range(10)) and len({tuple(np.sort(e)) for e in epochs}) > 5
    with pytest.raises(ValueError, match="batch size of all hosts is 12, .* at most the 10 of the split"):
        train_batches(three_modalities, ByteTokenizer(), **{**settings, "batch_size": 12 // shards})


def test_seed_changes_order_and_augmentation(emoji_train, tokenizer):
    one, other = (next(train_batches(emoji_train, tokenizer, batch_size=8, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(one["index"], other["index"])


def test_batch_size_changes_no_example(emoji_train, tokenizer):
    one, other = (
        rows(take(train_batches(emoji_train, tokenizer, batch_size=size, seed=5, augment=AUGMENT), 240 // size))
        for size in (48, 5)
    )
    assert_same_rows(one, other)


def test_workers_change_nothing(emoji_train, tokenizer):
    single = train_batches(emoji_train, tokenizer, batch_size=32, seed=5, augment=AUGMENT)
    take(single, 3)
    several = train_batches(emoji_train, tokenizer, batch_size=32, seed=5, augment=AUGMENT, num_workers=2)
    several.set_state(single.get_state())  # a state does not depend on the number of workers
    try:
        found = take(several, 5)
    finally:
        several.close()
    for one, other in zip(take(single, 5), found, strict=True):
        assert_same(one, other)
    assert several.get_state() == single.get_state()


def test_state_is_exact_in_the_middle_of_an_epoch(emoji_train, tokenizer):
    iterator = train_batches(emoji_train, tokenizer, batch_size=50, seed=5, augment=AUGMENT)
    take(iterator, 17)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 12)  # over the end of the epoch, at batch 22.86
    fresh = train_batches(emoji_train, tokenizer, batch_size=50, seed=5, augment=AUGMENT)
    fresh.set_state(state)
    for one, other in zip(expected, take(fresh, 12), strict=True):
        assert_same(one, other)
    iterator.set_state(state)  # backwards as well
    assert_same(next(iterator), expected[0])


def test_state_of_another_stream(emoji_train, tokenizer):
    state = train_batches(emoji_train, tokenizer, batch_size=50, seed=5).get_state()
    with pytest.raises(DataError, match=r"'seed': \(5, 6\)"):
        train_batches(emoji_train, tokenizer, batch_size=50, seed=6).set_state(state)
    with pytest.raises(DataError, match=r"'global_batch_size': \(50, 40\)"):
        train_batches(emoji_train, tokenizer, batch_size=40, seed=5).set_state(state)
    del state["next_batch"]
    with pytest.raises(DataError, match="next_batch"):
        train_batches(emoji_train, tokenizer, batch_size=50, seed=5).set_state(state)
    with pytest.raises(DataError, match="epoch_examples"):
        train_batches(emoji_train, tokenizer, batch_size=48, seed=5, drop_remainder=True).set_state(state)


def test_hosts_together_see_what_one_host_sees(emoji_train, tokenizer):
    """So a run can go on with another number of hosts, and every epoch is covered without overlap."""
    whole = take(train_batches(emoji_train, tokenizer, batch_size=48, seed=5, augment=AUGMENT), 4)
    parts = [
        take(
            train_batches(emoji_train, tokenizer, batch_size=16, seed=5, augment=AUGMENT, shard_index=i, shard_count=3),
            4,
        )
        for i in range(3)
    ]
    for step, batch in enumerate(whole):
        assert_same_rows(rows([batch]), rows([part[step] for part in parts]))


def test_augmentation_differs_by_epoch_and_keeps_labels(three_modalities):
    batches = take(train_batches(three_modalities, ByteTokenizer(), batch_size=10, seed=0, augment=AUGMENT), 2)
    first, second = ({int(row["index"]): row for row in rows([batch])} for batch in batches)
    changed = [not np.array_equal(first[i]["image"], second[i]["image"]) for i in range(10)]
    assert np.mean(changed) > 0.8
    assert all(first[i]["labels"] == second[i]["labels"] == i % 3 for i in range(10))


def test_images_move_together_and_other_modalities_apart():
    info = DatasetInfo("demo", ("colour", "infrared", "title", "caption", "left", "right"), ("a",))
    picture = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    texts = ["one two three four five six"] * 20
    sound = np.zeros((20, 5), np.float32)
    columns = dict(zip(info.modalities, (picture, picture, texts, texts, sound, sound), strict=True))
    source = ArraySource(columns, np.zeros(20, int), info=info)
    inputs = next(train_batches(source, ByteTokenizer(), batch_size=20, seed=0, augment=AUGMENT))["inputs"]
    np.testing.assert_array_equal(inputs["colour"], inputs["infrared"])
    assert not np.array_equal(inputs["title"], inputs["caption"])
    assert abs(np.corrcoef(inputs["left"].ravel(), inputs["right"].ravel())[0, 1]) < 0.4


def test_missing_modalities_are_empty_in_training(three_modalities):
    for row in rows([next(train_batches(three_modalities, ByteTokenizer(), batch_size=10, seed=0, augment=AUGMENT))]):
        assert row["present"][2] == (row["index"] % 2 == 1)
        assert row["sound"].any() == row["present"][2]


def test_a_plain_source_gives_what_an_array_source_gives(three_modalities, list_source):
    """The one is gathered at once, the other example by example, with missing ones left out or None."""
    examples = []
    for i in range(10):
        example = {key: value for key, value in three_modalities[i].items() if key not in ("present", "index")}
        if not three_modalities[i]["present"][2]:
            example["sound"] = None
        examples.append(example)
    plain = list_source(examples, three_modalities.info)
    for make in (
        lambda source: take(train_batches(source, ByteTokenizer(), batch_size=4, seed=0, augment=AUGMENT), 5),
        lambda source: list(eval_batches(source, ByteTokenizer(), batch_size=4)),
    ):
        for one, other in zip(make(three_modalities), make(plain), strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 380, 1000])
def test_evaluation_is_one_pass_in_order(emoji_test, tokenizer, batch_size):
    batches = eval_batches(emoji_test, tokenizer, batch_size=batch_size)
    found = list(batches)
    assert len(found) == len(batches) == -(-380 // batch_size)
    assert all(len(batch["labels"]) == batch_size for batch in found)
    np.testing.assert_array_equal([row["index"] for row in rows(found)], emoji_test.index)
    assert sum(int(batch["where"].sum()) for batch in found) == 380


def test_evaluation_can_be_repeated(emoji_test, tokenizer):
    batches = eval_batches(emoji_test, tokenizer, batch_size=200)
    for one, other in zip(batches, batches, strict=True):
        assert_same(one, other)


def test_padding_of_the_last_batch(three_modalities):
    last = list(eval_batches(three_modalities, ByteTokenizer(), batch_size=4))[-1]
    np.testing.assert_array_equal(last["where"], [True, True, False, False])
    np.testing.assert_array_equal(last["index"], [8, 9, 9, 9])


@pytest.mark.parametrize("name", ["clean", "image only", "noise 2", "salt 3"])
def test_conditions_do_not_depend_on_the_batch(emoji_test, tokenizer, name):
    condition = next(c for c in standard_conditions(("image", "text")) if c.name == name)
    one, other = (
        rows(eval_batches(emoji_test, tokenizer, batch_size=size, condition=condition, seed=3)) for size in (64, 9)
    )
    assert_same_rows(one, other)
    expected = apply_condition(emoji_test[100], condition, 3)
    np.testing.assert_array_equal(one[100]["image"], expected["image"])
    np.testing.assert_array_equal(one[100]["text"], tokenizer.encode(expected["text"], TEXT_LENGTH))
    np.testing.assert_array_equal(one[100]["present"], expected["present"])


def test_masked_words_reach_the_model_as_mask_ids(emoji_test, tokenizer):
    condition = next(c for c in standard_conditions(("image", "text")) if c.name == "noise 3")
    ids = np.stack([r["text"] for r in rows(eval_batches(emoji_test, tokenizer, batch_size=64, condition=condition))])
    words = sum(len(text.split()) for text in emoji_test.texts)
    assert abs((ids == 1).sum() / words - 0.5) < 0.06


def test_evaluation_over_hosts_covers_once_with_equal_steps(emoji_test, tokenizer):
    parts = [list(eval_batches(emoji_test, tokenizer, batch_size=48, shard_index=i, shard_count=3)) for i in range(3)]
    assert {len(part) for part in parts} == {3}
    indices = [row["index"] for part in parts for row in rows(part)]
    assert len(indices) == 380
    np.testing.assert_array_equal(np.sort(indices), np.sort(emoji_test.index))


def test_feature_scales_reach_the_noise(three_modalities):
    condition = next(c for c in standard_conditions(("image", "text", "sound")) if c.name == "noise 1")
    clean = rows(eval_batches(three_modalities, ByteTokenizer(), batch_size=10))
    noisy = rows(
        eval_batches(three_modalities, ByteTokenizer(), batch_size=10, condition=condition, scales={"sound": 100.0})
    )
    assert np.abs(noisy[1]["sound"] - clean[1]["sound"]).max() > 10


INFO = DatasetInfo("demo", ("image",), ("a", "b"), image_size=4)


def image(size=4, dtype=np.uint8):
    return np.zeros((size, size, 3), dtype)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "has 0 examples"),
        ([{"image": image(5), "label": 0}], r"shape \(5, 5, 3\), expected \(4, 4, 3\)"),
        ([{"image": image(), "label": 2}], "has label 2, expected 0 to 1"),
        ([{"image": image(), "label": -1}], "has label -1, expected 0 to 1"),
        ([{"image": image()}], "no 'label'"),
        ([{"picture": image(), "label": 0}], r"expected some of \('image',\)"),
        ([{"image": image(dtype=np.int64), "label": 0}], "is a int64 array of shape"),
    ],
)
@pytest.mark.parametrize("make", [train_batches, eval_batches])
def test_bad_sources_are_refused_before_any_work(list_source, examples, message, make):
    seed = {"seed": 0}
    with pytest.raises(DataError, match=message):
        make(list_source(examples, INFO), None, batch_size=2, **seed)


def test_bad_examples_further_on_are_refused_when_met(list_source):
    good = {"image": image(), "label": 0}
    for bad, message in (
        ({"image": image(5), "label": 0}, r"Example 1 of 'demo' .* \(5, 5, 3\), expected \(4, 4, 3\)"),
        ({"image": image(), "label": 7}, "has label 7"),
        ({"image": image(dtype=np.float32), "label": 0}, "dtype float32"),
    ):
        with pytest.raises(DataError, match=message):
            list(eval_batches(list_source([good, bad], INFO), None, batch_size=2))


@pytest.mark.parametrize("left_out", ["image", "text", "sound"])
def test_inputs_may_be_left_out(three_modalities, tokenizer, list_source, left_out):
    examples = [dict(three_modalities[i]) for i in range(10)]
    examples[3]["image"] = examples[4]["text"] = None  # missing otherwise than by "present"
    for source in (three_modalities, list_source(examples, three_modalities.info)):
        settings = {"batch_size": 7, "seed": 1, "augment": AugmentConfig(word_drop=0.3, feature_noise=0.1)}
        whole = train_batches(source, tokenizer, **settings)
        less = train_batches(source, tokenizer, without=(left_out,), **settings)
        for _ in range(3):
            one, other = next(whole), next(less)
            del one["inputs"][left_out]
            assert_same(one, other)


def test_a_modality_nobody_has_in_a_split_is_as_in_training(three_modalities, tokenizer, list_source):
    examples = [{**three_modalities[i], "sound": None} for i in range(10)]
    source = list_source(examples, three_modalities.info)
    with pytest.raises(DataError, match=r"modalities \['sound'\]"):
        eval_batches(source, tokenizer, batch_size=5)
    batch = next(iter(eval_batches(source, tokenizer, batch_size=5, like=three_modalities)))
    assert not batch["present"][:, 2].any() and batch["present"][:, :2].all()
    np.testing.assert_array_equal(batch["inputs"]["sound"], np.zeros((5, 5), np.float32))


def test_a_modality_nobody_has(list_source):
    info = DatasetInfo("demo", ("image", "sound"), ("a", "b"))
    with pytest.raises(DataError, match=r"modalities \['sound'\]"):
        train_batches(list_source([{"image": image(), "label": 0}], info), None, batch_size=1, seed=0)


def test_text_needs_a_tokenizer(three_modalities):
    with pytest.raises(DataError, match="tokenizer is None"):
        eval_batches(three_modalities, None, batch_size=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"seed": -1},
        {"num_workers": -1},
        {"text_length": 0},
        {"shard_index": 2, "shard_count": 2},
    ],
)
def test_sizes_out_of_range(three_modalities, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} "):
        train_batches(three_modalities, ByteTokenizer(), **{"batch_size": 2, "seed": 0, **wrong})


def kinds_source(list_source, missing=()):
    """Six examples of every kind, positions in ``missing`` without their array modalities."""
    rng = np.random.default_rng(0)
    info = DatasetInfo("kinds", ("clip", "scan", "sound", "text"), ("a", "b"))
    examples = []
    for i in range(6):
        whole = {
            "clip": rng.integers(0, 256, (2, 4, 4, 3)).astype(np.uint8),
            "scan": rng.standard_normal((3, 4, 4)).astype(np.float32),
            "sound": rng.standard_normal((5, 2)).astype(np.float16),
        }
        examples.append({**(dict.fromkeys(whole) if i in missing else whole), "text": f"word {i}", "label": i % 2})
    return list_source(examples, info)


def test_every_kind_has_its_place_and_may_be_missing(list_source):
    source = kinds_source(list_source, missing=(0, 3))
    batch = next(iter(eval_batches(source, ByteTokenizer(), batch_size=6, text_length=8)))
    assert {name: (value.shape, value.dtype.name) for name, value in batch["inputs"].items()} == {
        "clip": ((6, 2, 4, 4, 3), "uint8"),
        "scan": ((6, 3, 4, 4), "float32"),
        "sound": ((6, 5, 2), "float32"),
        "text": ((6, 8), "int32"),
    }
    assert batch["present"].tolist() == [[i not in (0, 3)] * 3 + [True] for i in range(6)]
    for name in ("clip", "scan", "sound"):
        assert [bool(value.any()) for value in batch["inputs"][name]] == [i not in (0, 3) for i in range(6)]
        np.testing.assert_array_equal(batch["inputs"][name][1], source[1][name].astype(batch["inputs"][name].dtype))


@pytest.mark.parametrize("value", [np.zeros((2, 2), np.uint8), np.zeros(3, int), np.zeros((2,) * 5), np.float32(1), 3])
def test_values_of_no_kind(value):
    with pytest.raises(DataError, match="Modality 'x' is a .* expected a str, a uint8 image"):
        kind_of("x", value)
