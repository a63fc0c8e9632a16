"""An exported model predicts as the run does, without this package."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from c3r_jax.commands import export as command
from c3r_jax.data.sets.standardised import Standardisation
from c3r_jax.errors import CheckpointError, ConfigError, WorkdirError
from c3r_jax.experiments.encode import encode_split, without_encoders
from c3r_jax.experiments.open import open_run, restore_best, training_moments
from c3r_jax.export.loader import load
from c3r_jax.export.run import FILES, export_run
from c3r_jax.export.stablehlo import prediction
from c3r_jax.tasks.registry import named
from tests.processes import REPOSITORY

PROGRAM = """
import json, runpy, sys
sys.modules["c3r_jax"] = None  # importing it is an error from here on
import numpy as np
folder, file = sys.argv[1:]
model = runpy.run_path(folder + "/load.py")["load"](folder)
examples = json.load(open(file))
found = {str(n): model.predict(examples[:n]) for n in (1, 5, len(examples))}
for n, outputs in found.items():  # any batch size, and no row depends on its batch
    for route, logits in outputs.items():
        np.testing.assert_allclose(logits, found[str(len(examples))][route][: int(n)], atol=1e-6)
json.dump({route: logits.tolist() for route, logits in model.predict(examples).items()}, sys.stdout)
"""


@pytest.fixture(scope="module")
def own(trained_run):
    """Source and logits by (missing modality, route), by the way that evaluation predicts."""
    experiment = open_run(trained_run)
    _, params = restore_best(experiment, trained_run)
    moments, after = training_moments(experiment, params), experiment.devices.host(without_encoders(params))
    h, present, labels, _ = encode_split(experiment, params, "test")
    logits = {}
    for m, missing in enumerate(("image", "text", None)):
        kept = present & (np.arange(2) != m)
        logits[missing] = experiment.branches(after, moments, h, kept, labels).logits
    return experiment.sources["test"], logits


def test_it_predicts_as_the_run_does_where_c3r_jax_cannot_be_imported(exported, own, tmp_path):
    folder, difference = exported
    assert difference <= 1e-6
    source, logits = own
    examples = [{"image": source[i]["image"].tolist(), "text": source[i]["text"]} for i in range(12)]
    for i, missing in enumerate(("image", "text")):
        for row in range(4 * i, 4 * i + 4):
            del examples[row][missing]
    (tmp_path / "examples.json").write_text(json.dumps(examples))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "examples.json")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"representation", "instrument"}
    for route, rows in found.items():
        for begin, missing in ((0, "image"), (4, "text"), (8, None)):
            part = slice(begin, begin + 4)
            np.testing.assert_allclose(rows[part], logits[missing][route][part], atol=1e-6)
    assert np.abs(logits[None]["representation"] - logits[None]["instrument"]).max() > 1e-3


def test_the_documented_use_runs(exported, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "exported").symlink_to(exported[0])
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs" / "export.md").read_text(encoding="utf-8")
    code, serving, _ = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert serving == (REPOSITORY / "examples" / "serve.py").read_text(encoding="utf-8")
    exec(compile(code, "docs/export.md", "exec"), {})
    assert set(capsys.readouterr().out.split("\n")[:2]) <= set(load(exported[0]).labels)


def test_files_say_what_they_are(exported, trained_run):
    folder, _ = exported
    names = {path.name for path in folder.iterdir()}
    assert names == set(FILES)
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # whoever may read one may read all
    signature = json.loads((folder / "signature.json").read_text())
    assert signature["platforms"] == ["cpu", "cuda", "tpu"] and len(signature["labels"]) == 9
    assert signature["inputs"]["image"]["shape"] == [16, 16, 3] and signature["inputs"]["text"]["tokens"] == "bytes"
    card = (folder / "README.md").read_text()
    for text in ("# emoji, c3r", "## Data", "SHA-256", "was not evaluated", "modelling assumption", "food & drink"):
        assert text in card, text
    assert str(trained_run.parent).encode() not in (folder / "model.stablehlo").read_bytes()
    assert b"/c3r_jax/" not in (folder / "model.stablehlo").read_bytes()  # no folder of whoever exported


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ([], "An example must be an object with at least one of image, text."),
        ({}, "An example must be an object with at least one of image, text."),
        ({"sound": [1.0]}, "Modality 'sound' is unknown: expected one of image, text."),
        ({"image": "a.png"}, "'image' is a image, but a str was given: give numbers."),
        ({"image": [[1, 2], [3]]}, "'image' must be uint8 of shape (16, 16, 3) from 0 to 255, but its rows differ"),
        ({"image": [1, 2]}, "but a int64 array of shape (2,) was given."),
        ({"image": np.full((16, 16, 3), 256)}, "some values are not such whole numbers"),
        ({"image": np.full((16, 16, 3), 0.5)}, "some values are not such whole numbers"),
        ({"image": np.full((16, 16, 3), np.nan)}, "some values are not finite"),
        ({"text": None}, "All modalities of the example are missing: expected one of image, text."),
        ({"text": "", "image": None}, "All modalities of the example are missing: expected one of image, text."),
        ({"text": [1, None]}, "'text' must be int32 of shape (16,) from 0 to 257, but some of its values are null"),
    ],
)
def test_unusable_examples_are_one_sentence(exported, example, message):
    with pytest.raises(ValueError) as caught:
        load(exported[0]).predict([example])
    assert message in str(caught.value)


def test_batches_keep_to_powers_of_two_where_asked(exported):
    model, sizes = load(exported[0]), []

    def call(inputs, present):
        sizes.append(len(present))
        return {"representation": np.arange(len(present))[:, None]}

    model.call = call
    for padded in (False, True):
        for n in (1, 3, 4):
            found = model.predict([{"text": "apple"}] * n, padded=padded)["representation"]
            np.testing.assert_array_equal(found, np.arange(n)[:, None])
    assert sizes == [1, 3, 4, 1, 4, 4]


@pytest.mark.parametrize(
    ("task", "logits", "label"),
    [
        ("classification", [0.1, -1.0, 0.3], "c"),
        ("multilabel", [0.1, -1.0, 0.3], ["a", "c"]),
        ("multilabel", [-1.0, -1.0, -0.3], []),
        ("regression", [0.3], None),
    ],
)
def test_labels_are_named(exported, task, logits, label):
    model = load(exported[0])
    assert model.signature["decision"] == "largest"
    model.signature, model.labels = {**model.signature, "decision": named(task).decision}, ["a", "b", "c"]
    assert model.label(np.array(logits)) == label


def test_a_refused_export_leaves_nothing_behind(trained_run, tmp_path, monkeypatch):
    from c3r_jax.export import run as export

    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(CheckpointError, match="differs from the model by .*nothing was written"):
        export.export_run(trained_run, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_earlier_export_is_replaced_file_by_file(tmp_path):
    from c3r_jax.export.run import _move

    def folder(name, **files):
        (tmp_path / name).mkdir()
        for stem, text in files.items():
            (tmp_path / name / f"{stem}.json").write_text(text)
        return tmp_path / name

    _move(folder("first", signature="1", tokenizer="1"), tmp_path / "out")
    (tmp_path / "out" / "own.txt").write_text("kept")
    _move(folder("second", signature="2"), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"signature.json", "own.txt"}
    assert (tmp_path / "out" / "signature.json").read_text() == "2"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("README.md", "mine"),
        ("load.py", "mine"),
        ("signature.json", "[]"),
        ("signature.json", '{"name": "x"}'),
        ("", "f"),
    ],
)
def test_a_folder_with_files_of_its_own_is_refused(tmp_path, name, text):
    """Before anything is read: there is not even a run."""
    file = tmp_path / "out" / name if name else tmp_path / "out"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    with pytest.raises(WorkdirError, match=f"{name} is there, and of no earlier export" if name else "out is a file"):
        export_run(tmp_path, tmp_path / "out")
    assert file.read_text() == text
    if name:  # files that no export writes are not in the way
        file.rename(file.with_name(".gitattributes"))
        with pytest.raises(WorkdirError, match="config.json"):
            export_run(tmp_path, tmp_path / "out")


def test_the_command_names_the_files_that_it_wrote(exported, tmp_path, monkeypatch, capsys):
    """Into an earlier export, beside files of its own."""

    def refuse(workdir):
        raise WorkdirError("as far as this")

    shutil.copytree(exported[0], tmp_path / "out")
    (tmp_path / "out" / "own.txt").write_text("kept")
    monkeypatch.setattr("c3r_jax.export.run.open_run", refuse)
    with pytest.raises(SystemExit, match="as far as this"):
        command.main(["--workdir=run", f"--out={tmp_path / 'out'}"], "c3r export")
    monkeypatch.setattr(command, "export_run", lambda workdir, out: 0.0)
    command.main(["--workdir=run", f"--out={tmp_path / 'out'}"], "c3r export")
    assert capsys.readouterr().out.startswith(f"wrote {', '.join(sorted(FILES))} to {tmp_path / 'out'}; largest")


def test_features_are_standardised_inside(trained_run):
    """As the data pipeline does before training, padding included."""
    standardisation = Standardisation({"a": np.array([1.0, 2.0])}, {"a": np.array([2.0, 4.0])})
    seen = {}

    class Model:
        def apply(self, variables, inputs, present, route, method):
            seen.update(inputs)
            return inputs["a"]

        def __call__(self):
            pass

    weights = {
        "params/w": np.ones(1),
        "standardisation/mean/a": np.array([1.0, 2.0]),
        "standardisation/scale/a": np.array([2.0, 4.0]),
    }
    for values in (np.array([[3.0, 10.0]]), np.array([[[3.0, 10.0], [0.0, 0.0]]])):
        prediction(Model(), standardisation)(weights, {"a": values}, None)
        expected = standardisation.apply("a", values, sequence=values.ndim == 3)
        np.testing.assert_allclose(seen["a"], expected)


def test_errors(trained_run, tmp_path, monkeypatch):
    from c3r_jax.export import run as export

    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="config.json does not exist"):
        export.export_run(tmp_path, tmp_path / "out")
    monkeypatch.setattr(export, "export_model", lambda *a, **k: (tmp_path / "file" / "x").write_text(""))
    with pytest.raises(WorkdirError, match="cannot be written .*choose another --out"):
        export.export_run(trained_run, tmp_path / "out")
    experiment = export.open_run(trained_run)
    contrastive = dataclasses.replace(experiment, method=experiment.method._replace(task="softmax"))
    monkeypatch.setattr(export, "open_run", lambda path: contrastive)
    with pytest.raises(ConfigError, match="only runs with labels"):
        export.export_run(trained_run, tmp_path / "out")
