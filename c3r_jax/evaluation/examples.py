"""Single examples as a reader sees them: inputs, what both worlds predict, which modality the prediction rests on."""

import base64
import functools
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy.special import softmax

from c3r_jax.data.source import kind_of
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.evaluation.attribution import attribution
from c3r_jax.evaluation.branches import Branches
from c3r_jax.evaluation.conditions import Encoded
from c3r_jax.evaluation.trained import open_run, restore_best
from c3r_jax.models.twin import apply
from c3r_jax.training.experiment import Experiment, encode_split, without_encoders

SHOWN = 4  # examples per risk
SIDE = 96  # pixels of a picture's longer side


def explain_example(workdir: str | os.PathLike[str], number: int, *, split: str | None = None) -> dict[str, Any]:
    """The record of one example of a classification run, by its number ("index").

    Args:
      workdir: a directory made by training.
      number: of the example, as reports name it.
      split: another split than ``config.eval.split``.

    Raises:
      ConfigError: of a run of another task.
      DataError: the split has no such example.
      WorkdirError, CheckpointError: something needed is missing or damaged.
    """
    experiment = open_run(workdir, split)
    if experiment.method.task != "classification":
        raise ConfigError(f"config.task is {experiment.method.task!r}: only predictions of classes can be explained.")
    _, params = restore_best(experiment, workdir)
    after = experiment.devices.host(without_encoders(params))
    train_h, train_present, *_ = encode_split(experiment, params, "train")
    moments = experiment.branches.measure_moments(after, train_h, train_present)
    name = experiment.config.eval.split
    encoded = encode_split(experiment, params, name)
    h, present, labels, index = encoded
    rows = np.flatnonzero(index == number).tolist()
    if not rows:
        raise DataError(
            f"The {name} split has no example {number}: its {len(index)} numbers go from {index.min()} to "
            f"{index.max()}, such as {', '.join(map(str, index[:3]))}."
        )
    branches = experiment.branches(after, moments, h, present, labels, seed=experiment.config.seed)
    return example_records(
        experiment,
        after,
        experiment.sources[name],
        rows=rows,
        encoded=encoded,
        branches=branches,
        means=modality_means(train_h, train_present),
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
    """Rows with the largest risk of their own, the largest first.

    Sufficiency: 1 - p_y(z_c), the causal part alone does not tell the label. Necessity: p_y(z_bar), the label is told
    although the causal part is gone.

    Args:
      branches: of n rows.
      labels: (n,) class ids.
      count: rows of each.
    """
    sufficiency, necessity = row_risks(branches, labels)
    return {
        "sufficiency": np.argsort(-sufficiency, kind="stable")[:count].tolist(),
        "necessity": np.argsort(-necessity, kind="stable")[:count].tolist(),
    }


def row_risks(branches: Branches, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 - p_y(z_c) and p_y(z_bar), each (n,); NaN counts as the whole risk."""
    rows = np.arange(len(labels))
    kept = softmax(branches.logits["instrument"], axis=1)[rows, labels]
    left = softmax(branches.counterfactual_logits, axis=1)[rows, labels]
    return np.nan_to_num(1 - kept, nan=1.0), np.nan_to_num(left, nan=1.0)


def example_records(
    experiment: Experiment,
    params: Any,
    source: Any,
    *,
    rows: Sequence[int],
    encoded: Encoded,
    branches: Branches,
    means: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """What a report shows of some examples of a classification run, ready for JSON.

    Args:
      experiment: the run.
      params: of everything after the encoders.
      source: where the examples' inputs are; ``source[row]`` is the example of a row.
      rows: which examples.
      encoded: of all examples of the source, see ``encode_split``.
      branches: of all of them.
      means: of :func:`modality_means`, on the training split.
    """
    if not rows:
        return []
    model, chosen = experiment.model, np.asarray(rows)
    h, present, labels, index = encoded
    variables = {"params": params}
    predict, fuse = (functools.partial(apply, model, variables, method) for method in (model.predict, model.fuse))
    own = {name: jnp.asarray(value[chosen]) for name, value in h.items()}
    branches, labels = jax.tree.map(lambda value: value[chosen], (branches, labels))
    centre = {name: jnp.asarray(value) for name, value in means.items()}
    found = jax.device_get(attribution(predict, fuse, own, jnp.asarray(present[chosen]), centre))
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
                        "necessary": bool(found.necessary[i, m]),
                        "sufficient": bool(found.sufficient[i, m]),
                        "without": _prediction(found.without[i, m], labels[i], names),
                        "alone": _prediction(found.alone[i, m], labels[i], names),
                    }
                    for m, name in enumerate(model.modalities)
                },
            }
        )
    return records


def shown_inputs(example: Mapping[str, Any], modalities: Sequence[str], present: np.ndarray) -> dict[str, Any]:
    """The modalities of an example for a reader: pictures as PNG in base64, texts, else kind and shape.

    Args:
      example: of a source.
      modalities: names in the order of ``present``.
      present: (M,) bool.
    """
    shown: dict[str, Any] = {}
    for name, there in zip(modalities, present, strict=True):
        value = example.get(name)
        if not there or value is None:
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
    """The likeliest class, and the probability of it and of a label."""
    best = int(np.argmax(probabilities))
    return {
        "class": names[best],
        "probability": float(probabilities[best]),
        "label_probability": float(probabilities[label]),
    }
