"""Audit and repair of a trained model: the first stage on its frozen features."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from c3r_jax.core.available import stage_rows
from c3r_jax.core.batch import mean_of_present, promote, zero_absent
from c3r_jax.core.batch_checks import checked_present
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.first_stage import varies_from
from c3r_jax.core.instruments import causal_representation, instrument_moments, rows_by_modality
from c3r_jax.core.moments import Moments
from c3r_jax.core.risk import c3_risk
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.core.worlds import both_worlds
from c3r_jax.errors import DataError
from c3r_jax.evaluation.stage_report import first_stage_report
from c3r_jax.tasks.rounding import lost_in_float32

MIN_ROWS_PER_COLUMN = 4


class PostHocInstrument:
    """Predicts through z_c of *any* trained multi-modal model, without retraining it.

    The first stage is fitted on the model's frozen per-modality features; the model's head then reads only what the
    other modalities explain. This removes most cues that are specific to one modality. Anticausal cues, which come from
    the label, explain each other across modalities; there, training with C3R does better.

    The first stage reads every column in units of its standard deviation over the training rows: its ridge is relative
    to the mean variance, which a single loud column of a published encoder would otherwise make up.

    Args:
      predict: the model's head, z (n, d) -> logits (n, K), written in JAX.
      fuse: ({modality: (n, d_m)}, present (n, M)) -> z (n, d); columns of ``present`` in the sorted order of the names.
        None: the mean of the present modalities.
      config: ridge, counterfactual and instrument; None: the defaults. Its weights are not used.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> s = jax.random.normal(jax.random.key(0), (200, 1))
      >>> h = {m: s + 0.1 * jax.random.normal(jax.random.key(i), (200, 1)) for i, m in enumerate(["a", "b"])}
      >>> repair = PostHocInstrument(lambda z: jnp.concatenate([-z, z], axis=1)).fit(h)
      >>> bool((repair.predict({"a": jnp.array([[2.0]]), "b": jnp.array([[1.5]])}) == 1).all())
      True
    """

    def __init__(
        self,
        predict: Callable[[Any], Any],
        fuse: Callable[[Any, Any], Any] | None = None,
        *,
        config: C3RConfig | None = None,
    ):
        if config is not None and not isinstance(config, C3RConfig):
            raise ValueError(f"config is {config!r}, but a C3RConfig or None was expected, such as C3RConfig.strong().")
        self.config = C3RConfig() if config is None else config
        if self.config.instrument == "none":
            raise ValueError("config.instrument is 'none', but 'two_stage' or 'attention' was expected.")
        self._predict = predict
        self._fuse = mean_of_present if fuse is None else fuse
        self._moments: Moments | None = None
        self._widths: dict[str, int] = {}
        self._scales: dict[str, np.ndarray] = {}

    def fit(self, features: Mapping[str, Any], *, present: Any = None) -> "PostHocInstrument":
        """Measures the features' moments on training rows; labels are not needed.

        Args:
          features: {modality: (n, d_m)} from the trained encoders.
          present: (n, M) bool; None: everything is present.

        Raises:
          DataError: on fewer than two modalities, too few rows for their first stages, or columns that float32 would
            not keep apart.
        """
        _refuse_rounding(features)
        h, mask = _checked(features, present)
        if len(h) < 2:
            raise DataError(f"features have the modalities {list(h)}, but at least 2 were expected.")
        if self._fuse is mean_of_present and len({value.shape[1] for value in h.values()}) > 1:
            raise DataError(
                f"features have the widths { {name: value.shape[1] for name, value in h.items()} }, of which no mean "
                "can be taken: give the model's own fusion, PostHocInstrument(predict, fuse)."
            )
        columns = sum(value.shape[1] for value in h.values())
        where = jnp.ones(len(mask), bool)
        counts = stage_rows(np.asarray(mask), self.config.stage_rows).sum(1)
        fewest = int(counts.argmin())
        needed = MIN_ROWS_PER_COLUMN * columns
        if counts[fewest] < needed:
            own = rows_by_modality(self.config, len(h))
            have = f"{list(h)[fewest]!r} and another modality" if own else "every modality"
            raise DataError(
                f"{counts[fewest]} rows have {have}, but at least {needed} were expected for {columns} feature "
                "columns: give more rows, or features of fewer columns."
            )
        self._widths = {name: value.shape[1] for name, value in h.items()}
        two_stage = self.config.instrument == "two_stage"  # attention compares the features as they are
        self._scales = _deviations(h, np.asarray(mask)) if two_stage else {}
        z, scaled = self._fuse(h, mask), self._scaled(h)
        self._moments = jax.device_get(instrument_moments(scaled, z, mask, config=self.config, where=where))
        return self

    def transform(self, features: Mapping[str, Any], *, present: Any = None) -> np.ndarray:
        """Returns z_c (n, d), each row independently."""
        h, mask = self._as_fitted(features, present)
        fitted = causal_representation(self._fuse_scaled, self._scaled(h), mask, self._fitted(), config=self.config)
        return np.asarray(fitted.z_c)

    def predict_logits(self, features: Mapping[str, Any], *, present: Any = None) -> np.ndarray:
        """Returns the head's logits (n, K) at z_c."""
        return np.asarray(self._predict(jnp.asarray(self.transform(features, present=present))))

    def predict(self, features: Mapping[str, Any], *, present: Any = None) -> np.ndarray:
        """Returns the class ids (n,) predicted from z_c."""
        return self.predict_logits(features, present=present).argmax(1)

    def audit(self, features: Mapping[str, Any], labels: Any, *, present: Any = None) -> dict[str, Any]:
        """How much the model relies on what is specific to one modality, on held-out rows.

        Args:
          features: {modality: (n, d_m)} of held-out rows.
          labels: (n,) class ids.
          present: (n, M) bool.

        Returns:
          {"accuracy": of the model, "instrument_accuracy": through z_c, "risk": :class:`C3Risk` as a dict,
          "first_stage": strength by modality, "notes": warnings as sentences}.
        """
        h, mask = self._as_fitted(features, present)
        labels = np.asarray(labels)
        if labels.dtype.kind in "bf" and (labels == np.round(labels)).all():
            labels = labels.astype(int)
        if labels.shape != (len(mask),) or labels.dtype.kind not in "iu":
            raise DataError(
                f"labels have shape {labels.shape} and dtype {labels.dtype}, but whole numbers ({len(mask)},) were "
                "expected: the classes as the head's logits count them."
            )
        scaled = self._scaled(h)
        worlds = both_worlds(
            self._predict,
            self._fuse_scaled,
            scaled,
            mask,
            jnp.asarray(labels),
            self._fitted(),
            config=self.config,
            key=jax.random.key(0),  # of the pairs of counterfactual "permute"
        )
        logits, causal, hypothetical = (self._predict(value) for value in worlds)
        risk = c3_risk(causal, hypothetical, jnp.asarray(labels))
        stages, notes = first_stage_report(
            {name: np.asarray(value) for name, value in scaled.items()},
            np.asarray(mask),
            labels,
            config=self.config,
            num_classes=logits.shape[1],
        )
        return {
            "accuracy": _accuracy(logits, labels),
            "instrument_accuracy": _accuracy(causal, labels),
            "risk": {name: float(value) for name, value in risk._asdict().items()},
            "first_stage": stages,
            "notes": notes,
        }

    def _scaled(self, h: Mapping[str, Any]) -> dict[str, Any]:
        """Features in standard deviations of the training rows; what is absent stays 0."""
        return {name: value / scale for name, value, scale in self._with_scales(h)}

    def _fuse_scaled(self, scaled: Mapping[str, Any], present: Any) -> Any:
        """The model's own fusion, of scaled features."""
        return self._fuse({name: value * scale for name, value, scale in self._with_scales(scaled)}, present)

    def _with_scales(self, h: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        scales = getattr(self, "_scales", {})  # instruments of an earlier version have none
        return [(name, value, scales[name] if name in scales else 1) for name, value in h.items()]

    def _fitted(self) -> Moments:
        if self._moments is None:
            raise DataError("this PostHocInstrument has not been fitted: call fit(features) with training rows first.")
        return self._moments

    def _as_fitted(self, features: Mapping[str, Any], present: Any) -> tuple[dict[str, Any], Any]:
        """Checked features, of the modalities and widths of ``fit``."""
        self._fitted()
        _refuse_texts(features)
        h, mask = _checked(features, present)
        widths = {name: value.shape[1] for name, value in h.items()}
        if widths != getattr(self, "_widths", widths):  # instruments of an earlier version have none
            raise DataError(
                f"features have the widths {widths}, but {self._widths} as in fit were expected: give every modality, "
                "and say by present where one is absent."
            )
        return h, mask


def _accuracy(logits: Any, labels: np.ndarray) -> float:
    """Share of correct rows; as in the risks, a row with a non-finite logit is wrong."""
    return float(np.asarray(CLASSIFICATION.correct(jnp.asarray(logits), jnp.asarray(labels))).mean())


def _refuse_rounding(features: Mapping[str, Any]) -> None:
    """Refuses columns of training rows that float32 does not keep apart; of few rows no column can be judged."""
    _refuse_texts(features)
    for name in sorted(features):
        for column, values in enumerate(np.atleast_2d(np.asarray(features[name])).T):
            if lost := lost_in_float32(values):
                raise DataError(f"Column {column} of features[{name!r}] {lost}.")


def _refuse_texts(features: Mapping[str, Any]) -> None:
    """Refuses what is no number."""
    if not isinstance(features, Mapping):
        raise DataError(
            f"features are {type(features).__name__}, but a dict of arrays (n, d) by modality was expected."
        )
    for name in sorted(features):
        if (kind := np.asarray(features[name]).dtype).kind in "OSUcMm":
            raise DataError(f"features[{name!r}] has dtype {kind}, but numbers were expected.")


def _deviations(h: Mapping[str, Any], present: np.ndarray) -> dict[str, np.ndarray]:
    """Standard deviations of the columns (1, d_m) over the rows that have the modality; of constant columns 1."""
    found = {}
    for m, (name, value) in enumerate(h.items()):
        rows = np.asarray(value, np.float64)[present[:, m]]
        varies = varies_from(np.square(rows.std(0)).astype(np.float32), rows.mean(0).astype(np.float32))
        found[name] = np.where(varies, rows.std(0), 1).astype(value.dtype)[None, :]
    return found


def _checked(features: Mapping[str, Any], present: Any) -> tuple[dict[str, Any], Any]:
    """Features in the sorted order of their names, zero where absent, and the mask."""
    h = {name: jnp.asarray(features[name]) for name in sorted(features)}
    h = {name: promote(x) for name, x in h.items()}  # scales of small features are below float16's numbers
    shapes = {name: value.shape for name, value in h.items()}
    rows = {shape[0] if shape else 0 for shape in shapes.values()}
    if not h or len(rows) != 1 or any(value.ndim != 2 for value in h.values()):
        raise DataError(f"features have shapes {shapes}, but (n, d) by modality with equal n was expected.")
    try:
        mask = checked_present(present, rows.pop(), list(h))
    except ValueError as error:
        raise DataError(str(error)) from error
    h = zero_absent(h, mask)
    bad = [name for name, value in h.items() if not bool(jnp.isfinite(value).all())]
    if bad:
        raise DataError(f"features[{bad[0]!r}] holds a NaN or infinite number in a present row: expected finite ones.")
    return h, mask
