"""Checkpoints without a run around them: unreadable ones are skipped, set aside and written again."""

import itertools
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.errors import CheckpointError
from c3r_jax.experiments import checkpoints as module
from c3r_jax.experiments.checkpoints import Checkpoints

LIKE = {"w": np.empty(5), "step": np.empty((), np.int32)}


def state(step):
    return {"w": np.arange(5.0) + step, "step": np.int32(step)}


@pytest.fixture
def written(tmp_path):
    """Checkpoints 1 to 3, the second the best."""
    checkpoints = Checkpoints(tmp_path, keep_last=3)
    for step, selection in ((1, 0.1), (2, 0.9), (3, 0.5)):
        checkpoints.save(step, state(step), {"next": step}, selection)
    checkpoints.close()
    return tmp_path


def spoil(workdir, step):
    """Damage that no checksum detects: the seal is lost, and a file is truncated."""
    (workdir / "checksums" / f"{step}.json").unlink()
    victims = [file for file in (workdir / "checkpoints" / str(step) / "state").rglob("*") if file.is_file()]
    for victim in victims:
        victim.write_bytes(victim.read_bytes()[:3])


def test_what_was_saved_is_restored(written):
    checkpoints = Checkpoints(written, keep_last=3)
    for order, expected in ((checkpoints.newest_first, 3), (checkpoints.best_first, 2)):
        step, found, progress = checkpoints.restore(order, LIKE)
        assert (step, progress) == (expected, {"next": expected})
        np.testing.assert_array_equal(found["w"], state(expected)["w"])
        assert found["step"] == expected
    checkpoints.close()


def test_arrays_of_the_host_are_packed_and_others_read_as_they_are(tmp_path, monkeypatch):
    """By type, bit by bit; what an earlier version wrote, or several devices, has every array by its name."""
    rng = np.random.default_rng(0)
    tree = {
        "params": [rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=4).astype(jnp.bfloat16)],
        "count": np.array(7, np.int32),
        "flags": np.array([True, False]),
        "scale": np.array(0.1, np.float32),
    }
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, tree, {"next": 1}, 0.0)
    names = (tmp_path / "checkpoints" / "1" / "state" / "_METADATA").read_text()
    assert "bfloat16" in names and "params" not in names
    with monkeypatch.context() as patch:
        patch.setattr(module, "held_whole", lambda tree: False)
        checkpoints.save(2, tree, {"next": 2}, 0.0)
    for step in (1, 2):
        number, found, progress = checkpoints.restore(lambda step=step: [step], tree)
        assert (number, progress) == (step, {"next": step})
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape
            np.testing.assert_array_equal(one, other)
    for other, message in (
        ({**tree, "flags": np.array([True])}, r"\['flags'\] is bool \[2\], expected \['flags'\], bool \[1\]"),
        ({**tree, "z": np.ones(2)}, "5 arrays, expected 6"),
    ):
        with pytest.raises(CheckpointError, match=message):
            checkpoints.restore(lambda: [1], other)
    checkpoints.close()


def test_saved_means_written_and_sealed_unless_asynchronous(tmp_path, monkeypatch):
    """Also where the clock jumps: what a killed run does again is then at most what came since the last save."""
    real, jumps = time.time, itertools.cycle((0, 3600, -3600, 3e7, -3e7))
    checkpoints = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + next(jumps))
        for step in (1, 2):
            checkpoints.save(step, state(step), {}, 0.0)
            assert (tmp_path / "checkpoints" / str(step)).is_dir() and (
                tmp_path / "checksums" / f"{step}.json"
            ).exists()
    other = Checkpoints(tmp_path, asynchronous=True)
    other.save(3, state(3), {}, 0.0)
    assert not (tmp_path / "checksums" / "3.json").exists()
    other.close()
    assert (tmp_path / "checksums" / "3.json").exists()
    checkpoints.close()


def test_a_reader_skips_a_corrupt_checkpoint_and_moves_nothing(written, caplog):
    """Training may go on in the same directory, and delete checkpoints meanwhile."""
    before = sorted(str(path) for path in written.rglob("*"))
    (written / "checkpoints" / "2" / "metrics" / "metrics").write_text("{")
    checkpoints = Checkpoints(written, reading=True)
    assert checkpoints.steps() == [1, 3] and checkpoints.restore(checkpoints.best_first, LIKE)[0] == 3
    assert "Checkpoint 2" in caplog.text and "passed over: its file metrics/metrics is changed" in caplog.text
    checkpoints.close()
    assert sorted(str(path) for path in written.rglob("*")) == before


def test_a_reader_does_not_warn_of_a_checkpoint_deleted_meanwhile(written, monkeypatch, caplog):
    def deleted(directory, sums=module._checksums):
        if directory.name == "1":
            shutil.rmtree(directory)
        return sums(directory)

    monkeypatch.setattr(module, "_checksums", deleted)
    checkpoints = Checkpoints(written, reading=True)
    assert checkpoints.steps() == [2, 3] and not caplog.text
    (written / "checkpoints" / "2" / "metrics" / "metrics").unlink()
    assert checkpoints.best_first() == [3]
    checkpoints.close()


def test_an_unreadable_checkpoint_is_set_aside_and_written_again(written, caplog):
    spoil(written, 3)
    cut = {file.name for file in (written / "checkpoints" / "3").rglob("*")}
    checkpoints = Checkpoints(written, keep_last=3)
    step, found, _ = checkpoints.restore(checkpoints.newest_first, LIKE)
    assert step == 2 and checkpoints.steps() == [1, 2, 3]  # reading alone moves nothing
    checkpoints.set_aside_after(step)
    assert checkpoints.steps() == [1, 2] and not (written / "checkpoints" / "3").exists()
    assert {file.name for file in (written / "damaged" / "3-1").rglob("*")} == cut
    assert "Checkpoint 3" in caplog.text and "it cannot be read" in caplog.text
    checkpoints.save(3, state(30), {"next": 3}, 0.5)
    checkpoints.close()
    again = Checkpoints(written, keep_last=3)
    assert again.restore(again.newest_first, LIKE)[1]["w"][0] == 30
    again.close()


def test_one_process_that_cannot_read_decides_for_all(written, monkeypatch, caplog):
    """Where the others fail, this one does not use what it could read."""
    answers = iter([False, True])
    monkeypatch.setattr(module, "true_everywhere", lambda whole: next(answers) and whole)
    checkpoints = Checkpoints(written, keep_last=3)
    assert checkpoints.restore(checkpoints.newest_first, LIKE)[0] == 2
    assert "another process cannot read it" in caplog.text
    checkpoints.close()


def test_a_checkpoint_that_only_the_first_process_sees_is_skipped(written, monkeypatch):
    """The first process sees three checkpoints, this one two: all three are tried by all."""
    values = iter([3, 3, 2])  # how many, then which
    checkpoints = Checkpoints(written, keep_last=3)
    monkeypatch.setattr(module, "from_first_process", lambda value: next(values))
    assert checkpoints.restore(lambda: [2, 1], LIKE)[0] == 3  # it is on the disk after all
    checkpoints.close()


def test_without_a_usable_checkpoint_the_error_lists_those_tried(written):
    for step in (1, 2, 3):
        spoil(written, step)
    checkpoints = Checkpoints(written, keep_last=3)
    with pytest.raises(CheckpointError, match=r"checkpoint 3: it cannot be read .*checkpoint 1: it cannot be read"):
        checkpoints.restore(checkpoints.newest_first, LIKE)
    checkpoints.close()
