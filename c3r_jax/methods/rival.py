"""A rival: a published training method that C3R is compared or combined with.

Each rival is a subclass of :class:`Rival` in its own file beside this one, listed in
:mod:`c3r_jax.methods.registry`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.settings.fields import KINDS, Bounds, setting
from c3r_jax.tasks.registry import LABELLED

ONE_OUTPUT = tuple(task.name for task in LABELLED.values() if not task.dense)  # one output and one label per example


class RivalTerms(NamedTuple):
    """A rival's terms on one global batch.

    Attributes:
      task: its loss in place of the task's; None: the task's loss is used.
      penalty: weighted penalty, added to the loss.
      state: state for the next step, {} for most; see :meth:`Rival.first_state`.
      scales: {name: number} for :meth:`Rival.change_gradient`, {} for most.
      metrics: {name: number} to report beside the loss's terms.
    """

    task: Float[Array, ""] | None
    penalty: Float[Array, ""]
    state: dict[str, Array] = {}
    scales: dict[str, Array] = {}
    metrics: dict[str, Array] = {}


def settings_of(rival: "type[Rival]") -> dict[str, dataclasses.Field]:
    """{name: field} of a rival's settings in ``config.rival``: its fields declared by ``setting``.

    Rivals may share a field, which then has one default and the same bounds; its meaning may differ.

    Examples:
      >>> list(settings_of(Rival))
      ['strength']
    """
    return {field.name: field for field in dataclasses.fields(rival) if "bounds" in field.metadata}


def check_setting(field: dataclasses.Field, value: Any) -> None:
    """Refuses a value outside the bounds of a setting; traced values cannot be checked.

    Raises:
      ValueError: naming the field, its value and what was expected.
    """
    bounds: Bounds = field.metadata["bounds"]
    if not isinstance(value, Tracer) and not bounds.hold(value):
        raise ValueError(f"Rival.{field.name} is {value}: expected {bounds.text(field.name, KINDS[float])}.")


@dataclasses.dataclass(frozen=True)
class Rival:
    """A training method besides C3R, which can be combined with C3R's terms; this base class adds nothing ("none").

    A subclass is a frozen dataclass too: hashable, so that equal rivals share compiled programs. Only its
    ``strength`` may be traced, so that runs under ``vmap`` can differ in it.

    Attributes:
      name: its value in ``config.rival.name``.
      fusion: the fusion whose loss this is ("" for none); its ``name`` is then "none", since the fusion selects it.
      tasks: the tasks it applies to; (): all.
      needs_environments: whether it compares environments, which training rows must then name; it then has a
        field ``environments``, their number.

    Raises:
      ValueError: on a field out of bounds, naming it, its value and what was expected.

    Examples:
      >>> Rival().name, Rival().first_state()
      ('none', {})
    """

    name: ClassVar[str] = "none"
    fusion: ClassVar[str] = ""
    tasks: ClassVar[tuple[str, ...]] = ()
    needs_environments: ClassVar[bool] = False

    strength: float = setting(1.0, "not read", least=0)

    def __post_init__(self) -> None:
        for name, field in settings_of(type(self)).items():
            check_setting(field, getattr(self, name))

    def first_state(self) -> dict[str, Array]:
        """The state before the first step."""
        return {}

    def extra_module(self) -> nn.Module | None:
        """A module trained along with the network's own, for :attr:`TwinNetwork.intervener`."""
        return None

    def terms(
        self, batch: EncodedBatch, *, step: Array, state: Mapping[str, Array], key: PRNGKeyArray
    ) -> RivalTerms | None:
        """The rival's terms of the loss on a global batch.

        Args:
          batch: encoded rows.
          step: steps done.
          state: state of the previous step, beside the instrument's moments.
          key: PRNG key, the same on every device.

        Returns:
          :class:`RivalTerms` of the global batch; None if there is nothing to add.
        """
        del batch, step, state, key
        return None

    def change_gradient(self, gradient: Any, terms: RivalTerms, key: PRNGKeyArray) -> Any:
        """The gradient passed to the optimiser.

        Args:
          gradient: gradient of the global batch, {module: tree}.
          terms: terms of the same batch.
          key: PRNG key, the same on every device.
        """
        del terms, key
        return gradient


NO_RIVAL = Rival()


def risen(step: Array, warmup: float) -> Float[Array, ""] | float:
    """The factor on a penalty's weight, which rises from 0 to 1 over ``warmup`` steps."""
    return jnp.minimum(1, (step + 1) / warmup) if warmup else 1.0
