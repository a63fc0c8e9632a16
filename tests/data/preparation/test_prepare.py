"""The preparation itself: the same bytes after any interruption and with any number of workers; reports; checksums."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from c3r_jax.commands.prepare import main
from c3r_jax.data.preparation import parts
from c3r_jax.data.preparation import prepare as program
from c3r_jax.data.preparation import write as writing
from c3r_jax.data.preparation.layouts.image_text import MvsaSingle
from c3r_jax.data.preparation.prepare import prepare
from c3r_jax.data.sets.manifest import read_manifest
from c3r_jax.data.sets.prepared import load_prepared, prepared_splits
from c3r_jax.errors import C3RError, ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:etils", "ignore::ResourceWarning")
LABELS = ("negative", "neutral", "positive")


class Small(MvsaSingle):
    """In parts so small that a few items make many of them."""

    part_size = 4


def write_tweets(source, count=22, dark=()):
    """Lists and images; those in ``dark`` are no images."""
    (source / "data").mkdir(parents=True)
    for split in ("train", "dev", "test"):
        lines = [{"id": f"{split}{i}", "label": LABELS[i % 3], "text": f"tweet {i}"} for i in range(count)]
        for i, line in enumerate(lines):
            line["img"] = f"data/{line['id']}.jpg"
            rng = np.random.default_rng([i, len(split)])
            Image.fromarray(rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)).save(source / line["img"], "png")
            if line["id"] in dark:
                (source / line["img"]).write_bytes(b"dark")
        (source / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return source


def content(folder):
    """Every file below a folder, hidden ones too."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_tweets(tmp_path_factory.mktemp("tweets") / "source")


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """What an uninterrupted preparation leaves."""
    out = tmp_path_factory.mktemp("whole")
    prepare(Small(), source, out)
    return content(out)


def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    source = write_tweets(tmp_path / "source", count=300)  # the layout's own parts, which the workers can import
    (source / "data/dev7.jpg").write_bytes(b"dark")
    for workers in (0, 2):
        prepare(MvsaSingle(), source, tmp_path / str(workers), workers=workers, max_damaged=1)
    assert content(tmp_path / "0") == content(tmp_path / "2")


def test_another_writing_gives_the_same_bytes(source, whole, tmp_path, capsys):
    for _ in range(2):
        prepare(Small(), source, tmp_path)
        assert content(tmp_path) == whole
    assert "is prepared already" in capsys.readouterr().out


class Stop(BaseException):
    """As Ctrl-C."""


def stop_at(monkeypatch, place, name, number):
    """Lets a function work ``number`` times and then stop."""
    calls = iter(range(number + 1))
    function = getattr(place, name)

    def stopping(*args, **kwargs):
        if next(calls) == number:
            raise Stop
        return function(*args, **kwargs)

    monkeypatch.setattr(place, name, stopping)


def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(source, whole, tmp_path):
    """While reading, while writing a part, in TensorFlow Datasets, before the manifest and after the last renaming."""
    from c3r_jax.data.preparation.tfds_builder import Prepared

    stops = (
        (parts._Writer, "write", 5),
        (parts.msgpack, "packb", 2),
        (Prepared, "_example", 30),
        (writing, "describe_files", 0),
        (program.shutil, "rmtree", 1),
    )
    for place, name, number in stops:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
            stop_at(patch, place, name, number)
            prepare(Small(), source, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, parts._Writer, "write", 0)  # nothing is read again
        prepare(Small(), source, tmp_path)
    assert content(tmp_path) == whole


