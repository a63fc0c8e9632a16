"""The twin network: encoders, fusion and head, read by a real-world and a hypothetical-world branch."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from c3r_jax.core.batch import keep
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.instruments import causal_representation, instrument_moments, no_moments
from c3r_jax.core.moments import Moments
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.models.fusion.decisions import DecisionFusion


def frozen_encoders(encoders: Mapping[str, Any]) -> list[str]:
    """The modalities whose published encoders are frozen."""
    return [name for name, encoder in encoders.items() if getattr(encoder, "frozen", False)]


class TwinNetwork(nn.Module):
    """Encodes each modality, fuses the present ones, and predicts through z or through its causal part z_c.

    The instrument's moments are in the variable collection "instrument": running moments during training, the training
    set's exact ones afterwards. Both branches share all parameters, and counterfactuals change z, so no encoder runs
    twice.

    Attributes:
      encoders: {modality: module}; each maps (inputs (B, ...), example keys (B,) or None) to (B, d). Their sorted names
        give the order of ``present``.
      fusion: maps ({modality: (B, d)}, present (B, M)) to z (B, d).
      head: maps z (B, d) to logits (B, K).
      c3r: which instrument, and its settings.
      feature_dim: width d of every modality's representation.
      intervener: maps z (B, d) to a direction (B, d) in which a method changes z; None for most methods.
    """

    encoders: Mapping[str, nn.Module]
    fusion: nn.Module
    head: nn.Module
    c3r: C3RConfig
    feature_dim: int
    intervener: nn.Module | None = None

    def setup(self) -> None:
        """Declares the moments only where they are needed: encoding alone needs none."""
        if len(self.encoders) < 2:
            raise ValueError(f"encoders are {list(self.encoders)}, but at least two modalities were expected.")
        empty = no_moments(self.c3r, dict.fromkeys(self.encoders, self.feature_dim))
        if empty is not None and (self.is_initializing() or self.has_variable("instrument", "count")):
            self.count = self.variable("instrument", "count", lambda: empty.count)
            self.mean = self.variable("instrument", "mean", lambda: empty.mean)
            self.cov = self.variable("instrument", "cov", lambda: empty.cov)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of ``present``."""
        return tuple(sorted(self.encoders))

    def encode(
        self, inputs: Mapping[str, Array], present: Bool[Array, "batch modalities"], keys: PRNGKeyArray | None = None
    ) -> dict[str, Float[Array, "batch dim"]]:
        """Per-modality representations, zero where absent.

        Args:
          inputs: {modality: (B, ...)} raw inputs.
          present: (B, M) bool.
          keys: (B,) one PRNG key per example, which turn dropout on; None for evaluation.

        Returns:
          {modality: (B, d)}, or maps (B, ..., d) in segmentation, see :func:`rows_of`.
        """
        missing = [name for name in self.encoders if name not in inputs]
        if missing:
            raise ValueError(
                f"inputs have modalities {list(inputs)}, but {missing} is missing: give zeros and present."
            )
        h = {}
        for m, name in enumerate(self.modalities):
            modality_keys = None if keys is None else jax.vmap(lambda key, m=m: jax.random.fold_in(key, m))(keys)
            value = self.encoders[name](inputs[name], modality_keys)
            h[name] = keep(present[:, m], value)
        return h

    def vectors(self, inputs: Mapping[str, Array]) -> dict[str, Float[Array, "batch width"]]:
        """The vectors of frozen published encoders, inputs of :meth:`encode` in place of the raw ones."""
        return {name: self.encoders[name].features(inputs[name]) for name in frozen_encoders(self.encoders)}

    def fuse(self, h: Mapping[str, Array], present: Bool[Array, "batch modalities"]) -> Float[Array, "batch dim"]:
        """Representation z (B, d) of the present modalities."""
        return self.fusion(h, present)

    def predict(self, z: Float[Array, "batch dim"]) -> Float[Array, "batch classes"]:
        """Logits (B, K) in float32."""
        return self.head(z).astype(jnp.float32)

    def alone(
        self, h: Mapping[str, Array], present: Bool[Array, "batch modalities"]
    ) -> Float[Array, "modalities batch classes"]:
        """Logits from each modality alone: its own head if decisions are fused, else as if no other were present."""
        if isinstance(self.fusion, DecisionFusion):
            return self.fusion.opinions(h)
        count = len(self.modalities)
        only = [present & (jnp.arange(count) == m)[None] for m in range(count)]
        return jnp.stack([self.predict(self.fuse(h, mask)) for mask in only])

    def intervene(self, z: Float[Array, "batch dim"]) -> Float[Array, "batch dim"]:
        """Direction (B, d) in which the method changes z."""
        assert self.intervener is not None
        return self.intervener(z)

    def moments(self) -> Moments:
        """The instrument's current moments."""
        return Moments(self.count.value, self.mean.value, self.cov.value)

    def causal(self, h: Mapping[str, Array], present: Bool[Array, "batch modalities"]) -> Float[Array, "batch dim"]:
        """z_c (B, d) of each row independently, from the stored moments (z itself without an instrument)."""
        if self.c3r.instrument == "none":
            return self.fuse(h, present)
        return causal_representation(self.fuse, h, present, self.moments(), config=self.c3r).z_c

    def measure(
        self, inputs: Mapping[str, Array], present: Bool[Array, "batch modalities"], where: Bool[Array, " batch"]
    ) -> Moments:
        """The instrument's moments of this batch, to be merged over a training set."""
        h, (present, where) = rows_of(self.encode(inputs, present), present, where)
        return instrument_moments(h, self.fuse(h, present), present, config=self.c3r, where=where)

    def __call__(
        self,
        inputs: Mapping[str, Array],
        present: Bool[Array, "batch modalities"] | None = None,
        route: str = "representation",
    ) -> Float[Array, "batch classes"]:
        """Predicts without dropout, through z ("representation") or z_c ("instrument").

        Args:
          inputs: {modality: (B, ...)}.
          present: (B, M) bool; None: everything is present.
          route: "representation" or "instrument".

        Returns:
          (B, K) logits, or (B, ..., K) of maps; a row's logits never depend on the other rows.
        """
        if route not in ROUTES:
            raise ValueError(f"route {route!r} is unknown: expected one of {', '.join(ROUTES)}.")
        if present is None:
            present = jnp.ones((len(next(iter(inputs.values()))), len(self.encoders)), bool)
        maps = self.encode(inputs, present)
        shape = next(iter(maps.values())).shape[:-1]
        h, (rows,) = rows_of(maps, present)
        if self.intervener is not None and self.is_initializing():
            self.intervene(self.fuse(h, rows))
        logits = self.predict(self.fuse(h, rows) if route == "representation" else self.causal(h, rows))
        return logits.reshape(*shape, -1)


