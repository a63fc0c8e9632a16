"""C3R as a scikit-learn estimator over feature vectors per modality."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted

from c3r_jax.core.batch import pad_rows, shared_size
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.gate import has_gate
from c3r_jax.core.risk import C3Risk
from c3r_jax.data.counter_rng import example_rng
from c3r_jax.errors import ConfigError, DataError, NonFiniteError
from c3r_jax.estimator.calibration import LogitCalibration, calibrate, no_calibration
from c3r_jax.estimator.conventions import Conventions, NestedConfig, seed_of
from c3r_jax.estimator.costs import own_causes_notes, own_causes_of
from c3r_jax.estimator.frames import check_order, names_of
from c3r_jax.estimator.held_out import MIN_HELD_OUT, drawn_alike, stratified_holdout, unjudged_notes
from c3r_jax.estimator.inputs import (
    Layout,
    check_class_weight,
    check_labels,
    check_present,
    check_rows,
    check_weights,
    parts_of,
    split_modalities,
)
from c3r_jax.estimator.redrawn import (
    count_once,
    first_of_equal,
    first_ones,
    weights_once,
    with_experts_of_different,
)
from c3r_jax.estimator.table import MultiModal
from c3r_jax.evaluation.collapse import collapse_notes
from c3r_jax.evaluation.stage_report import first_stage_report, weak_said_once
from c3r_jax.evaluation.watch import batch_rows_notes
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.models.branches import Branches, measured_risk
from c3r_jax.step.in_memory import (
    Rows,
    Structure,
    batch_plan,
    model_of,
    padded,
    padded_held,
    run_of,
    structure_of,
    weights_of,
)

DEFAULT = C3RConfig(expert=0.5)  # with experts of all training rows


class C3RClassifier(ClassifierMixin, NestedConfig, Conventions):
    """Multi-modal classifier trained with Causal Complete Cause Regularization, with scikit-learn's interface.

    One multi-layer perceptron per modality, the mean of the present modalities, a linear head. Inputs are standardised.
    Some of the training rows are held out: temperature, biases and floors are fitted on them, and the C3 risk and the
    first-stage diagnostics measured.

    Input X is ``{"name": (n, p) array or data frame}``; or a data frame with two levels of columns, the modality first;
    or, with ``modalities``, one wide array or frame. What splits rows, such as ``cross_val_score``, can take the last,
    or :class:`c3r_jax.MultiModal` of the dict. A row of NaN, or a missing key in ``predict``: the modality is
    absent. Columns of data frames are matched with those of ``fit`` by name, rows by position; different orders of one
    index are refused. Rows that are drawn several times, as for a bootstrap, stay together where rows are held out, and
    tests count them once.

    By default every modality has an expert of all training rows, which predicts the label from what the other
    modalities do not explain of it; half of the loss asks to explain the label beyond the experts. That half and the
    necessity loss are gated by the share of what z predicts that z_c predicts too, shut while single modalities learn
    rows by heart (:func:`c3r_jax.core.over_fit.generalising_share`), and no term outweighs the task (cap 1): meant for
    data that may shift or may not. Where cues are expected to reverse, ``C3RConfig.strong()`` has larger weights, at
    some cost where nothing shifts; :class:`c3r_jax.C3RClassifierCV` chooses a strength. Where most of what single
    modalities know beyond the others is likely to be causes of the label that only they see, not cues
    (:func:`c3r_jax.own_causes`), training is plain, and a warning says so; a ``config`` is taken at its word,
    and with ``validation_fraction=0`` there is only the warning.

    Args:
      config: :class:`C3RConfig`; None: its defaults with ``expert=0.5``. ``config__lambda_n`` and the like are its
        fields, in grids and ``set_params``.
      strength: multiplies ``config.strength``; 0: plain training, the same numbers as with ``regularised=False``.
      hidden: widths of each encoder's hidden layers.
      dim: width of the representations. The instrument has (M - 1) dim columns: keep the batch at four times that.
      steps: training steps.
      batch_size: examples per step.
      learning_rate: learning rate of AdamW.
      weight_decay: weight decay of AdamW.
      modality_dropout: share of training examples that lose some of their modalities.
      regularised: False trains plainly, with the same network; the instrument is then post hoc.
      class_weight: None, "balanced" or {class: weight}. It and ``sample_weight`` set how often an example is drawn.
      validation_fraction: share of every class's rows that is held out, for calibration, for ``c3_risk_`` and for the
        gate (:func:`c3r_jax.held_out_share`, every ten steps). Of few rows it is more, up to a quarter, until there are
        20; below that C3R trains plainly, and says so. 0: none of these; the gate is then measured on rows that are
        trained on, which can cost accuracy. If the model is not over-fitted, training rows are also used for
        calibration.
      modalities: {name: columns} of a wide X.
      route: default of ``predict``: "representation" (z) or "instrument" (z_c).
      random_state: seed of everything random; a ``numpy.random.RandomState`` or None are drawn from.
      seed: the same by its other name: where it is given, ``random_state`` is not used.
      verbose: print the first and the last training loss.

    Attributes:
      classes_: sorted class labels.
      modalities_: sorted names of the modalities.
      loss_curve_: (steps,) training loss.
      c3_risk_: :class:`C3Risk` of the held-out rows; None without them.
      first_stage_: {modality: strength of its first stage, leave-one-out, and tests on the held-out rows}; None without
        them.
      own_causes_: :class:`OwnCauses` of the training rows; None where C3R is not asked for or not judged.
      calibration_: {route: temperature, biases and floors}.

    Examples:
      >>> from c3r_jax.data.sets.structural import StructuralModel
      >>> train = StructuralModel("anticausal").sample(600, seed=0)
      >>> model = C3RClassifier(steps=60, hidden=(16,), dim=4).fit(train.inputs, train.labels)
      >>> model.predict({"m1": train.inputs["m1"][:2]}).shape  # m2 is absent
      (2,)

    References:
      Towards the Causal Complete Cause of Multi-Modal Representation Learning, arXiv 2407.14058.
    """

    _default_config = DEFAULT

    def __init__(
        self,
        config: C3RConfig | None = None,
        *,
        strength: float = 1.0,
        hidden: Sequence[int] = (64,),
        dim: int = 16,
        steps: int = 500,
        batch_size: int = 256,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-3,
        modality_dropout: float = 0.0,
        regularised: bool = True,
        class_weight: str | Mapping[Any, float] | None = None,
        validation_fraction: float = 0.1,
        modalities: Mapping[str, Any] | None = None,
        route: str = "representation",
        random_state: Any = 0,
        seed: int | None = None,
        verbose: bool = False,
    ):
        self.config = config
        self.strength = strength
        self.hidden = hidden
        self.dim = dim
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.modality_dropout = modality_dropout
        self.regularised = regularised
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.modalities = modalities
        self.route = route
        self.random_state = random_state
        self.seed = seed
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "C3RClassifier":
        """Trains on examples with labels.

        Args:
          X: see the class.
          y: (n,) class labels of any sortable kind.
          sample_weight: (n,) numbers >= 0: how often an example is drawn, relative to the others.

        Returns:
          The estimator.

        Raises:
          DataError: on input that cannot be used, naming the modality, row and value.
          ConfigError: on a setting that cannot be used.
          NonFiniteError: if the loss becomes NaN or infinite; an earlier fit then stays unchanged.
        """
        config = self._checked_config()
        return self._fit(X, config, self._read(X, y, sample_weight))

    def _fit(self, X: Any, config: C3RConfig, read: tuple[Any, ...], *, by_folds: bool = False) -> "C3RClassifier":
        """:meth:`fit` of what :meth:`_read` returns; ``by_folds``: folds have judged what C3R costs."""
        seed = seed_of(self.seed, self.random_state)
        matrices, classes, codes, weights = read
        source = first_of_equal(matrices, codes)
        rng = example_rng(seed, 0, "hold out")
        held = stratified_holdout(codes, self.validation_fraction, rng, source=source)
        layout = Layout({name: matrix[~held] for name, matrix in matrices.items()})
        inputs, present = layout.arrays(matrices)
        rows = Rows(inputs, present, codes.astype(np.int32))
        train = rows.take(~held)
        judged = count_once(held, source) >= MIN_HELD_OUT
        structure = self._structure_of(config, tuple(layout.widths), len(classes), judged=judged)
        chosen_weights = None if weights is None else weights[~held]
        if chosen_weights is not None and not chosen_weights.any():
            given = "sample_weight" if self.class_weight is None else "sample_weight, times class_weight,"
            raise DataError(f"{given} is 0 in all rows but those that are held out: give more rows a weight.")
        asked = structure.regularised
        own = own_causes_of(train, len(classes), source[~held], chosen_weights) if asked else None
        if own is not None and own.likely and self.config is None:
            structure = self._structure_of(config, structure.modalities, len(classes), judged=False)
        if structure.regularised and config.expert:
            train = self._with_experts(train, len(classes), source[~held])
        judges = rows.take(drawn_alike(held, weights)) if structure.regularised and judged else None
        params, losses = self._train(train, structure, config, chosen_weights, seed, judges)
        new = object.__new__(type(self))  # what an earlier fit found stays whole until all of this one is known
        new.__dict__ = dict(self.__dict__)
        new.classes_, new.modalities_, new.loss_curve_ = classes, structure.modalities, losses
        new._layout, new._structure, new._params = layout, structure, params
        new._names, new._n_features_out = names_of(parts_of(X, self.modalities)), self.dim
        new._remember_columns(X, layout.widths, new._names)
        h = new._encode(rows)
        train_h = {name: value[~held] for name, value in h.items()}
        new._moments = new._runner.measure_moments(params, train_h, train.present)
        new.own_causes_ = own
        new._judge(rows, h, held, config, weights, source, silent=by_folds)
        self.__dict__ = new.__dict__
        if self.verbose:
            print(f"C3RClassifier: loss {losses[0]:.3f} at the first step, {losses[-1]:.3f} at the last ({self.steps})")
        return self

    def predict(self, X: Any, route: str | None = None) -> np.ndarray:
        """Returns the most probable class of every row (n,), through z or z_c (``route``)."""
        chosen = self.predict_proba(X, route).argmax(1)
        return self.classes_[chosen]

    def predict_proba(self, X: Any, route: str | None = None) -> np.ndarray:
        """Returns calibrated class probabilities (n, K), in the order of ``classes_``."""
        check_is_fitted(self)
        route = self._checked_route(self.route if route is None else route)
        return self.calibration_[route](self._branches(X).logits[route])

    def transform(self, X: Any, route: str = "representation") -> np.ndarray:
        """Returns representations (n, dim): z, or z_c for ``route="instrument"``."""
        check_is_fitted(self)
        branches = self._branches(X)
        return branches.z if self._checked_route(route) == "representation" else branches.z_c

    def _with_experts(self, rows: Rows, num_classes: int, source: np.ndarray) -> Rows:
        """The training rows with their experts' evidence."""
        return with_experts_of_different(rows, num_classes, source)

    def _read(
        self, X: Any, y: Any, sample_weight: Any, groups: Any = None
    ) -> tuple[dict[str, np.ndarray], Any, np.ndarray, Any]:
        """Modalities, classes, each row's class number, and each row's weight or None; groups are compared by order."""
        matrices = split_modalities(X, self.modalities)
        frames = X.parts if isinstance(X, MultiModal) else X if isinstance(X, Mapping) else {"X": X}
        others = {"y": y, "sample_weight": sample_weight, "groups": groups}
        check_order({**{str(name): part for name, part in frames.items()}, **others})
        check_rows(matrices)
        num_rows = len(next(iter(matrices.values())))
        labels = check_labels(y, num_rows)
        weights = check_weights(sample_weight, num_rows)
        if self.class_weight is not None:
            check_class_weight(self.class_weight)
            by_class = compute_sample_weight(self.class_weight, labels)
            weights = by_class if weights is None else weights * by_class
            if not weights.any():
                raise DataError(
                    f"class_weight {self.class_weight!r} leaves every row the weight 0: give one class more."
                )
        classes, codes = np.unique(labels, return_inverse=True)
        return matrices, classes, codes, weights

    def _checked_config(self) -> C3RConfig:
        for name, least in (("dim", 1), ("steps", 1), ("batch_size", 2)):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < least:
                raise ConfigError(f"{name} is {value!r}, but a whole number of at least {least} was expected.")
        for name in ("learning_rate", "weight_decay", "strength"):
            value = getattr(self, name)
            if not isinstance(value, (int, float, np.number)) or not 0 <= value < float("inf"):
                raise ConfigError(f"{name} is {value!r}, but a finite number >= 0 was expected.")
        for name, end in (("validation_fraction", 0.9), ("modality_dropout", 1.0)):
            value = getattr(self, name)
            if not isinstance(value, (int, float, np.number)) or not 0 <= value <= end:
                raise ConfigError(f"{name} is {value!r}, but a share of 0 to {end:g} was expected.")
        hidden = self.hidden
        if not isinstance(hidden, (Sequence, np.ndarray)) or isinstance(hidden, str):
            raise ConfigError(f"hidden is {hidden!r}, but widths of layers were expected, such as hidden=(64,).")
        if not all(isinstance(width, (int, np.integer)) and width >= 1 for width in hidden):
            raise ConfigError(f"hidden is {hidden!r}, but whole numbers of at least 1 were expected.")
        self._checked_route(self.route)
        if self.config is not None and not isinstance(self.config, C3RConfig):
            raise ConfigError(f"config is {type(self.config).__name__}, but a C3RConfig or None was expected.")
        config = DEFAULT if self.config is None else self.config
        return replace(config, strength=config.strength * self.strength)

    def _structure_of(
        self, config: C3RConfig, modalities: tuple[str, ...], num_classes: int, *, judged: bool = True
    ) -> Structure:
        """The compiled-in structure; at strength 0 that of plain training, so that the numbers are the same.

        So it is where a gate must stay shut (``judged`` is false): for want of held-out rows, as one that only training
        rows open would let C3R silence what one modality alone says, or as that is likely to be a cause of the label.
        Whoever asks for no such rows has the gate of each batch.
        """
        gated = has_gate(config) and self.validation_fraction > 0
        regularised = self.regularised and config.strength > 0 and (judged or not gated)
        return Structure(
            modalities,
            num_classes,
            tuple(int(width) for width in self.hidden),
            self.dim,
            structure_of(config if regularised else replace(config, strength=1.0)),
            regularised,
            float(self.modality_dropout),
        )

    @staticmethod
    def _checked_route(route: str) -> str:
        if route not in ROUTES:
            raise ConfigError(f"route is {route!r}, but one of {', '.join(ROUTES)} was expected.")
        return route

    def _weights(self, config: C3RConfig) -> np.ndarray:
        """The numbers that the compiled program takes as arguments."""
        return weights_of(config)

    def _train(
        self,
        rows: Rows,
        structure: Structure,
        config: C3RConfig,
        weights: np.ndarray | None,
        seed: int,
        held: Rows | None = None,
    ) -> tuple:
        plan = batch_plan(len(rows.labels), batch_size=self.batch_size, steps=self.steps, seed=seed, weights=weights)
        arguments = (plan, seed, self._weights(config), self.learning_rate, self.weight_decay)
        held = None if held is None else padded_held(held)
        params, losses = jax.device_get(run_of(structure)(padded(rows), *arguments, held))
        broken = np.flatnonzero(~np.isfinite(losses))
        if len(broken):
            raise NonFiniteError(
                f"the loss is {losses[broken[0]]} at step {broken[0] + 1}, but a finite number was expected: lower "
                f"learning_rate ({self.learning_rate}) or the weights of config."
            )
        return params, losses

    def _judge(
        self,
        rows: Rows,
        h: dict[str, np.ndarray],
        held: np.ndarray,
        config: C3RConfig,
        weights: np.ndarray | None,
        source: np.ndarray,
        *,
        silent: bool,
    ) -> None:
        """Calibration, and risk, diagnostics and warnings on the held-out rows; copies of a row are one row."""
        once, weights = first_ones(source), weights_once(weights, source)
        if not once.all():
            rows, h, held, weights = jax.tree.map(lambda value: value[once], (rows, h, held, weights))
        num_classes = len(self.classes_)
        self.calibration_: dict[str, LogitCalibration] = {route: no_calibration(num_classes) for route in ROUTES}
        self.c3_risk_: C3Risk | None = None
        self.first_stage_: dict[str, Any] | None = None
        if held.sum() < MIN_HELD_OUT:
            trained = self._structure.regularised
            notes = unjudged_notes(
                int(held.sum()),
                wanted=self.validation_fraction > 0,
                gated=trained and has_gate(config),
                plainly=self.regularised and config.strength > 0 and not trained,
            )
            if trained and config.instrument == "two_stage":
                notes += batch_rows_notes(rows.present[~held], self.batch_size, self.dim, config.stage_rows)
            notes += [] if silent or not trained else own_causes_notes(self.own_causes_, None, rows.labels, config)
            for note in notes:
                warnings.warn(note, stacklevel=4)
            return
        all_branches = self._both_worlds(rows, h, config)
        if weights is None or (weights[held].any() and weights[~held].any()):
            self.calibration_ = {
                route: calibrate(all_branches.logits[route], rows.labels, held, weights) for route in ROUTES
            }
        self.first_stage_, notes = first_stage_report(
            h, rows.present, rows.labels, config=config, num_classes=num_classes, held=held
        )
        branches, held_rows = jax.tree.map(lambda value: value[held], (all_branches, rows))
        self.c3_risk_ = measured_risk(branches, held_rows.labels)
        logits = branches.logits["representation"]
        lambda_n = config.lambda_n * config.strength if self._structure.regularised else 0.0
        notes += collapse_notes(branches.z, logits, held_rows.labels, lambda_n=lambda_n)
        if self._structure.regularised and config.instrument == "two_stage":
            notes += batch_rows_notes(rows.present[~held], self.batch_size, self.dim, config.stage_rows)
        trained = config if self._structure.regularised else None
        notes += [] if silent else own_causes_notes(self.own_causes_, branches.logits, held_rows.labels, trained)
        for note in weak_said_once(notes, self.first_stage_):
            warnings.warn(note, stacklevel=4)

    def _both_worlds(self, rows: Rows, h: dict[str, np.ndarray], config: C3RConfig) -> Branches:
        """Both branches of training rows, in padded arrays, so that folds of other sizes share the program."""
        num_rows = len(rows.labels)
        if config.counterfactual == "permute":  # which draws among all rows of its arrays
            return self._runner(self._params, self._moments, h, rows.present, rows.labels)
        h, present, labels = jax.tree.map(lambda x: pad_rows(x, shared_size(num_rows)), (h, rows.present, rows.labels))
        where = np.arange(len(labels)) < num_rows
        branches = self._runner(self._params, self._moments, h, present, labels, where=where)
        return jax.tree.map(lambda value: value[:num_rows], branches)

    def _branches(self, X: Any) -> Branches:
        self._check_width(X)
        inputs, present = self._layout.arrays(split_modalities(X, self.modalities, fitted=self._names))
        check_present(present)
        num_rows = len(present)
        # Only the hypothetical world needs labels; padding keeps the number of compiled shapes small.
        rows = padded(Rows(inputs, present, np.zeros(num_rows, np.int32)))
        branches = self._runner(self._params, self._moments, self._encode(rows), rows.present, rows.labels)
        return jax.tree.map(lambda value: value[:num_rows], branches)

    @property
    def _runner(self) -> Any:
        return model_of(self._structure)[1]

    def _encode(self, rows: Rows) -> dict[str, np.ndarray]:
        num_rows = len(rows.labels)
        inputs, present = jax.tree.map(lambda x: pad_rows(x, shared_size(num_rows)), (rows.inputs, rows.present))
        h = jax.device_get(model_of(self._structure)[2](self._params, inputs, present))
        return {name: value[:num_rows] for name, value in h.items()}
