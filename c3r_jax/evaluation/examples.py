"""Single examples for a reader: inputs, predictions in both worlds, and the modalities the prediction depends on."""

import base64
import functools
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from PIL import Image
from scipy.special import softmax

from c3r_jax.data.source import kind_of
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.evaluation.attribution import attribution
from c3r_jax.evaluation.conditions import Encoded
from c3r_jax.experiments.calibrate import calibrated, fitted_calibration
from c3r_jax.experiments.encode import encode_split, without_encoders
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.experiments.open import open_run, restore_best
from c3r_jax.metrics.biases import Biases
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.models.branches import Branches
from c3r_jax.models.twin import apply

SHOWN = 4  # examples per risk
SIDE = 96  # pixels of a picture's longer side


def explain_example(workdir: str | os.PathLike[str], number: int, *, split: str | None = None) -> dict[str, Any]:
    """The record of one example of a classification run, by its number ("index").

    Args:
      workdir: a directory made by training.
      number: the example's index, as in reports.
      split: a split in place of ``config.eval.split``.

    Raises:
      ConfigError: the run has another task.
      DataError: the split has no such example.
      WorkdirError, CheckpointError: something needed is missing or corrupt.
    """
    experiment = open_run(workdir, split)
    if not experiment.method.spec.one_class_per_example:
        raise ConfigError(f"config.task is {experiment.method.task!r}: only predictions of classes can be explained.")
    _, params = restore_best(experiment, workdir)
    head_params = experiment.devices.host(without_encoders(params))
    train_h, train_present, *_ = encode_split(experiment, params, "train")
    moments = experiment.branches.measure_moments(head_params, train_h, train_present)
    name = experiment.settings.eval.split
    encoded = encode_split(experiment, params, name)
    h, present, labels, index = encoded
    rows = np.flatnonzero(index == number).tolist()
    if not rows:
        raise DataError(
            f"The {name} split has no example {number}: its {len(index)} numbers go from {index.min()} to "
            f"{index.max()}, such as {', '.join(map(str, index[:3]))}."
        )
    branches = experiment.branches(head_params, moments, h, present, labels, seed=experiment.settings.seed)
    calibration = fitted_calibration(experiment, params, moments)
    return example_records(
        experiment,
        head_params,
        experiment.sources[name],
        rows=rows,
        encoded=encoded,
        branches=calibrated(branches, calibration),
        means=modality_means(train_h, train_present),
        calibration=calibration,
    )[0]


def modality_means(h: Mapping[str, np.ndarray], present: np.ndarray) -> dict[str, np.ndarray]:
    """Mean representation (d,) of each modality over the rows that have it.

    Args:
      h: {modality: (n, d)} in sorted order.
      present: (n, M) bool.
    """
    return {
        name: h[name][present[:, m]].mean(0) if present[:, m].any() else np.zeros(h[name].shape[1], h[name].dtype)
        for m, name in enumerate(sorted(h))
    }


def riskiest(branches: Branches, labels: np.ndarray, count: int = SHOWN) -> dict[str, list[int]]:
    """Rows with the largest risks, the largest first.

    Sufficiency: 1 - p_y(z_c), the causal part alone does not predict the label. Necessity: p_y(z_bar), the label is
    predicted although the causal part has been removed.

    Args:
      branches: branches of n rows.
      labels: (n,) class ids.
      count: rows for each risk.
    """
    sufficiency, necessity = row_risks(branches, labels)
    return {
        "sufficiency": np.argsort(-sufficiency, kind="stable")[:count].tolist(),
        "necessity": np.argsort(-necessity, kind="stable")[:count].tolist(),
    }


