"""c3r report explain: one example in words, as a page, a picture and data; the same records in results.json."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from c3r_jax.commands.report import main
from c3r_jax.data.sets.emoji import load_emoji
from c3r_jax.errors import DataError
from c3r_jax.evaluation import examples as module
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.report.examples import explain


@pytest.fixture(scope="module")
def run(trained_run, tmp_path_factory):
    """A copy of the run whose predictions are calibrated."""
    copy = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(trained_run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["eval"]["calibrate"] = "biases"
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.fixture(scope="module")
def results(run):
    return evaluate(run)


def test_results_show_the_examples_with_the_largest_risks(results, small_emoji):
    source = load_emoji("test", path=small_emoji, image_size=16)
    for risk, records in results["examples"].items():
        risks = [record["risk"][risk] for record in records]
        assert len(records) == 4 and risks == sorted(risks, reverse=True) and 0 <= risks[-1] <= 1
    for record in [*results["examples"]["sufficiency"], *results["examples"]["necessity"]]:
        (row,) = np.flatnonzero(source.index == record["index"])
        picture = Image.open(io.BytesIO(base64.b64decode(record["inputs"]["image"]["png"])))
        np.testing.assert_array_equal(np.asarray(picture), source[row]["image"])
        assert record["inputs"]["text"]["text"] == source[row]["text"]
        assert record["label"] == source.info.class_names[source[row]["label"]]
        predictions = record["predictions"]
        np.testing.assert_allclose(
            record["risk"]["sufficiency"], 1 - predictions["instrument"]["label_probability"], atol=1e-6
        )
        np.testing.assert_allclose(
            record["risk"]["necessity"], predictions["counterfactual"]["label_probability"], atol=1e-6
        )


def test_what_is_enough_alone_predicts_the_class_that_is_shown(results):
    for record in [*results["examples"]["sufficiency"], *results["examples"]["necessity"]]:
        shown = record["predictions"]["representation"]["class"]
        for found in record["modalities"].values():
            assert found["sufficient"] == (found["present"] and found["alone"]["class"] == shown)
            assert found["necessary"] == (found["present"] and found["without"]["class"] != shown)


def test_command_tells_and_writes_the_same(results, run, tmp_path, capsys):
    record = results["examples"]["necessity"][0]
    number = record["index"]
    assert results["calibration"]
    main(["explain", f"--workdir={run}", f"--example={number}", f"--out={tmp_path}"], "c3r report")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Example {number} “{record['inputs']['text']['text']}”, label {record['label']}")
    assert lines[1:-1] == explain(record) and "necessary" in lines[2]
    page = (tmp_path / f"example_{number}.html").read_text(encoding="utf-8")
    assert record["inputs"]["image"]["png"] in page and "hypothetical world" in page and "c3r report explain" in page
    assert (tmp_path / f"example_{number}.png").stat().st_size > 5000
    assert json.loads((tmp_path / f"example_{number}.json").read_text())["words"] == explain(record)


def test_errors_are_one_sentence(trained_run, tmp_path):
    with pytest.raises(SystemExit, match="c3r report: .*config.json does not exist"):
        main(["explain", f"--workdir={tmp_path}", "--example=1"], "c3r report")
    with pytest.raises(DataError, match="The test split has no example 99999: its .* numbers go from .*, such as "):
        module.explain_example(trained_run, 99999)


def test_words_for_every_case():
    def said(class_, probability=0.5, label_probability=0.25):
        return {"class": class_, "probability": probability, "label_probability": label_probability}

    def record(necessary, sufficient, now="a", left="b"):
        one = {
            "present": True,
            "necessary": necessary,
            "sufficient": sufficient,
            "without": said("b"),
            "alone": said("a"),
        }
        predictions = {"representation": said(now), "instrument": said("a"), "counterfactual": said(left)}
        return {
            "index": 1,
            "label": "a",
            "inputs": {},
            "predictions": predictions,
            "risk": {"sufficiency": 0.75, "necessity": 0.25},
            "modalities": {"m": one, "n": {**one, "present": False}},
        }

    assert explain(record(True, False))[1].startswith(
        "m is necessary but not enough alone: without it the prediction becomes"
    )
    assert explain(record(False, True))[1].startswith(
        "m is not necessary but enough alone: without it the prediction stays"
    )
    assert "necessary and enough" in explain(record(True, True))[1]
    assert "not necessary and not enough" in explain(record(False, False))[1]
    words = explain(record(True, True))
    assert (
        "which is correct" in words[0] and words[2] == "n: this example has none." and "becomes b (0.50)" in words[-1]
    )
    assert "which is incorrect; the label is a (0.25)" in explain(record(True, True, now="b"))[0]
    assert "stays a" in explain(record(True, True, left="a"))[-1]
