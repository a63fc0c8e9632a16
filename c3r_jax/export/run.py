"""Exports a trained run: the best checkpoint with its weights, signature and model card."""

import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from c3r_jax.core.moments import Moments
from c3r_jax.data.source import kinds_and_shapes
from c3r_jax.errors import CheckpointError, ConfigError, WorkdirError
from c3r_jax.experiments.calibrate import calibrated, fitted_calibration
from c3r_jax.experiments.encode import encode_batches, without_encoders
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.experiments.open import open_run, restore_best, training_moments
from c3r_jax.experiments.workdir import RESULTS
from c3r_jax.export.loader import Model, load
from c3r_jax.export.model_card import model_card
from c3r_jax.export.stablehlo import Input, export_model, flat_weights
from c3r_jax.files.atomic import write_text
from c3r_jax.metrics.biases import Biases
from c3r_jax.models.twin import rows_of, with_moments

ROWS = 32  # rows of the evaluation split on which the export is compared with the model
TOLERANCE = 1e-4  # for logits up to 1; scaled by the largest logit above that, as rounding errors are
COARSE = 3e-2  # in its place where products are rounded to fewer than float32's digits, in another order each time
TOKENIZER = "tokenizer.json"
FILES = ("README.md", "load.py", "model.stablehlo", "signature.json", TOKENIZER, "weights.safetensors")  # of an export


def export_run(workdir: str | os.PathLike[str], out: str | os.PathLike[str]) -> float:
    """Exports the best checkpoint of a run.

    Everything is written to a folder beside ``out``, which replaces ``out`` once the export predicts as the model does.
    A refused export leaves nothing behind.

    Args:
      workdir: directory of a trained run.
      out: folder to write to; files of an earlier export are replaced, and none of anything else.

    Returns:
      The largest difference between logits of the export and of the model, on :data:`ROWS` rows.

    Raises:
      ConfigError: the run is contrastive and has no logits.
      CheckpointError: the export does not predict as the model does.
      WorkdirError, CheckpointError, DataError: a file is missing or damaged, or ``out`` has other files or cannot be
        written.
    """
    workdir, out = pathlib.Path(workdir), pathlib.Path(out)
    _check_out(out)
    experiment = open_run(workdir)
    if experiment.method.contrastive:
        raise ConfigError(f"config.task is {experiment.method.task!r}: only runs with labels can be exported.")
    step, params = restore_best(experiment, workdir)
    moments = training_moments(experiment, params)
    variables = {"params": experiment.devices.host(params)}
    variables = variables if moments is None else with_moments(variables, moments)
    calibration = fitted_calibration(experiment, params, moments)
    weights = flat_weights(variables, experiment.standardisation, calibration)
    results = workdir / RESULTS
    scores = json.loads(results.read_text(encoding="utf-8")) if results.exists() else None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
            folder = pathlib.Path(temporary) / "export"
            folder.mkdir()
            info = experiment.sources["train"].info
            export_model(
                experiment.model,
                weights,
                input_specs(experiment),
                folder,
                standardisation=experiment.standardisation,
                labels=list(info.class_names),
                task=experiment.method.task,
            )
            exported = load(folder)
            difference, rows = _difference(experiment, params, moments, calibration, exported)
            details = _card_details(experiment) | {"step": step, "rows": rows, "difference": difference}
            write_text(folder / "README.md", model_card(exported.signature, details, scores))
            if any(spec["kind"] == "text" for spec in exported.inputs.values()):
                published = experiment.tokenizer.to_hugging_face()
                write_text(folder / TOKENIZER, published.content if published else experiment.tokenizer.to_json())
            _move(folder, out)
    except OSError as error:
        raise WorkdirError(f"{out} cannot be written ({error.strerror}): choose another --out.") from error
    return difference


