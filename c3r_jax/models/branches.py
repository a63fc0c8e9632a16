"""Everything after the per-modality representations: routes, subsets, counterfactuals, risks.

Encoders run once per input; all of this is algebra on (n, d) arrays, compiled once per shape.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from c3r_jax.caches import quick_compilation
from c3r_jax.core.batch import pad_rows, shared_size, zero_absent
from c3r_jax.core.instruments import instrument_moments, no_moments
from c3r_jax.core.moments import Moments, merge_moments
from c3r_jax.core.risk import C3Risk, c3_risk
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.core.worlds import both_worlds
from c3r_jax.models.twin import TwinNetwork, apply, with_moments

BLOCK = 1024  # rows at a time for measuring moments


class Branches(NamedTuple):
    """Both branches of the twin network on n examples (host arrays).

    Attributes:
      logits: {"representation": predict(z), "instrument": predict(z_c)}, each (n, K).
      counterfactual_logits: (n, K) predict(z_bar).
      z, z_c, z_bar: (n, d).
    """

    logits: dict[str, np.ndarray]
    counterfactual_logits: np.ndarray
    z: np.ndarray
    z_c: np.ndarray
    z_bar: np.ndarray


def measured_risk(branches: Branches, labels: np.ndarray, task: Task = CLASSIFICATION) -> C3Risk:
    """The 0/1 C3 risk of evaluated examples: z_c for sufficiency, z_bar for necessity."""
    # Here, since the range of labels is not known within the program.
    task.check(jnp.asarray(branches.counterfactual_logits), labels)
    num_rows = len(labels)
    arrays = (branches.logits["instrument"], branches.counterfactual_logits, labels)
    padded = (pad_rows(x, shared_size(num_rows)) for x in arrays)
    return _compiled_risk(task)(*padded, where=np.arange(shared_size(num_rows)) < num_rows)


@functools.lru_cache(maxsize=32)
def _compiled_risk(task: Task) -> Any:
    return jax.jit(functools.partial(c3_risk, task=task), compiler_options=quick_compilation(0))


class BranchRunner:
    """Runs a model's branches on encoded examples; compiled once per shape, for any parameters.

    Args:
      model: the twin network.
      task: the task's losses and correctness.
      options: compiler options of ``jax.jit``.
    """

    def __init__(self, model: TwinNetwork, task: Task = CLASSIFICATION, options: dict[str, Any] | None = None):
        self.model = model
        self.task = task
        self._run = jax.jit(self._branches, compiler_options=options)
        self._merge = jax.jit(self._add_moments, compiler_options=options)

    def measure_moments(
        self, params: Any, h: Mapping[str, Any], present: np.ndarray, earlier: Moments | None = None
    ) -> Moments | None:
        """The instrument's exact centred moments over all rows; None without an instrument.

        Args:
          params: the model's parameters.
          h: {modality: (n, d)} representations of the training set.
          present: (n, M) bool.
          earlier: moments of earlier rows, to merge with.
        """
        empty = no_moments(self.model.c3r, {name: value.shape[1] for name, value in h.items()})
        if empty is None:
            return None
        total = empty if earlier is None else earlier
        for begin in range(0, len(present), BLOCK):
            rows = slice(begin, begin + BLOCK)
            size = shared_size(len(present[rows]))
            block = {name: pad_rows(value[rows], size) for name, value in h.items()}
            where = np.arange(size) < len(present[rows])
            total = self._merge(total, params, block, pad_rows(present[rows], size), where)
        return jax.device_get(total)

    def __call__(
        self,
        params: Any,
        moments: Moments | None,
        h: dict[str, np.ndarray],
        present: np.ndarray,
        labels: np.ndarray,
        *,
        seed: int = 0,
        where: np.ndarray | None = None,
    ) -> Branches:
        """Runs both branches.

        Args:
          params: the model's parameters.
          moments: output of :meth:`measure_moments`, or running moments.
          h: {modality: (n, d)}; values of absent ones are ignored.
          present: (n, M) bool.
          labels: (n,) class ids, or the task's own shape.
          seed: seed of counterfactual "permute".
          where: (n,) bool, rows that means are over; None: all.

        Returns:
          :class:`Branches`.
        """
        variables = {"params": params} if moments is None else with_moments({"params": params}, moments)
        where = np.ones(len(present), bool) if where is None else where
        return Branches(*jax.device_get(self._run(variables, dict(h), present, labels, jax.random.key(seed), where)))

    def _add_moments(self, total: Moments, params: Any, h: Any, present: Any, where: Any) -> Moments:
        z = apply(self.model, {"params": params}, self.model.fuse, h, present)
        return merge_moments(total, instrument_moments(h, z, present, config=self.model.c3r, where=where))

    def _branches(self, variables: Any, h: Any, present: Any, labels: Any, key: Any, where: Any) -> tuple:
        model, config = self.model, self.model.c3r
        predict = functools.partial(apply, model, variables, model.predict)
        h = zero_absent({name: h[name] for name in model.modalities}, present)
        fuse = functools.partial(apply, model, variables, model.fuse)
        moments = Moments(**variables["instrument"]) if config.instrument != "none" else None
        shared: dict[str, Any] = {"config": config, "key": key, "task": self.task, "where": where}
        z, z_c, z_bar = both_worlds(predict, fuse, h, present, labels, moments, **shared)
        return {"representation": predict(z), "instrument": predict(z_c)}, predict(z_bar), z, z_c, z_bar
