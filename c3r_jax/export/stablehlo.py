"""A trained model as files that do not need this package: StableHLO for every platform, weights, label names."""

import contextlib
import importlib
import importlib.metadata
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from c3r_jax.data.sets.standardised import Standardisation
from c3r_jax.errors import extra_of
from c3r_jax.export import loader
from c3r_jax.files.tensors import write_tensors
from c3r_jax.metrics.biases import Biases
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.models.twin import TwinNetwork, apply
from c3r_jax.tasks.registry import named

PLATFORMS = ("cpu", "cuda", "tpu")
MEAN, SCALE = "standardisation/mean", "standardisation/scale"
INVERSE, BIAS = "calibration/inverse_temperature", "calibration/bias"


class Input(NamedTuple):
    """One modality as an exported model takes it.

    Attributes:
      kind: "text", "image", "features", ...
      shape: shape of one example.
      dtype: name of its dtype.
      limit: values are integers from 0 up to, but not including, this; 0 allows any finite number.
      tokens: how a text becomes ids: "bytes" (the loader converts it), else an instruction; "" if it is no text.
      columns: names of its columns in their order, where the data set says them.
      tokenizer: how ``tokenizer.json`` is used for a text, see :class:`HuggingFaceFile`; None if it is not.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    limit: int = 0
    tokens: str = ""
    columns: tuple[str, ...] = ()
    tokenizer: dict[str, str | int] | None = None


def prediction(model: TwinNetwork, standardisation: Standardisation) -> Callable[..., dict[str, Array]]:
    """A pure function of flat weights, raw inputs and presence; features are standardised inside.

    Args:
      model: the twin network.
      standardisation: only its modality names are used; its values are part of the weights.

    Returns:
      (weights, inputs, present) -> {route: logits}.
    """

    def predict(weights: Mapping[str, Array], inputs: Mapping[str, Array], present: Array) -> dict[str, Array]:
        variables = unflatten_dict(dict(weights), sep="/")
        inputs = dict(inputs)
        for name in standardisation.mean:
            values = inputs[name]
            lead = (1,) * (values.ndim - 1)
            mean, scale = (weights[f"{part}/{name}"].reshape(*lead, -1) for part in (MEAN, SCALE))
            standardised = (values - mean) / scale
            # Frames of zeros are padding, see ``keep_padding``.
            padded = values.ndim == 3
            inputs[name] = jnp.where(values.any(-1, keepdims=True), standardised, 0) if padded else standardised
        collections = {name: variables[name] for name in ("params", "instrument") if name in variables}
        logits = {route: apply(model, collections, model.__call__, inputs, present, route) for route in ROUTES}
        if f"{BIAS}/{ROUTES[0]}" not in weights:
            return logits
        return {r: weights[f"{INVERSE}/{r}"] * x + weights[f"{BIAS}/{r}"][None, :] for r, x in logits.items()}

    return predict


def flat_weights(
    variables: Mapping[str, Any], standardisation: Standardisation, calibration: Mapping[str, Biases] | None = None
) -> dict[str, np.ndarray]:
    """Parameters, moments, standardisation and calibration under names with slashes, as the safetensors file has them.

    Args:
      variables: of the model.
      standardisation: of features.
      calibration: {route: temperature and biases} of its logits; None or {}: there is none.
    """
    flat = flatten_dict({name: dict(part) for name, part in variables.items()}, sep="/")
    weights = {str(name): np.asarray(value) for name, value in flat.items()}
    for part, values in ((MEAN, standardisation.mean), (SCALE, standardisation.scale)):
        weights |= {f"{part}/{name}": np.asarray(value) for name, value in values.items()}
    for route, fitted in (calibration or {}).items():
        weights[f"{INVERSE}/{route}"] = np.asarray(1 / fitted.temperature, np.float32)
        weights[f"{BIAS}/{route}"] = fitted.bias.astype(np.float32)
    return weights


def export_model(
    model: TwinNetwork,
    weights: Mapping[str, np.ndarray],
    inputs: Mapping[str, Input],
    out: pathlib.Path,
    *,
    standardisation: Standardisation,
    labels: list[str],
    task: str,
) -> None:
    """Writes model.stablehlo, weights.safetensors, signature.json and load.py.

    Args:
      model: the twin network.
      weights: result of :func:`flat_weights`.
      inputs: {modality: :class:`Input`}, in the order of ``present``.
      out: an existing folder.
      standardisation: as for :func:`prediction`.
      labels: names of the classes.
      task: name of the task.

    Raises:
      MissingExtraError: flatbuffers is not installed; JAX does not depend on it.
    """
    with extra_of("jax.export", "export"):
        importlib.import_module("flatbuffers")
    (batch,) = jax.export.symbolic_shape("batch")
    specs = (
        {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in weights.items()},
        {name: jax.ShapeDtypeStruct((batch, *spec.shape), np.dtype(spec.dtype)) for name, spec in inputs.items()},
        jax.ShapeDtypeStruct((batch, len(inputs)), np.dtype(bool)),
    )
    with _without_paths():
        exported = jax.export.export(jax.jit(prediction(model, standardisation)), platforms=PLATFORMS)(*specs)
    write_tensors(out / "weights.safetensors", weights)
    (out / "model.stablehlo").write_bytes(exported.serialize())
    shutil.copyfile(loader.__file__, out / "load.py")
    signature = {
        "format": 1,
        "task": task,
        "decision": named(task).decision,
        "labels": labels,
        "calibrated": f"{BIAS}/{ROUTES[0]}" in weights,
        "inputs": {name: spec._asdict() for name, spec in inputs.items()},
        "outputs": list(ROUTES),
        "platforms": list(exported.platforms),
        "jax": importlib.metadata.version("jax"),
        "calling_convention": exported.calling_convention_version,
    }
    (out / "signature.json").write_text(json.dumps(signature, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Removes folders from source file names in programs, so that an export does not reveal local paths."""
    name = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, name)
    jax.config.update(name, ".*/")
    try:
        yield
    finally:
        jax.config.update(name, before)
