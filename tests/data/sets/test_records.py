"""Sets larger than memory: shards read at random give the batches that the same examples give in memory."""

import io
import json
import logging
import pickle
import tarfile

import chex
import jax
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from c3r_jax.data.batches.augment import AugmentConfig
from c3r_jax.data.batches.one_pass import eval_batches
from c3r_jax.data.batches.pipeline import train_batches
from c3r_jax.data.media.image import encode_png
from c3r_jax.data.sets import shard_files
from c3r_jax.data.sets.emoji import load_emoji
from c3r_jax.data.sets.records import load_records, write_records
from c3r_jax.data.text.tokenizers import ByteTokenizer
from c3r_jax.errors import DataError
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.training.loop import fit

SIZE = 16


def write_tar(examples, path, *, skip=()):
    """A WebDataset file with image, text and class of each example."""
    with tarfile.open(path, "w") as file:
        for i in range(len(examples)):
            example = examples[i]
            parts = {
                "png": encode_png(example["image"]),
                "txt": example["text"].encode(),
                "cls": str(example["label"]).encode(),
            }
            for ending, content in parts.items():
                if (i, ending) not in skip:
                    member = tarfile.TarInfo(f"./part/{i:06d}.{ending}")
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))


class Some:
    """A stretch of a source."""

    def __init__(self, source, begin, end):
        self.source, self.begin, self.end = source, begin, end

    def __len__(self):
        return self.end - self.begin

    def __getitem__(self, i):
        return self.source[self.begin + i]


@pytest.fixture(scope="module")
def memory():
    return {split: load_emoji(split, image_size=SIZE) for split in ("train", "validation", "test")}


@pytest.fixture(scope="module", params=["arrayrecord", "tar"])
def directory(request, tmp_path_factory, memory):
    """The emoji set in shards of one kind, several a split."""
    path = tmp_path_factory.mktemp(request.param)
    for split, source in memory.items():
        if request.param == "arrayrecord":
            write_records(source, path, split, shard_size=200)
        else:
            for shard, begin in enumerate(range(0, len(source), 500)):
                write_tar(Some(source, begin, min(begin + 500, len(source))), path / f"{split}-{shard:04d}.tar")
    names = memory["train"].info.class_names
    (path / "dataset.json").write_text(json.dumps({"name": "emoji in shards", "class_names": names}))
    return path


