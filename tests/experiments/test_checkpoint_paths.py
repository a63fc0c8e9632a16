"""Checkpoints in directories of any name, and read back before older ones are deleted."""

import json

import numpy as np
import pytest

from c3r_jax.errors import WorkdirError
from c3r_jax.experiments import checkpoints as module
from c3r_jax.experiments import plain_paths
from c3r_jax.experiments.checkpoints import Checkpoints
from c3r_jax.experiments.read_back import index_damage

LIKE = {"w": np.empty(5), "step": np.empty((), np.int32)}


def state(step):
    return {"w": np.arange(5.0) + step, "step": np.int32(step)}


def save(workdir, *steps, selections=None, **options):
    checkpoints = Checkpoints(workdir, **options)
    for step in steps:
        checkpoints.save(step, state(step), {"next": step}, (selections or {}).get(step, 0.1 * step))
    checkpoints.close()


@pytest.mark.parametrize(
    "name",
    ["run [seed=0]", "a*b", "a?b", "[ab]/run*1", "a\\b", "gs:/b", "s3:", "~x", "{a,b}", "ü ñ", "x@2", "#1 50%"],
)
def test_a_directory_of_any_name_gives_back_what_was_saved(tmp_path, name):
    """A neighbour whose name the directory's would match as a pattern has no part in it."""
    other = tmp_path / name.replace("*", "-").replace("?", "-").replace("[ab]", "a")
    if other != tmp_path / name:
        save(other, 7)
    save(tmp_path / name, 1)
    save(tmp_path / name, 3)  # resumed
    reader = Checkpoints(tmp_path / name, reading=True)
    step, found, progress = reader.restore(reader.newest_first, LIKE)
    reader.close()
    assert (step, progress) == (3, {"next": 3})
    np.testing.assert_array_equal(found["w"], state(3)["w"])


def test_a_run_below_a_working_directory_with_brackets(tmp_path, monkeypatch):
    place = tmp_path / "my [old] runs"
    place.mkdir()
    monkeypatch.chdir(place)
    save(module.pathlib.Path("run"), 1)
    reader = Checkpoints(module.pathlib.Path("run"), reading=True)
    assert reader.restore(reader.newest_first, LIKE)[0] == 1
    reader.close()


@pytest.mark.parametrize(("name", "part"), [("run [1]", "\\["), ("a*", "\\*"), ("x\\y", "\\\\"), ("gs:/b", "gs:")])
def test_several_processes_are_refused_such_a_name_before_any_work(tmp_path, monkeypatch, name, part):
    monkeypatch.setattr(plain_paths.jax, "process_count", lambda: 2)
    with pytest.raises(WorkdirError, match=f"has '{part}.*' in its path.*: rename that folder"):
        plain_paths.PlainPath(tmp_path / name / "checkpoints")
    assert plain_paths.PlainPath(tmp_path / "run" / "checkpoints").path == tmp_path / "run" / "checkpoints"


def test_nothing_is_deleted_until_the_new_checkpoint_is_read_back(tmp_path, monkeypatch):
    save(tmp_path, 1, 2, keep_last=1)
    checkpoints = Checkpoints(tmp_path, keep_last=1)
    monkeypatch.setattr(module, "index_damage", lambda path: "its index has no array 'w'")
    with pytest.raises(WorkdirError, match=r"cannot be read back \(checkpoint 3: its index has no array 'w'\): .*kept"):
        checkpoints.save(3, state(3), {}, 0.9)
    monkeypatch.undo()
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} >= {"2", "3"}
    checkpoints._manager.close()


@pytest.mark.parametrize("victim", ["manifest.ocdbt", "d", "_METADATA"])
def test_an_index_that_lacks_something_is_named(tmp_path, victim):
    save(tmp_path, 1)
    folder = tmp_path / "checkpoints/1/state"
    assert index_damage(folder) is None
    path = folder / victim
    for file in path.iterdir() if path.is_dir() else [path]:
        file.unlink()
    assert "its index" in index_damage(folder)


def test_an_array_that_only_the_description_has_is_named(tmp_path):
    save(tmp_path, 1)
    file = tmp_path / "checkpoints/1/state/_METADATA"
    described = json.loads(file.read_text())
    entry = described["tree_metadata"]["('float64',)"]
    described["tree_metadata"]["('b',)"] = {**entry, "key_metadata": [{"key": "b", "key_type": 2}]}
    file.write_text(json.dumps(described))
    assert index_damage(file.parent) == "its index has no array 'b'"


def test_the_best_and_the_newest_are_kept(tmp_path):
    """In a tie the earlier is the best, as for the reader."""
    save(tmp_path, *range(1, 7), keep_last=2, selections={2: 0.9, 4: 0.9})
    assert {int(path.name) for path in (tmp_path / "checkpoints").iterdir()} == {2, 5, 6}
    assert {path.name for path in (tmp_path / "checksums").iterdir()} == {"2.json", "5.json", "6.json"}