def run_killed(command, ready):
    """Starts a command and kills it, as the system does when memory ends, as soon as ``ready`` says so."""
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        while not ready() and process.poll() is None:
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_killed_it_goes_on_to_the_same_bytes(tmp_path):
    """And TensorFlow is not there at any time, though TensorFlow Datasets writes."""
    source = write_tweets(tmp_path / "source", count=600)
    out, work = tmp_path / "out", tmp_path / "out/mvsa/.1.0.0.work"
    code = (
        "import sys; from c3r_jax.commands.prepare import main; main(sys.argv[1:], 'c3r prepare');"
        "assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules;"
        "assert 'c3r_jax.data.preparation.layouts.brats' not in sys.modules"  # one layout does not import the others
    )
    command = [sys.executable, "-c", code, "mvsa", f"--source={source}", "--workers=0"]
    run_killed([*command, f"--out={out}"], lambda: len(list(work.glob("parts/*.part"))) >= 2)
    assert len(list(work.glob("parts/*.part"))) >= 2 and not (out / "mvsa/1.0.0").exists()
    prepare(MvsaSingle(), source, out)
    found = subprocess.run([*command, f"--out={tmp_path / 'whole'}"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "600         0       600      1,555  differs" in found.stdout and "checking" in found.stdout
    assert found.stderr == ""
    assert content(out) == content(tmp_path / "whole")


def test_parts_of_other_sources_and_versions_are_not_used(source, tmp_path, monkeypatch):
    class Next(Small):
        version = "1.1.0"

    items = Small().items(source)
    names = [
        {part.name for part in parts.split_into_parts(layout, place, LABELS, items)}
        for layout, place in ((Small(), source), (Small(), tmp_path), (Next(), source))
    ]
    assert len(set.union(*names)) == sum(map(len, names)) == 3 * 18
    changed = {**items, "test": items["test"][:-1]}
    again = {part.name for part in parts.split_into_parts(Small(), source, LABELS, changed)}
    assert len(again - names[0]) == 1  # the last one of the split that changed
    monkeypatch.setattr(parts, "FORMAT", parts.FORMAT + 1)
    assert not names[0] & {part.name for part in parts.split_into_parts(Small(), source, LABELS, items)}


def test_damage_is_reported_before_work_is_lost_and_can_be_mended(tmp_path, whole, capsys):
    source = write_tweets(tmp_path / "source", dark={"train3", "dev5"})
    with pytest.raises(
        DataError, match=r"(?s)2 items of mvsa cannot be used, at most 1 are allowed.*train3: image: its"
    ):
        prepare(Small(), source, tmp_path / "out", max_damaged=1)
    home = tmp_path / "out/mvsa"
    assert [one["key"] for one in json.loads((home / "damaged.json").read_text())] == ["train3", "dev5"]
    assert len(list(home.glob(".*/parts/*.part"))) == 16 and len(list(home.glob(".*/parts/*.damaged"))) == 2
    capsys.readouterr()
    made = prepare(Small(), source, tmp_path / "left out", max_damaged=2)
    assert [one["key"] for one in json.loads((made / "damaged.json").read_text())] == ["train3", "dev5"]
    assert "validation            22         1        21        518  differs" in capsys.readouterr().out
    for split, number in (("train", 3), ("dev", 5)):
        rng = np.random.default_rng([number, len(split)])
        Image.fromarray(rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)).save(
            source / f"data/{split}{number}.jpg", "png"
        )
    prepare(Small(), source, tmp_path / "out")
    assert content(tmp_path / "out") == whole


def test_a_wrong_source_ends_early(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "FAR_TOO_MANY", 6)
    source = write_tweets(tmp_path / "source", dark={f"train{i}" for i in range(22)})
    with pytest.raises(DataError, match="8 items of mvsa cannot be used so far, at most 0"):
        prepare(Small(), source, tmp_path)


def test_splits_of_which_nothing_is_left(tmp_path, capsys):
    source = write_tweets(
        tmp_path / "source", count=3, dark={f"{split}{i}" for split in ("train", "dev") for i in range(3)}
    )
    with pytest.raises(DataError, match="All 3 training items of mvsa are damaged: nothing is left to train on"):
        prepare(Small(), source, tmp_path, max_damaged=6)
    none = write_tweets(
        tmp_path / "none", count=3, dark={f"{split}{i}" for split in ("train", "dev", "test") for i in range(3)}
    )
    with pytest.raises(DataError, match="which continues from here; without them nothing is left"):
        prepare(Small(), none, tmp_path / "out of none")
    write_tweets(tmp_path / "other", count=3, dark={"test0", "test1", "test2"})
    made = prepare(Small(), tmp_path / "other", tmp_path / "out", max_damaged=3)
    assert "Warning: no item of test is left" in capsys.readouterr().out
    assert read_manifest(made)["splits"]["test"]["written"] == 0
    assert sorted(prepared_splits(made, "mvsa")) == ["train", "validation"]


def test_other_files_in_the_same_place_are_refused(source, tmp_path):
    made = prepare(Small(), source, tmp_path)
    other = write_tweets(tmp_path / "other", count=5)
    with pytest.raises(DataError, match="was prepared from other files: delete it"):
        prepare(Small(), other, tmp_path)
    with (
        program.exclusive_lock(tmp_path / "mvsa", OSError()),
        pytest.raises(DataError, match="Another process prepares"),
    ):
        prepare(Small(), source, tmp_path)
    (made / "manifest.json").unlink()
    with pytest.raises(DataError, match="was prepared from other files"):
        prepare(Small(), source, tmp_path)


def test_manifest_tells_all(source, tmp_path):
    made = prepare(Small(), source, tmp_path)
    manifest = read_manifest(made)
    assert (manifest["class_names"], manifest["class_order"]) == (list(LABELS), "sorted")
    assert manifest["splits"]["validation"] == {
        "in_source": "dev",
        "found": 22,
        "damaged": 0,
        "written": 22,
        "published": 518,
        "labelled": True,
        "mended": {},
    }
    assert manifest["lists"].keys() == {"train.jsonl", "dev.jsonl", "test.jsonl"}
    assert set(manifest["libraries"]) >= {"numpy", "pillow", "tensorflow-datasets", "array-record"}
    assert "Split 'train' has 22 items, but 1,555 are published." in manifest["warnings"]
    written = {path.name for path in made.iterdir()} - {"manifest.json"}
    assert set(manifest["files"]) == written and "mvsa-train.array_record-00000-of-00001" in written


def test_without_our_code_and_in_parts(source, tmp_path):
    """TensorFlow Datasets alone reads it: class names, images, a share of a split."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepare(Small(), source, tmp_path))
    assert builder.info.features["label"].names == list(LABELS)
    found = [builder.as_data_source(f"train[{part}]") for part in (":50%", "50%:")]
    examples = {example["key"].decode(): example for half in found for example in half}
    assert [len(half) for half in found] == [11, 11] and len(examples) == 22
    for key, example in examples.items():
        number = int(key.removeprefix("train"))
        rng = np.random.default_rng([number, 5])
        np.testing.assert_array_equal(example["image"], rng.integers(0, 256, (5, 7, 3)))
        assert (example["text"].decode(), example["label"]) == (f"tweet {number}", number % 3)
        assert example["index"] == number and example["present"].tolist() == [True, True]


def test_sources_go_to_other_processes(source, tmp_path):
    prepare(Small(), source, tmp_path)
    found = load_prepared("train", name="mvsa", path=tmp_path, image_size=5)
    example = found[3]
    again = pickle.loads(pickle.dumps(found))[3]
    np.testing.assert_array_equal(again.pop("image"), example.pop("image"))
    np.testing.assert_array_equal(again.pop("present"), example.pop("present"))
    assert again == example


def test_verify_finds_what_changed(source, tmp_path, capsys):
    made = prepare(Small(), source, tmp_path)
    main(["--verify", str(tmp_path)], "c3r prepare")
    assert "files are unchanged" in capsys.readouterr().out
    shard = next(made.glob("mvsa-test*"))
    good = shard.read_bytes()
    shard.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (made / "more.txt").write_text("more")
    load_prepared("train", path=made)  # a fast look cannot see it
    with pytest.raises(SystemExit, match=r"(?s)has SHA-256 .*more\.txt does not belong to this set"):
        main(["--verify", str(made)], "c3r prepare")
    shard.write_bytes(good[:-1])
    with pytest.raises(
        DataError, match=r"mvsa-test.* has \d+ bytes, expected \d+ \(1 such files\): prepare the set again"
    ):
        load_prepared("train", path=made)
    shard.unlink()
    with pytest.raises(SystemExit, match="is not whole"):
        main(["--verify", str(made)], "c3r prepare")
    with pytest.raises(SystemExit, match="has no prepared set"):
        main(["--verify", str(tmp_path / "nowhere")], "c3r prepare")


def test_verify_looks_at_every_set_of_a_directory(whole, tmp_path, capsys):
    made = [tmp_path / name / "1.0.0" for name in ("a", "b", "c")]
    for folder in made:
        folder.mkdir(parents=True)
        for path, written in whole.items():
            (folder / path.name).write_bytes(written)
    (made[0] / "damaged.json").write_bytes(b"[ \n")
    (made[1] / "labels-test.npy").unlink()
    with pytest.raises(SystemExit, match=r"(?s)a/1\.0\.0.*b/1\.0\.0 is not whole"):
        main(["--verify", str(tmp_path)], "c3r prepare")
    assert capsys.readouterr().out.count("files are unchanged") == 1
    main(["c", "--verify", str(tmp_path)], "c3r prepare")


def test_what_is_not_there_is_said_in_a_sentence(source, tmp_path, small_config, capsys):
    from c3r_jax.experiments.experiment import build_experiment

    small_config.data.name, small_config.data.path = "mvsa", str(tmp_path)
    with pytest.raises(
        DataError, match=r"has no prepared 'mvsa': run 'python -m c3r_jax\.data\.prepare mvsa --source DIR"
    ):
        build_experiment(small_config)
    small_config.data.path = ""
    with pytest.raises(DataError, match="config.data.path of 'mvsa' is empty: run"):
        build_experiment(small_config)
    small_config.data.name = "mnist"
    with pytest.raises(ConfigError, match="config.data.name is 'mnist': expected one of emoji, .*mvsa"):
        build_experiment(small_config)
    for arguments, reason in (
        (["mnist", "--source", str(source), "--out", str(tmp_path)], "benchmark 'mnist' is unknown: expected one of"),
        (["mvsa", "--source", str(tmp_path), "--out", str(tmp_path)], "It is available at https://mcrlab"),
        (["mvsa", "--source", str(source), "--out", str(tmp_path), "--workers", "-1"], "workers is -1"),
        (["mvsa", "--source", str(source), "--out", "/dev/null"], "/dev/null/mvsa cannot be read or written"),
    ):
        with pytest.raises(SystemExit, match=reason):
            main(arguments, "c3r prepare")
    with pytest.raises(SystemExit):
        main(["mvsa"], "c3r prepare")
    assert "NAME, --source and --out are needed" in capsys.readouterr().err
    assert issubclass(DataError, C3RError)
    made = prepare(Small(), source, tmp_path)
    with pytest.raises(DataError, match="has 'mvsa' prepared, expected 'food101'"):
        load_prepared("train", name="food101", path=made)
