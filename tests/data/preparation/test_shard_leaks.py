"""Shards in which two splits share examples: found in one pass, listed, and said by a run."""

import io
import json
import logging
import os
import tarfile

import numpy as np
import pytest

from c3r_jax.commands.prepare import main
from c3r_jax.data.conditions.missing import degraded
from c3r_jax.data.media.image import encode_png
from c3r_jax.data.preparation import shard_leaks
from c3r_jax.data.preparation.shard_leaks import find_leaks, warn_of_leaks, write_leaks
from c3r_jax.data.sets import tar_shards
from c3r_jax.data.sets.cached import CachedSource
from c3r_jax.data.sets.records import load_records, write_records
from c3r_jax.errors import DataError

KINDS = ("arrayrecord", "tar")


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3)).astype(np.uint8)


def write(folder, kind, splits):
    """Shards of {split: [(picture, text)]}, two examples each."""
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text('{"name": "shards", "class_names": ["one"]}')
    for split, pairs in splits.items():
        if kind == "arrayrecord":
            examples = [{"image": picture(number), "text": text, "label": 0} for number, text in pairs]
            write_records(examples, folder, split, shard_size=2)
            continue
        for shard, begin in enumerate(range(0, len(pairs), 2)):
            with tarfile.open(folder / f"{split}-{shard}.tar", "w") as file:
                for i, (number, text) in enumerate(pairs[begin : begin + 2], begin):
                    for ending, content in (("png", encode_png(picture(number))), ("txt", text.encode())):
                        member = tarfile.TarInfo(f"part/{i:03}.{ending}")
                        member.size = len(content)
                        file.addfile(member, io.BytesIO(content))
    return folder


def key(kind, split, i):
    return f"record {i} of {split}" if kind == "arrayrecord" else f"{split}-{i // 2}.tar: part/{i:03}"


