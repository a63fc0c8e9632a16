"""Exports a run: StableHLO for CPU, CUDA and TPU, weights, label names and a model card."""

import argparse
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from c3r_jax.data.source import describe
from c3r_jax.errors import C3RError, CheckpointError, ConfigError, WorkdirError
from c3r_jax.evaluation.trained import open_run, restore_best, training_moments
from c3r_jax.interop.export import Input, export_model, flat_weights, prediction
from c3r_jax.interop.loader import Model, load
from c3r_jax.models.twin import with_moments
from c3r_jax.report.card import model_card
from c3r_jax.training.experiment import Experiment
from c3r_jax.training.workdir import RESULTS, write_text

ROWS = 32  # of the evaluation split, on which the export is compared with the model
TOLERANCE = 1e-5  # of logits up to 1; of larger ones, as their rounding is, in proportion to the largest
TOKENIZER = "tokenizer.json"


def export_run(workdir: str | os.PathLike[str], out: str | os.PathLike[str]) -> float:
    """Exports the best checkpoint of a run.

    Everything is written to a folder beside ``out`` and takes its place once the export was found to predict as the
    model does: a refused export leaves nothing behind.

    Args:
      workdir: a directory made by training.
      out: folder to write to; files of an earlier export are replaced.

    Returns:
      The largest difference between logits of the export and of the model, on :data:`ROWS` rows.

    Raises:
      ConfigError: of a contrastive run, which has no logits.
      CheckpointError: the export does not predict as the model does.
      WorkdirError, CheckpointError, DataError: something needed is missing or damaged, or ``out`` cannot be written.
    """
    workdir, out = pathlib.Path(workdir), pathlib.Path(out)
    experiment = open_run(workdir)
    if experiment.method.contrastive:
        raise ConfigError(f"config.task is {experiment.method.task!r}: only runs with labels can be exported.")
    step, params = restore_best(experiment, workdir)
    moments = training_moments(experiment, params)
    variables = {"params": experiment.devices.host(params)}
    variables = variables if moments is None else with_moments(variables, moments)
    weights = flat_weights(variables, experiment.standardisation)
    results = workdir / RESULTS
    measured = json.loads(results.read_text(encoding="utf-8")) if results.exists() else None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as beside:
            made = pathlib.Path(beside) / "export"
            made.mkdir()
            info = experiment.sources["train"].info
            export_model(
                experiment.model,
                weights,
                inputs_of(experiment),
                made,
                standardisation=experiment.standardisation,
                labels=list(info.class_names),
                task=experiment.method.task,
            )
            exported = load(made)
            difference, rows = _difference(experiment, weights, exported)
            facts = _facts(experiment) | {"step": step, "rows": rows, "difference": difference}
            write_text(made / "README.md", model_card(exported.signature, facts, measured))
            if any(one["kind"] == "text" for one in exported.inputs.values()):
                write_text(made / TOKENIZER, experiment.tokenizer.to_json())
            _put(made, out)
    except OSError as error:
        raise WorkdirError(f"{out} cannot be written ({error.strerror}): choose another --out.") from error
    return difference


def _difference(experiment: Experiment, weights: dict[str, np.ndarray], exported: Model) -> tuple[float, int]:
    """The largest difference of a logit to the model's own, which has to be rounding, and of how many rows it is."""
    rows = next(experiment.eval_iterator(experiment.config.eval.split))
    inputs = {name: value[:ROWS] for name, value in rows["inputs"].items()}
    present = _some_missing(rows["present"][:ROWS])
    own = jax.jit(prediction(experiment.model, experiment.standardisation))(weights, inputs, present)
    found = exported.call(inputs, present)
    difference = max(float(np.abs(found[route] - np.asarray(own[route])).max()) for route in own)
    allowed = TOLERANCE * max(1.0, *(float(np.abs(np.asarray(logits)).max()) for logits in own.values()))
    if not difference <= allowed:
        raise CheckpointError(
            f"The export differs from the model by {difference}, expected at most {allowed}: nothing was written."
        )
    return difference, len(present)


def _facts(experiment: Experiment) -> dict[str, Any]:
    """What the model card tells of the data and the training."""
    info = experiment.sources["train"].info
    return {
        "dataset": info.name,
        "split_sizes": {split: len(source) for split, source in experiment.sources.items()},
        "sha256": info.sha256,
        "method": experiment.method.name,
        "seed": experiment.config.seed,
        "selected_by": f"validation {experiment.config.train.select_by}",
        "config": json.loads(experiment.config.to_json()),
    }


def _put(made: pathlib.Path, out: pathlib.Path) -> None:
    """Gives a finished folder its name; of a folder that is there already, an earlier export's files are replaced."""
    if not out.exists():
        made.rename(out)
        return
    (out / TOKENIZER).unlink(missing_ok=True)  # the one file that not every export has
    for path in made.iterdir():
        path.replace(out / path.name)


def inputs_of(experiment: Experiment) -> dict[str, Input]:
    """The modalities of a run as an export describes them."""
    kinds, _ = describe(experiment.sources["train"])
    batch = experiment.example_batch()["inputs"]
    found = {}
    for name in experiment.model.modalities:
        kind, limit, tokens = kinds[name], 0, ""
        if kind == "text":
            limit = experiment.tokenizer.vocab_size
            saved = json.loads(experiment.tokenizer.to_json())
            tokens = "bytes" if saved.get("kind") == "byte" else "give the ids of tokenizer.json, padded with 0"
        elif batch[name].dtype == np.uint8:
            limit = 256
        found[name] = Input(kind, tuple(map(int, batch[name].shape[1:])), batch[name].dtype.name, limit, tokens)
    return found


def _some_missing(present: np.ndarray) -> np.ndarray:
    """Presence in which every second row lacks one modality, each in turn, but never its last one."""
    present = np.array(present)
    for row in range(0, len(present), 2):
        column = row // 2 % present.shape[1]
        if present[row].sum() > 1:
            present[row, column] = False
    return present


def parser(program: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Exports the best checkpoint of a run: model.stablehlo (any batch size; CPU, CUDA and TPU), "
        "weights.safetensors, signature.json with the label names, load.py, which needs nothing of c3r_jax, and "
        "README.md, a model card.",
        epilog=f"example: {program} --workdir runs/emoji --out exported",
    )
    parser.add_argument("--workdir", required=True, help="directory of a trained run")
    parser.add_argument("--out", required=True, help="folder to write to")
    return parser


def main(arguments: Sequence[str], program: str) -> None:
    """Exports, or says in one sentence why it cannot."""
    given = parser(program).parse_args(arguments)
    logging.set_verbosity(logging.WARNING)
    try:
        difference = export_run(given.workdir, given.out)
    except C3RError as error:
        sys.exit(f"{program}: {error}")
    files: Any = ", ".join(sorted(path.name for path in pathlib.Path(given.out).iterdir() if path.is_file()))
    print(f"wrote {files} to {given.out}; largest difference to the model {difference:.1e}")