def _difference(
    experiment: Experiment, params: Any, moments: Moments | None, calibration: dict[str, Biases], exported: Model
) -> tuple[float, int]:
    """The largest difference of a logit to the run's, which must be rounding error, and the number of rows.

    The export gets rows as its users have them, the run those that evaluation reads.
    """
    split = experiment.settings.eval.split
    batch, raw = (next(experiment.eval_iterator(source)) for source in (split, experiment.raw[split]))
    h, present, labels, _ = encode_batches(experiment, params, [batch])
    h, present, labels = {name: value[:ROWS] for name, value in h.items()}, _some_missing(present[:ROWS]), labels[:ROWS]
    after_encoders = experiment.devices.host(without_encoders(params))
    parts = [
        calibrated(
            experiment.branches(after_encoders, moments, *rows, seed=experiment.settings.seed), calibration
        ).logits
        for rows in _rows(h, present, labels, maps=experiment.method.spec.dense)
    ]
    expected = {route: np.concatenate([part[route] for part in parts]) for route in parts[0]}
    inputs = {name: raw["inputs"][name][: len(present)].astype(spec["dtype"]) for name, spec in exported.inputs.items()}
    found = {route: x.reshape(-1, x.shape[-1]) for route, x in exported.call(inputs, present).items()}
    difference = max(float(np.abs(found[route] - expected[route]).max()) for route in expected)
    allowed = _tolerance(experiment) * max(1.0, *(float(np.abs(logits).max()) for logits in expected.values()))
    if not difference <= allowed:
        raise CheckpointError(
            f"The export differs from the model by {difference}, expected at most {allowed}: nothing was written."
        )
    return difference, len(present)


def _rows(
    h: dict[str, np.ndarray], present: np.ndarray, labels: np.ndarray, *, maps: bool
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
    """Encoded examples at once; maps one by one, as in evaluation: voxels of all may not fit in memory."""
    if not maps:
        yield h, present, labels
        return
    for i in range(len(labels)):
        voxels, (kept,) = rows_of({name: value[i : i + 1] for name, value in h.items()}, present[i : i + 1])
        yield voxels, np.asarray(kept), labels[i].reshape(-1)


def _tolerance(experiment: Experiment) -> float:
    """:data:`TOLERANCE`; :data:`COARSE` for half precision, and on GPUs and TPUs, which round products by default."""
    exact = experiment.settings.model.dtype == "float32" and jax.default_backend() == "cpu"
    return TOLERANCE if exact else COARSE


def _card_details(experiment: Experiment) -> dict[str, Any]:
    """Details of data and training for the model card."""
    info = experiment.sources["train"].info
    return {
        "dataset": info.name,
        "split_sizes": {split: len(source) for split, source in experiment.sources.items()},
        "sha256": info.sha256,
        "method": experiment.method.name,
        "seed": experiment.settings.seed,
        "selected_by": f"validation {experiment.settings.train.select_by}",
        "config": json.loads(experiment.config.to_json()),
    }


def _check_out(out: pathlib.Path) -> None:
    """Refuses a place where an export would replace files that are not of an earlier export."""
    if out.exists() and not out.is_dir():
        raise WorkdirError(f"{out} is a file: choose another --out.")
    own = [name for name in FILES if (out / name).exists()]
    try:
        signature = json.loads((out / "signature.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        signature = None  # none that an export wrote
    if own and not (isinstance(signature, dict) and {"inputs", "labels"} <= signature.keys()):
        raise WorkdirError(
            f"{out / own[0]} is there, and of no earlier export: choose another --out, or move what would be replaced."
        )


def _move(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Moves a finished export to ``out``; files of an earlier export there are replaced."""
    if not out.exists():
        folder.rename(out)
        return
    (out / TOKENIZER).unlink(missing_ok=True)  # the only file that not every export has
    for path in folder.iterdir():
        path.replace(out / path.name)


def input_specs(experiment: Experiment) -> dict[str, Input]:
    """The modalities of a run, as an export's signature describes them."""
    kinds, _ = kinds_and_shapes(experiment.sources["train"])
    batch = experiment.example_batch()["inputs"]
    columns = experiment.sources["train"].info.columns
    specs = {}
    for name in experiment.model.modalities:
        kind, limit, tokens, rules = kinds[name], 0, "", None
        if kind == "text":
            limit, published = experiment.tokenizer.vocab_size, experiment.tokenizer.to_hugging_face()
            tokens = "give the ids of tokenizer.json, padded with 0" if published else "bytes"
            rules = published.rules if published else None
            if padding := experiment.tokenizer.padding_row:
                tokens += f", with {padding} (its padding) and 0 exchanged"
        elif batch[name].dtype == np.uint8:
            limit = 256
        shape, dtype = tuple(map(int, batch[name].shape[1:])), batch[name].dtype.name
        specs[name] = Input(kind, shape, dtype, limit, tokens, columns.get(name, ()), rules)
    return specs


def _some_missing(present: np.ndarray) -> np.ndarray:
    """A copy of ``present`` in which every second row lacks one modality, each in turn, but never its last one."""
    present = np.array(present)
    for row in range(0, len(present), 2):
        column = row // 2 % present.shape[1]
        if present[row].sum() > 1:
            present[row, column] = False
    return present