def test_examples_are_those_in_memory(directory, memory):
    for split, source in memory.items():
        found = load_records(split, path=directory, image_size=SIZE)
        assert len(found) == len(source) and found.info.class_names == source.info.class_names
        np.testing.assert_array_equal(found.labels, source.labels)
        for i in (0, 199, 200, len(source) - 1):
            one, other = found[i], source[i]
            np.testing.assert_array_equal(one["image"], other["image"])
            assert (one["text"], one["label"]) == (other["text"], other["label"])
    assert set(found.texts) == set(source.texts)
    again = pickle.loads(pickle.dumps(found))  # as workers get it
    np.testing.assert_array_equal(again[3]["image"], found[3]["image"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_shuffled_stream_goes_on_in_the_middle_of_an_epoch(directory, memory, num_workers):
    """Over two epochs every example comes twice; a stream restored from its state continues with the same batches."""

    def stream(source):
        return train_batches(
            source,
            ByteTokenizer(),
            batch_size=127,
            seed=3,
            augment=AugmentConfig(shift=1, flip=True, word_drop=0.2),
            num_workers=num_workers,
            text_length=16,
        )

    found = load_records("train", path=directory, image_size=SIZE)
    iterator = stream(found)
    batches, states = [], []
    for _ in range(18):
        batches.append(next(iterator))
        states.append(iterator.get_state())
    iterator.close()
    seen = np.concatenate([batch["index"] for batch in batches])
    assert len(seen) == 2 * len(found) and (np.bincount(seen) == 2).all()
    resumed = stream(found)
    resumed.set_state(json.loads(json.dumps(states[6])))
    for k in (7, 8):
        chex.assert_trees_all_equal(next(resumed), batches[k])
    resumed.close()
    # The order comes from seed and position alone: in memory it is the same.
    reference = stream(memory["train"])
    labels = memory["train"].labels
    for k in (0, 1):
        batch = next(reference)
        np.testing.assert_array_equal(batch["labels"], batches[k]["labels"])
        np.testing.assert_array_equal(batches[k]["labels"], labels[batches[k]["index"]])
    reference.close()


def test_two_hosts_read_what_one_would(directory):
    """Their batches, one after the other, are a single host's, over the end of an epoch; so they are when resumed."""
    found = load_records("train", path=directory, image_size=SIZE)
    size = len(found) // 2 + 6  # the second batch runs into the next epoch

    def stream(host=0, count=1):
        return train_batches(
            found,
            ByteTokenizer(),
            batch_size=2 * (size // 2) // count,
            seed=3,
            augment=AugmentConfig(shift=1, word_drop=0.2),
            text_length=16,
            shard_index=host,
            shard_count=count,
        )

    def together(parts):
        return [np.concatenate(columns) for columns in zip(*(leaves(part) for part in parts), strict=True)]

    def leaves(batch):
        return [*batch["inputs"].values(), *(batch[name] for name in ("present", "labels", "where", "index"))]

    one, hosts = stream(), [stream(host, 2) for host in (0, 1)]
    expected = []
    for _ in range(2):
        expected.append(leaves(next(one)))
        chex.assert_trees_all_equal(together([next(host) for host in hosts]), expected[-1])
    states = [host.get_state() for host in hosts]
    assert states[0] == states[1] == one.get_state()  # any of them serves one host, or the other
    expected.append(leaves(next(one)))
    resumed = [stream(host, 2) for host in (0, 1)]
    alone = stream()
    for iterator in (*resumed, alone):
        iterator.set_state(json.loads(json.dumps(states[1])))
    chex.assert_trees_all_equal(together([next(host) for host in resumed]), expected[-1])
    chex.assert_trees_all_equal(leaves(next(alone)), expected[-1])
    for iterator in (one, alone, *hosts, *resumed):
        iterator.close()

    split = load_records("test", path=directory, image_size=SIZE)
    size = (len(split) // 3 + 2) // 2
    passes = [
        eval_batches(split, ByteTokenizer(), batch_size=size, text_length=16, shard_index=host, shard_count=2)
        for host in (0, 1)
    ]
    whole = eval_batches(split, ByteTokenizer(), batch_size=2 * size, text_length=16)
    assert [len(own) for own in passes] == [len(whole)] * 2
    for k in range(len(whole)):
        chex.assert_trees_all_equal(together([own[k] for own in passes]), leaves(whole[k]))


def test_nothing_of_the_examples_is_kept(directory):
    from c3r_jax.data.batches.assemble import Assembler

    source = load_records("train", path=directory, image_size=SIZE)
    assembler = Assembler(source, ByteTokenizer(), 16)
    first, _ = assembler.batch(np.arange(64))
    assert all(cache.size == 0 for cache in (*assembler._ids.values(), *assembler._words.values()))
    again, _ = assembler.batch(np.arange(64))
    chex.assert_trees_all_equal(first, again)


def test_a_run_trains_on_shards(directory, small_config, tmp_path):
    if (directory / "train-0000.tar").exists():
        small_config.task, small_config.c3r.necessity = "softmax", "hinge"  # contrastive, on WebDataset files
    small_config.data.name, small_config.data.path = "records", str(directory)
    small_config.train.steps, small_config.train.eval_every = 4, 4
    assert fit(small_config, tmp_path).steps == 4
    validated = [line["values"] for line in read_history(tmp_path) if line["split"] == "validation"]
    assert np.isfinite(validated[-1]["mean_accuracy"])


@pytest.fixture
def pair(tmp_path, memory):
    """A directory with one small tar file, and its examples."""
    (tmp_path / "dataset.json").write_text('{"name": "pair", "class_names": ["one", "two"]}')
    image = memory["test"][0]["image"]
    return tmp_path, [{"image": image, "text": f"number {i}", "label": i % 2} for i in range(4)]


def test_unusable_directories_are_named(tmp_path, pair):
    directory, examples = pair
    with pytest.raises(DataError, match=r"config\.data\.path is empty"):
        load_records("train")
    with pytest.raises(DataError, match="no shards of split 'train'"):
        load_records("train", path=directory)
    write_tar(examples, directory / "train-0.tar")
    write_records(examples, directory, "train", shard_size=4)
    with pytest.raises(DataError, match="both kinds of shards of split 'train'"):
        load_records("train", path=directory)
    (directory / "dataset.json").write_text('{"name": "pair"}')
    with pytest.raises(DataError, match=r"dataset\.json cannot be used \(KeyError: 'class_names'\): write"):
        load_records("train", path=directory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phrases": ["a"]}, r"'phrases' in .* is \[\"a\"\], expected a list of different texts for each class"),
        ({"phrases": None}, "is null, expected a list of different texts for each class"),
        ({"phrases": {"one": "a photo"}}, "expected a list of different texts for each class"),
        ({"phrases": {"one": []}}, "expected a list of different texts for each class"),
        ({"phrases": {"On": ["a photo"]}}, "'phrases' in .* has 'On', which is none of its class_names"),
        ({"environments": ["site"]}, "'environments' in .* expected a list of different names for each field"),
        ({"environments": {"site": "AB"}}, "expected a list of different names for each field"),
        (
            {"enviroments": {}},
            "has 'enviroments', which nothing reads: did you mean 'environments'\\?",
        ),
        ({"class_names": "one"}, "'class_names' in .* is \"one\", expected a list of different names in quotes"),
        ({"class_names": ["one", "one"]}, "expected a list of different names"),
        ({"class_names": []}, "expected a list of different names"),
        ({"name": None}, "'name' in .* is null, expected a text"),
        ({"upright": "false"}, "'upright' in .* is \"false\", expected true or false"),
        ({"range": [10, 0]}, r"'range' in .* is \[10, 0\], expected a low and a higher number"),
        ({"range": "0 10"}, "expected a low and a higher number"),
    ],
)
def test_entries_that_cannot_be_used_are_named(pair, changes, message):
    directory, examples = pair
    write_tar(examples, directory / "train-0.tar")
    about = {
        "name": "pair",
        "class_names": ["one", 2],
        "phrases": {"one": ["a one"]},
        "range": [0, 9],
        "licence": "any",
    }
    (directory / "dataset.json").write_text(json.dumps(about))
    info = load_records("train", path=directory).info
    assert info.phrases == {"one": ("a one",)} and info.class_names == ("one", "2")
    (directory / "dataset.json").write_text(json.dumps(about | changes))
    with pytest.raises(DataError, match=message):
        load_records("train", path=directory)


def test_labels_are_kept_beside_the_shards(pair):
    """They are read from there, found again without them, and refused where they do not belong to the shards."""
    directory, examples = pair
    write_records(examples, directory, "my-train", shard_size=3)
    kept = directory / "my-train-labels.npy"
    np.save(kept, np.array([1, 1, 1, 0]))
    assert load_records("my-train", path=directory).labels.tolist() == [1, 1, 1, 0]
    kept.unlink()
    assert load_records("my-train", path=directory).labels.tolist() == [0, 1, 0, 1]
    np.save(kept, np.array(1))
    whole = kept.read_bytes()
    for damaged in (b"", b"labels", whole[:-4], whole):  # the last is a number alone
        kept.write_bytes(damaged)
        with pytest.raises(
            DataError, match=r"my-train-labels\.npy cannot be read as labels \(\w+\): delete it, or write"
        ):
            load_records("my-train", path=directory)
    np.save(kept, np.array([1, 1]))
    with pytest.raises(DataError, match="has 2 labels for 4 examples: delete it"):
        load_records("my-train", path=directory)


def test_damaged_and_incomplete_shards_are_named(pair):
    directory, examples = pair
    write_tar(examples, directory / "train-0.tar", skip={(2, "txt"), (3, "png")})
    with pytest.raises(
        DataError, match=r"'\./part/000002' in .*train-0\.tar has no image or no text \(2 such samples\)"
    ):
        load_records("train", path=directory)
    write_tar(examples, directory / "train-0.tar", skip={(1, "cls")})
    with pytest.raises(DataError, match=r"sample 1 in .* has no class, but others have \(1 such samples\)"):
        load_records("train", path=directory)
    write_tar([{**examples[0], "label": "cat"}], directory / "train-0.tar")
    with pytest.raises(DataError, match=r"sample 0 in .* has class b'cat': expected a whole number"):
        load_records("train", path=directory)
    write_tar(examples, directory / "train-0.tar", skip={(i, "cls") for i in range(4)})
    source = load_records("train", path=directory)
    assert source.labels.tolist() == [0, 0, 0, 0]
    content = bytearray((directory / "train-0.tar").read_bytes())
    begin = content.find(b"IHDR")
    content[begin : begin + 4] = b"XXXX"
    (directory / "train-0.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"sample 0 in .*train-0\.tar cannot be read"):
        load_records("train", path=directory)[0]
    (directory / "train-0.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match=r"train-0\.tar is no whole tar file"):
        load_records("train", path=directory)
    write_tar([{**examples[0], "label": 7}], directory / "train-0.tar")
    with pytest.raises(DataError, match="label 7, expected 0 to 1"):
        load_records("train", path=directory)


def test_a_split_is_its_last_writing_and_whole(pair):
    """Written again with other shards it is not doubled; one missing or damaged is an error."""
    directory, examples = pair
    write_records(examples, directory, "train", shard_size=4)
    write_records(examples, directory, "train", shard_size=2)
    assert len(load_records("train", path=directory)) == 4
    second = directory / "train-00001-of-00002.arrayrecord"
    second.write_bytes(second.read_bytes()[:100])
    with pytest.raises(DataError, match=r"train-00001-of-00002\.arrayrecord in .* cannot be opened"):
        load_records("train", path=directory)
    second.unlink()
    with pytest.raises(DataError, match="expected every number below one count"):
        load_records("train", path=directory)


@pytest.mark.parametrize("copy", ["train-0 (1)", "train-00", "train-1", "train-old"])
@pytest.mark.parametrize("kind", ["tar", "arrayrecord"])
def test_a_shard_that_is_there_twice_is_refused(pair, kind, copy):
    directory, examples = pair
    if kind == "tar":
        write_tar(examples, directory / "train-0.tar")
    else:
        write_records(examples, directory, "train", shard_size=4)
        next(directory.glob("*.arrayrecord")).rename(directory / "train-0.arrayrecord")
    (directory / f"{copy}.{kind}").write_bytes((directory / f"train-0.{kind}").read_bytes())
    with pytest.raises(DataError, match=r"is a copy of train-0.*\.(tar|arrayrecord), so that its examples"):
        load_records("train", path=directory)


@pytest.mark.parametrize("kind", ["tar", "arrayrecord"])
def test_shards_without_examples_are_no_copies(pair, kind):
    """Programs that write in parallel leave them."""
    directory, examples = pair
    if kind == "tar":
        write_tar(examples, directory / "train-1.tar")
    else:
        write_records(examples, directory, "train", shard_size=4)
        next(directory.glob("*.arrayrecord")).rename(directory / "train-1.arrayrecord")
    for shard in (0, 2, 3):
        if kind == "tar":
            write_tar([], directory / f"train-{shard}.tar")
        else:
            ArrayRecordWriter(str(directory / f"train-{shard}.arrayrecord"), "group_size:1").close()
    source = load_records("train", path=directory, image_size=SIZE)
    assert [source[i]["text"] for i in range(4)] == [example["text"] for example in examples]


def test_few_shards_are_read_to_find_copies(pair, monkeypatch, caplog):
    """Those that have the size of another, up to a number, which is logged; of several processes by the first."""
    directory, examples = pair
    for shard in range(4):
        write_tar([{**one, "text": f"{shard}"} for one in examples], directory / f"train-{shard}.tar")
    write_tar([{**one, "text": "long " * 5000} for one in examples], directory / "train-4.tar")
    looked = []
    look = shard_files._look
    monkeypatch.setattr(shard_files, "_look", lambda path: looked.append(path.name) or look(path))
    load_records("train", path=directory)
    assert looked == [f"train-{shard}.tar" for shard in range(4)]
    looked.clear()
    monkeypatch.setattr(shard_files, "COMPARED", 2)
    with caplog.at_level(logging.INFO, "absl"):
        load_records("train", path=directory)
    assert looked == ["train-0.tar", "train-1.tar"]
    assert f"4 shards in {directory} have the size of another; only the first 2" in caplog.text
    looked.clear()
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    load_records("train", path=directory)
    assert not looked


def test_shards_of_one_size_are_different(pair):
    directory, examples = pair
    for shard in range(3):  # tar files of few examples are padded to one size
        write_tar(
            [{**example, "text": f"{example['text']} of {shard}"} for example in examples],
            directory / f"train-{shard}.tar",
        )
    assert len({path.stat().st_size for path in directory.glob("*.tar")}) == 1
    assert len(load_records("train", path=directory)) == 12


@pytest.mark.parametrize("kind", ["tar", "arrayrecord"])
def test_an_empty_text_is_a_missing_one(pair, kind):
    """As in prepared sets and exports."""
    directory, examples = pair
    for i, text in enumerate(("", " \n")):
        examples[i]["text"] = text
    if kind == "tar":
        write_tar(examples, directory / "train-0.tar")
    else:
        write_records(examples, directory, "train", shard_size=4)
    source = load_records("train", path=directory, image_size=SIZE)
    assert [source[i]["text"] for i in range(4)] == [None, None, "number 2", "number 3"]
    (batch,) = eval_batches(source, ByteTokenizer(), batch_size=4, text_length=8)
    assert batch["present"].tolist() == [[True, False], [True, False], [True, True], [True, True]]
    write_records(source, directory / "again", "train", shard_size=4)
    (directory / "again" / "dataset.json").write_text((directory / "dataset.json").read_text())
    assert load_records("train", path=directory / "again", image_size=SIZE)[0]["text"] is None
