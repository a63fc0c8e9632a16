"""A trained model as files that need none of this package: StableHLO for every platform, weights, label names."""

import contextlib
import importlib.metadata
import importlib.util
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

from c3r_jax.data.statistics import Standardisation
from c3r_jax.errors import ConfigError
from c3r_jax.interop import loader
from c3r_jax.interop.files import write_tensors
from c3r_jax.models.twin import ROUTES, TwinNetwork, apply

PLATFORMS = ("cpu", "cuda", "tpu")
MEAN, SCALE = "standardisation/mean", "standardisation/scale"


class Input(NamedTuple):
    """One modality as an exported model takes it.

    Attributes:
      kind: "text", "image", "features", ...
      shape: of one example.
      dtype: name.
      limit: values are integers from 0 to below this; 0: any finite number.
      tokens: how a text becomes ids: "bytes" (the loader does it), else words that say what to do; "" for no text.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    limit: int = 0
    tokens: str = ""


def prediction(model: TwinNetwork, standardisation: Standardisation) -> Callable[..., dict[str, Array]]:
    """A pure function of flat weights, raw inputs and presence; features are standardised inside.

    Args:
      model: the twin network.
      standardisation: of features and sequences, which the weights hold; says only which modalities have one.

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
            made = (values - mean) / scale
            # A frame of zeros is padding, see ``keep_padding``.
            inputs[name] = jnp.where(values.any(-1, keepdims=True), made, 0) if values.ndim == 3 else made
        own = {name: variables[name] for name in ("params", "instrument") if name in variables}
        return {route: apply(model, own, model.__call__, inputs, present, route) for route in ROUTES}

    return predict


def flat_weights(variables: Mapping[str, Any], standardisation: Standardisation) -> dict[str, np.ndarray]:
    """Parameters, moments and standardisation by names with slashes, as the safetensors file has them."""
    flat = flatten_dict({name: dict(part) for name, part in variables.items()}, sep="/")
    weights = {str(name): np.asarray(value) for name, value in flat.items()}
    for part, found in ((MEAN, standardisation.mean), (SCALE, standardisation.scale)):
        weights |= {f"{part}/{name}": np.asarray(value) for name, value in found.items()}
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
      weights: of :func:`flat_weights`.
      inputs: {modality: :class:`Input`}, in the order of ``present``.
      out: the folder, which exists.
      standardisation: as for :func:`prediction`.
      labels: names of the classes.
      task: of the labels.

    Raises:
      ConfigError: without flatbuffers, which JAX does not bring along.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ConfigError("flatbuffers is not installed, and jax.export writes with it: pip install 'c3r-jax[export]'.")
    (batch,) = jax.export.symbolic_shape("batch")
    specs = (
        {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in weights.items()},
        {name: jax.ShapeDtypeStruct((batch, *one.shape), np.dtype(one.dtype)) for name, one in inputs.items()},
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
        "labels": labels,
        "inputs": {name: one._asdict() for name, one in inputs.items()},
        "outputs": list(ROUTES),
        "platforms": list(exported.platforms),
        "jax": importlib.metadata.version("jax"),
        "calling_convention": exported.calling_convention_version,
    }
    (out / "signature.json").write_text(json.dumps(signature, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Within it, programs name their source files without folders: an export says nothing of who made it where."""
    name = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, name)
    jax.config.update(name, ".*/")
    try:
        yield
    finally:
        jax.config.update(name, before)