def row_risks(branches: Branches, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 - p_y(z_c) and p_y(z_bar), each (n,); NaN counts as risk 1."""
    rows = np.arange(len(labels))
    causal = softmax(branches.logits["instrument"], axis=1)[rows, labels]
    counterfactual = softmax(branches.counterfactual_logits, axis=1)[rows, labels]
    return np.nan_to_num(1 - causal, nan=1.0), np.nan_to_num(counterfactual, nan=1.0)


def example_records(
    experiment: Experiment,
    params: Any,
    source: Any,
    *,
    rows: Sequence[int],
    encoded: Encoded,
    branches: Branches,
    means: Mapping[str, np.ndarray],
    calibration: Mapping[str, Biases],
) -> list[dict[str, Any]]:
    """Records of some examples of a classification run for a report, ready for JSON.

    Args:
      experiment: the run.
      params: parameters after the encoders.
      source: the examples' inputs; ``source[row]`` is the example of a row.
      rows: the examples' rows.
      encoded: all examples of the source, see ``encode_split``.
      branches: branches of all examples, calibrated.
      means: :func:`modality_means` of the training split.
      calibration: by route, which what single modalities predict is calibrated with, too; {}: none.
    """
    if not rows:
        return []
    model, chosen = experiment.model, np.asarray(rows)
    h, present, labels, index = encoded
    variables = {"params": params}
    head, fuse = (functools.partial(apply, model, variables, method) for method in (model.predict, model.fuse))
    through_z = calibration.get(ROUTES[0])

    def predict(z: Array) -> Array:
        return head(z) if through_z is None else through_z(head(z))

    features = {name: jnp.asarray(value[chosen]) for name, value in h.items()}
    branches, labels = jax.tree.map(lambda value: value[chosen], (branches, labels))
    centres = {name: jnp.asarray(value) for name, value in means.items()}
    effects = jax.device_get(attribution(predict, fuse, features, jnp.asarray(present[chosen]), centres))
    names = source.info.class_names
    sufficiency, necessity = row_risks(branches, labels)
    outputs = {**branches.logits, "counterfactual": branches.counterfactual_logits}
    records = []
    for i, row in enumerate(rows):
        records.append(
            {
                "index": int(index[row]),
                "label": names[labels[i]],
                "inputs": shown_inputs(source[row], model.modalities, present[row]),
                "predictions": {
                    name: _prediction(softmax(logits[i]), labels[i], names) for name, logits in outputs.items()
                },
                "risk": {"sufficiency": float(sufficiency[i]), "necessity": float(necessity[i])},
                "modalities": {
                    name: {
                        "present": bool(present[row, m]),
                        "necessary": bool(effects.necessary[i, m]),
                        "sufficient": bool(effects.sufficient[i, m]),
                        "without": _prediction(effects.without[i, m], labels[i], names),
                        "alone": _prediction(effects.alone[i, m], labels[i], names),
                    }
                    for m, name in enumerate(model.modalities)
                },
            }
        )
    return records


def shown_inputs(example: Mapping[str, Any], modalities: Sequence[str], present: np.ndarray) -> dict[str, Any]:
    """The modalities of an example for a reader: pictures as PNG in base64, texts, else kind and shape.

    Args:
      example: an example of a source.
      modalities: names in the order of ``present``.
      present: (M,) bool.
    """
    shown: dict[str, Any] = {}
    for name, has in zip(modalities, present, strict=True):
        value = example.get(name)
        if not has or value is None:
            shown[name] = {"kind": "absent"}
            continue
        kind = kind_of(name, value)
        shown[name] = {"kind": kind}
        if kind == "text":
            shown[name]["text"] = value
        elif kind in ("image", "video"):
            shown[name]["png"] = _png(value if kind == "image" else value[len(value) // 2])
        else:
            shown[name]["shape"] = list(value.shape)
    return shown


def _png(pixels: np.ndarray) -> str:
    pixels = pixels if pixels.shape[-1] in (3, 4) else pixels[..., 0]
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _prediction(probabilities: np.ndarray, label: int, names: Sequence[str]) -> dict[str, Any]:
    """The most likely class, its probability and the label's."""
    best = int(np.argmax(probabilities))
    return {
        "class": names[best],
        "probability": float(probabilities[best]),
        "label_probability": float(probabilities[label]),
    }