def rows_of(h: Mapping[str, Any], *columns: Any) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """The rows of losses, risks and moments: examples, or all voxels of their maps.

    Args:
      h: {modality: (B, d)}, or maps {modality: (B, ..., d)}, all of equal size.
      columns: arrays with examples first (``present``, ``where``), which all rows of an example share.

    Returns:
      {modality: (rows, d)} and the columns by row.

    Examples:
      >>> import jax.numpy as jnp
      >>> h, (where,) = rows_of({"mri": jnp.zeros((2, 3, 3, 3, 8))}, jnp.array([True, False]))
      >>> h["mri"].shape, int(where.sum())
      ((54, 8), 27)
    """
    shapes = {value.shape[1:-1] for value in h.values()}
    if shapes == {()}:
        return dict(h), columns
    if len(shapes) != 1:
        raise ValueError(
            f"representations have shapes {[v.shape for v in h.values()]}, but either maps of one "
            "size or vectors were expected: segmentation takes volumes of one size."
        )
    count = math.prod(next(iter(shapes)))
    flat = {name: value.reshape(-1, value.shape[-1]) for name, value in h.items()}
    return flat, tuple(jnp.repeat(column, count, axis=0) for column in columns)


def apply(model: TwinNetwork, variables: Mapping[str, Any], method: Callable[..., Any], *arguments: Any) -> Any:
    """``model.apply`` of one method without mutable collections (whose type is then the method's own)."""
    return model.apply(variables, *arguments, method=method)


def with_moments(variables: Mapping[str, Any] | FrozenDict, moments: Moments) -> dict[str, Any]:
    """Returns the variables with the instrument's moments replaced."""
    return {**variables, "instrument": moments._asdict()}