CLEAN = {
    "train": [(i, f"text {i}") for i in range(7)],
    "validation": [(10, "text 0"), (11, "x")],  # texts repeat
    "test": [(20, "a"), (21, "b"), (22, "c")],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"test": [(20, "a"), (6, "text 6")]}, [("test", 1, "train", 6, ["image", "text"])]),  # another key
        ({"test": [(0, "text 0"), (21, "b")]}, [("test", 0, "train", 0, ["image", "text"])]),  # the same key
        ({"test": [(20, "a"), (21, "b"), (3, "other")]}, [("test", 2, "train", 3, ["image"])]),
        ({"validation": [(10, "v"), (22, "c")]}, [("test", 2, "validation", 1, ["image", "text"])]),  # not in train
        (
            {"validation": [(5, "v")], "test": [(5, "t")]},
            [("test", 0, "train", 5, ["image"]), ("validation", 0, "train", 5, ["image"])],
        ),
        ({"train": [(1, "x")], "test": [(i, f"{i}") for i in range(5)]}, [("test", 1, "train", 0, ["image"])]),
        ({"train": [(1, "x"), (1, "x")]}, []),  # in one split
    ],
)
def test_examples_of_two_splits_are_found(tmp_path, monkeypatch, kind, change, expected):
    monkeypatch.setattr(shard_leaks, "_CHUNK", 2)
    found = find_leaks(write(tmp_path / "[shards]", kind, CLEAN | change))
    assert [
        (one["split"], one["key"], one["same_as"]["split"], one["same_as"]["key"], one["shared"])
        for one in found["leaks"]
    ] == [(split, key(kind, split, i), of, key(kind, of, k), shared) for split, i, of, k, shared in expected]
    assert len(found["warnings"]) == len(expected)
    assert found["examples"] == {split: len(pairs) for split, pairs in (CLEAN | change).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_lists_them_and_runs_read_the_list(tmp_path, monkeypatch, caplog, capsys, kind):
    """Until the shards change; small ones are compared by the run itself, for others it says how."""
    folder = write(tmp_path / "shards", kind, CLEAN | {"test": [(20, "a"), (6, "text 6"), (2, "z"), (3, "y")]})
    main(["--leaks", str(folder)], "c3r prepare")
    printed = capsys.readouterr().out
    for part in (
        f"'{key(kind, 'test', 1)}' and '{key(kind, 'train', 6)}'",
        "2 items of split 'test' have the same image as",
        "7 train, 2 validation, 4 test; 2 warnings",
    ):
        assert part in printed
    listed = json.loads((folder / "leaks.json").read_text())
    assert listed == find_leaks(folder) and listed["warnings"][0].endswith("leaks.json lists them.")

    monkeypatch.setattr(shard_leaks, "SMALL", 0)
    with caplog.at_level(logging.INFO, "absl"):
        warn_of_leaks(folder)
        assert [record.getMessage() for record in caplog.records] == listed["warnings"]
        caplog.clear()
        write(folder, kind, {"test": [(20, "a"), (6, "text 6")]})
        warn_of_leaks(folder)
        assert f"c3r prepare --leaks {folder} does it" in caplog.text and "same" not in caplog.text
        caplog.clear()
        monkeypatch.setattr(shard_leaks, "SMALL", 1 << 20)
        if kind == "tar":
            (folder / "test-1.tar").unlink()  # of the longer split before
        warn_of_leaks(folder)
        assert "1 items of split 'test' have the same image and text" in caplog.text


def test_what_cannot_be_compared_is_named(tmp_path, caplog):
    """By the command, which ends; a run says it and goes on."""
    folder = write(tmp_path, "tar", {"train": CLEAN["train"]})
    warn_of_leaks(folder)  # one split alone has nothing to share
    with pytest.raises(SystemExit, match="has shards of 1 of the splits train, validation, test: expected two or more"):
        main(["--leaks", str(folder)], "c3r prepare")
    write(tmp_path, "tar", {"test": CLEAN["test"]})
    path = folder / "test-0.tar"
    path.write_bytes(path.read_bytes()[:1200])
    for look in (find_leaks, write_leaks):
        with pytest.raises(DataError, match=r"test-0\.tar"):
            look(folder)
    with caplog.at_level(logging.WARNING, "absl"):
        warn_of_leaks(folder)
        assert "could not be compared" in caplog.text and "test-0.tar" in caplog.text
    assert not (folder / "leaks.json").exists()


@pytest.mark.parametrize("error", [DataError("sample 3 cannot be read"), OSError(5, "Input/output error")])
def test_a_record_that_cannot_be_read_stops_no_run(tmp_path, monkeypatch, caplog, error):
    folder = write(tmp_path, "tar", CLEAN)
    sources = {split: load_records(split, path=folder) for split in CLEAN}

    def fail(position):
        raise error

    monkeypatch.setattr(sources["test"], "picture", fail)
    with caplog.at_level(logging.WARNING, "absl"):
        warn_of_leaks(folder, sources)
    assert f"could not be compared: {error}" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_reads_each_picture_once_of_open_splits(tmp_path, monkeypatch, caplog, kind):
    """Its own sources, wrapped or not; nothing but pictures where none agree; and no more than a few examples."""
    folder = write(tmp_path, kind, CLEAN)
    sources = {split: load_records(split, path=folder) for split in CLEAN}
    sources["train"] = CachedSource(sources["train"])
    monkeypatch.setattr(shard_leaks, "load_records", None)
    reads = []
    for source in sources.values():
        picture = source.picture
        monkeypatch.setattr(source, "picture", lambda i, picture=picture: reads.append(i) or picture(i), raising=False)
        monkeypatch.setattr(source, "stored", None, raising=False)
    warn_of_leaks(folder, sources)
    assert len(reads) == 12
    if kind == "tar":
        opened = []
        monkeypatch.setattr(tar_shards, "open", lambda *a: opened.append(a) or open(*a), raising=False)
        warn_of_leaks(folder, sources)
        assert len(opened) == 12
    monkeypatch.setattr(shard_leaks, "FEW", 11)
    reads.clear()
    with caplog.at_level(logging.INFO, "absl"):
        warn_of_leaks(folder, sources)
    assert not reads and "were not searched" in caplog.text


def test_a_degraded_split_is_opened_again(tmp_path, caplog):
    """It hides what is stored."""
    folder = write(tmp_path, "tar", CLEAN | {"test": [(20, "a"), (6, "text 6")]})
    sources = {"train": degraded(load_records("train", path=folder), ["text=0.5"], [], 0)}
    with caplog.at_level(logging.WARNING, "absl"):
        warn_of_leaks(folder, sources)
    assert "1 items of split 'test' have the same image and text" in caplog.text


def test_a_shard_that_changes_while_the_list_is_made_is_searched_again(tmp_path, monkeypatch, caplog):
    """Equal sizes and an older list do not make it the shard that was read."""
    folder = write(tmp_path, "tar", CLEAN)
    stat = (folder / "test-0.tar").stat()

    def meanwhile(*args, **kwargs):
        write(folder, "tar", {"test": [(20, "a"), (6, "text 6"), (22, "c")]})
        os.utime(folder / "test-0.tar", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        return []

    with monkeypatch.context() as patch:
        patch.setattr(shard_leaks, "_compared", meanwhile)
        listed = write_leaks(folder)
    assert listed["shards"]["test-0.tar"] == [stat.st_size, stat.st_mtime_ns]
    assert (folder / "test-0.tar").stat().st_size == stat.st_size
    with caplog.at_level(logging.WARNING, "absl"):
        warn_of_leaks(folder)
    assert "have the same image and text" in caplog.text
