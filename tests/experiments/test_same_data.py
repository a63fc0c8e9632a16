"""A run is resumed, evaluated and exported only with the data that it was trained on, wherever they lie."""

import json
import shutil

import pytest

from c3r_jax.data.sets.emoji import load_emoji, read_index, write_subset
from c3r_jax.errors import CheckpointError, DataError
from c3r_jax.experiments.checkpoints import JSON_FILES
from c3r_jax.experiments.open import open_run
from c3r_jax.experiments.workdir import config_text
from c3r_jax.training.loop import fit


def note(workdir, step, noted):
    """A checkpoint as training leaves it, as far as it notes the data."""
    path = workdir / "checkpoints" / str(step) / JSON_FILES[1]
    path.parent.mkdir(parents=True)
    path.write_text(noted)
    (path.parents[1] / JSON_FILES[0]).parent.mkdir()
    (path.parents[1] / JSON_FILES[0]).write_text('{"selection": 0.5}')


@pytest.fixture
def run(small_config, small_emoji, tmp_path):
    """A run on the small set, with a checkpoint that notes its data but has no state."""
    train = load_emoji("train", path=small_emoji, image_size=16)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(config_text(small_config))
    known = {"dataset": "emoji", "sha256": train.info.sha256, "num_examples": len(train)}
    note(tmp_path / "run", 4, json.dumps({"iterator": known}))
    return tmp_path / "run"


def other(path):
    """Another set in the place of the run's."""
    write_subset(path, read_index()[0]["items"][::7])


def moved(run, config, path):
    """The run, whose data lie in another place now."""
    config.data.path = str(path)
    (run / "config.json").write_text(config_text(config))


def test_changed_data_is_refused_whatever_the_place(run, small_config, tmp_path):
    other(tmp_path / "emoji.zip")
    moved(run, small_config, tmp_path / "emoji.zip")
    message = r"'emoji' is not what the run in .* was trained on \(sha256 was '\w+', is '\w+'; num_examples was "
    for split in (None, "test", "validation"):
        with pytest.raises(DataError, match=message):
            open_run(run, split)


def test_a_copy_of_the_data_is_the_same_data(run, small_config, small_emoji, tmp_path):
    for file in (small_emoji, small_emoji.with_name("emoji.zip.sha256")):
        shutil.copy(file, tmp_path)
    moved(run, small_config, tmp_path / "emoji.zip")
    assert len(open_run(run, "test").sources["train"])


def test_data_may_move_between_two_parts_of_a_run(small_config, small_emoji, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(small_emoji.parent, tmp_path / name)
    small_config.train.steps = 1
    small_config.data.path = str(tmp_path / "a" / small_emoji.name)
    fit(small_config, tmp_path / "run")
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(DataError, match=r"config\.data\.path .* is '.*', which does not exist: .* write its new place"):
        open_run(tmp_path / "run")
    small_config.data.path = str(tmp_path / "b" / small_emoji.name)
    assert fit(small_config, tmp_path / "run").steps == 1
    assert len(open_run(tmp_path / "run").sources["train"])


@pytest.mark.parametrize("noted", ['{"iterator": {"next_batch": 4}}', '{"iterator": {"sha256": null}}', '{"iter', "[]"])
def test_what_is_not_noted_is_not_compared(run, noted):
    shutil.rmtree(run / "checkpoints")
    note(run, 8, noted)
    assert open_run(run).settings.eval.split == "test"


def test_the_newest_checkpoint_that_can_be_read_is_asked(run, small_config, tmp_path):
    note(run, 12, '{"iter')
    other(tmp_path / "emoji.zip")
    moved(run, small_config, tmp_path / "emoji.zip")
    with pytest.raises(DataError, match="trained on"):
        open_run(run)


@pytest.mark.parametrize(("changed", "error"), [(True, DataError), (False, CheckpointError)])
def test_a_refused_resume_leaves_every_file_as_it_was(run, small_config, tmp_path, changed, error):
    if changed:
        other(tmp_path / "emoji.zip")
        moved(run, small_config, tmp_path / "emoji.zip")
        small_config.data.num_workers = 1  # may change, and would be written down
    for name in ("tokenizer.json", "standardisation.json"):
        (run / name).write_text("as it was trained")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(error, match="was trained on|No usable checkpoint"):
        fit(small_config, run)
    assert before == {path: path.read_bytes() for path in before}
