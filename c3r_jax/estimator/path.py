"""The strength of C3R chosen on held-out rows, by a named rule."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from sklearn.base import ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.risk import C3Risk
from c3r_jax.errors import ConfigError, DataError, NonFiniteError
from c3r_jax.estimator.calibration import calibrate
from c3r_jax.estimator.classifier import C3RClassifier
from c3r_jax.estimator.conventions import Conventions, seed_of
from c3r_jax.estimator.folds import check_groups, make_folds, split_off
from c3r_jax.estimator.held_out import MIN_HELD_OUT, drawn_alike
from c3r_jax.estimator.inputs import Layout
from c3r_jax.estimator.path_program import path_of
from c3r_jax.estimator.redrawn import (
    count_once,
    first_of_equal,
    first_ones,
    weights_once,
    with_experts_of_different,
)
from c3r_jax.metrics.strength_rules import RULES, choose_strength
from c3r_jax.step.in_memory import Rows, batch_plan, padded, padded_held, weights_of

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)
COLUMNS = ("strength", "fold", "accuracy", "balanced_accuracy", "expert_accuracy", "c3_risk")


class C3RClassifierCV(ClassifierMixin, Conventions):
    r"""Chooses the strength of :class:`c3r_jax.C3RClassifier` by cross-validation, and refits on all rows.

    All strengths of a fold are trained by one program; they share its experts, its seed and its batches, so that they
    differ in their strength alone. A fold's model is calibrated as the estimator is, on rows held out of the training
    part, and then scored on the rows that the fold leaves out.

    Rules (:func:`c3r_jax.metrics.strength_rules.choose_strength`): "accuracy", "one_standard_error" (the strongest
    whose accuracy is within one standard error of the best), "balanced_accuracy", "c3_risk", "expert_accuracy", and
    with groups "held_out_groups" and "worst_group". Rows that come from where the training rows do cannot show what a
    shift would cost: "accuracy" asks which strength costs nothing, "one_standard_error" how much can be had for nearly
    nothing, and "expert_accuracy" where the model reads least of what each modality alone says, where cues often are
    (without 0 among the strengths: plain training leaves single modalities half trained, and may seem to read little).
    Only groups that differ as future data will differ measure what is wanted.

    Args:
      estimator: what is trained; None: ``C3RClassifier()``. Its own strength is replaced. As everywhere in
        scikit-learn, ``estimator__steps`` and the like set its parameters.
      strengths: numbers >= 0 to choose from, 0 being plain training.
      rule: the name of a rule.
      cv: number of folds, or a splitter of scikit-learn. Folds are stratified by class and shuffled by the estimator's
        seed; with groups none is split over folds.

    Attributes:
      strength_: the chosen strength.
      best_estimator_: the estimator with that strength, fitted on all rows.
      path_: {column: (strengths * folds,)}, the scores of held-out rows: "strength", "fold", "accuracy",
        "balanced_accuracy", "expert_accuracy" (accuracy of the experts, from what the instrument does not explain:
        :func:`c3r_jax.evaluation.expert_accuracy.joint_expert_accuracy`) and "c3_risk"; ``pandas.DataFrame(path_)`` is
        a table.
      groups_: {"strength", "group", "accuracy"}, the accuracy in each group when it is left out; None without groups.
      chosen_by_: {rule: strength} of every rule that these folds can follow.
      classes_: sorted class labels.
      c3_risk_: :class:`C3Risk` of the refitted estimator.
      n_features_in_, feature_names_in_: as of the estimator.

    Examples:
      >>> from c3r_jax.data.sets.structural import StructuralModel
      >>> train = StructuralModel("anticausal").sample(600, seed=0)
      >>> small = C3RClassifier(steps=60, hidden=(16,), dim=4)
      >>> search = C3RClassifierCV(small, strengths=(0, 1), cv=2, rule="accuracy").fit(train.inputs, train.labels)
      >>> search.strength_ in (0, 1), len(search.path_["accuracy"])
      (True, 4)

    References:
      L. Breiman et al., Classification and regression trees, 1984 (the rule of one standard error).
    """

    def __init__(
        self,
        estimator: C3RClassifier | None = None,
        *,
        strengths: Sequence[float] = STRENGTHS,
        rule: str = "one_standard_error",
        cv: Any = 5,
    ):
        self.estimator = estimator
        self.strengths = strengths
        self.rule = rule
        self.cv = cv

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None) -> "C3RClassifierCV":
        """Trains the path in every fold, chooses a strength, and trains with it on all rows.

        Args:
          X: as for the estimator.
          y: (n,) class labels.
          sample_weight: (n,) numbers >= 0: how often an example is drawn; scores are not weighted.
          groups: (n,) where each row comes from: a site, a subject, an author. None: unknown.

        Returns:
          The estimator.

        Raises:
          DataError: on input that cannot be used, or folds that cannot be made of it.
          ConfigError: on a setting that cannot be used, or a rule that needs groups.
          NonFiniteError: if training becomes NaN or infinite with every strength.
        """
        estimator, strengths, seed = self._checked(groups)
        config = estimator._checked_config()
        matrices, classes, codes, weights = estimator._read(X, y, sample_weight, groups)
        by_group = check_groups(groups, len(codes))
        source = first_of_equal(matrices, codes)
        folds = make_folds(self.cv, codes, classes, by_group, seed=seed, source=source)
        rates = [config.strength * strength for strength in strengths]
        by_weights = np.stack([weights_of(replace(config, strength=rate)) for rate in rates])
        calibration = {"fraction": estimator.validation_fraction, "seed": seed, "source": source}
        parts = [(*split_off(codes, outside, **calibration), held) for outside, held in folds]
        batch = min(estimator.batch_size, *(int(fit.sum()) for fit, _, _ in parts))
        shut = not estimator._structure_of(config, tuple(matrices), len(classes), judged=False).regularised
        fewest = min(count_once(calibration, source) for _, calibration, _ in parts)
        none_to_choose = shut and fewest < MIN_HELD_OUT
        if none_to_choose:
            warnings.warn(
                f"a fold leaves {fewest} rows for the gate, but {MIN_HELD_OUT} were expected: every strength trains "
                f"plainly there, so that none can be chosen, and the weakest, {min(strengths):g}, is taken; give more "
                "rows or more folds.",
                stacklevel=2,
            )
        correct = np.full((len(strengths), len(codes)), np.nan)
        table: dict[str, list[float]] = {name: [] for name in COLUMNS}
        for fold, masks in enumerate(parts):
            scores = _train_fold(
                estimator, config, matrices, codes, len(classes), weights, source, masks, by_weights, batch, seed
            )
            for s, (strength, (right, values)) in enumerate(zip(strengths, scores, strict=True)):
                correct[s, masks[2]] = right
                for name, value in zip(COLUMNS, (strength, fold, *values), strict=True):
                    table[name].append(value)
        path = {name: np.array(values, int if name == "fold" else float) for name, values in table.items()}
        by_rule, group_table = _choices(strengths, path, correct, by_group)
        if none_to_choose:
            by_rule = dict.fromkeys(by_rule, min(strengths))
        best = clone(estimator).set_params(strength=by_rule[self.rule], config=config)
        best._fit(X, best._checked_config(), (matrices, classes, codes, weights), by_folds=True)
        self.path_, self.groups_, self.chosen_by_ = path, group_table, by_rule
        self.strength_, self.best_estimator_, self.classes_ = by_rule[self.rule], best, best.classes_
        self._n_features_out = best._n_features_out
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(best, name):
                setattr(self, name, getattr(best, name))
        return self

    def predict(self, X: Any, route: str | None = None) -> np.ndarray:
        """Returns the most probable class of every row (n,)."""
        check_is_fitted(self)
        return self.best_estimator_.predict(X, route)

    def predict_proba(self, X: Any, route: str | None = None) -> np.ndarray:
        """Returns calibrated class probabilities (n, K), in the order of ``classes_``."""
        check_is_fitted(self)
        return self.best_estimator_.predict_proba(X, route)

    def transform(self, X: Any, route: str = "representation") -> np.ndarray:
        """Returns representations (n, dim)."""
        check_is_fitted(self)
        return self.best_estimator_.transform(X, route)

    @property
    def c3_risk_(self) -> C3Risk | None:
        """The C3 risk of the refitted estimator."""
        check_is_fitted(self)
        return self.best_estimator_.c3_risk_

    def _checked(self, groups: Any) -> tuple[C3RClassifier, list[float], int]:
        """The estimator at strength 1, the strengths and the seed, or one sentence about what is wrong."""
        estimator = C3RClassifier() if self.estimator is None else self.estimator
        if not isinstance(estimator, C3RClassifier):
            raise ConfigError(f"estimator is {type(estimator).__name__}, but a C3RClassifier or None was expected.")
        if self.rule not in RULES:
            raise ConfigError(f"rule is {self.rule!r}, but one of {', '.join(RULES)} was expected.")
        if RULES[self.rule].groups and groups is None:
            others = ", ".join(name for name, rule in RULES.items() if not rule.groups)
            raise ConfigError(
                f"rule is {self.rule!r}, which needs groups: call fit(X, y, groups=...) with where each row comes "
                f"from, or choose {others}."
            )
        try:
            strengths = [float(strength) for strength in self.strengths]
        except (TypeError, ValueError) as error:
            raise ConfigError(f"strengths is {self.strengths!r}, but a sequence of numbers was expected.") from error
        if not strengths or len(set(strengths)) < len(strengths) or not all(0 <= s < float("inf") for s in strengths):
            raise ConfigError(f"strengths is {self.strengths!r}, but different finite numbers >= 0 were expected.")
        if not estimator.regularised or (estimator.config is not None and not estimator.config.strength):
            raise ConfigError(
                "the estimator trains plainly whatever the strength: set regularised=True and config.strength above 0."
            )
        seed = seed_of(estimator.seed, estimator.random_state)  # once: a RandomState is drawn from
        return clone(estimator).set_params(strength=1.0, seed=seed), strengths, seed


def _train_fold(
    estimator: C3RClassifier,
    config: C3RConfig,
    matrices: dict[str, np.ndarray],
    codes: np.ndarray,
    num_classes: int,
    weights: np.ndarray | None,
    source: np.ndarray,
    masks: tuple[np.ndarray, np.ndarray, np.ndarray],
    by_weights: np.ndarray,
    batch: int,
    seed: int,
) -> list[tuple[np.ndarray, tuple[float, ...]]]:
    """By strength: which held-out rows are correct, and the scores of :data:`COLUMNS` after the first two."""
    fit, calibration, held = masks
    layout = Layout({name: matrix[fit] for name, matrix in matrices.items()})
    # All rows are there in every fold, those held out without being read in training: folds then share a program.
    rows = padded(Rows(*layout.arrays(matrices), codes.astype(np.int32)))
    fit_rows, held_rows = (np.pad(mask, (0, len(rows.labels) - len(mask))) for mask in (fit, held))
    structure = estimator._structure_of(config, tuple(layout.widths), num_classes)
    # As in the estimator's own training: without enough rows of its own the gate stays shut, at every strength.
    judged = count_once(calibration, source) >= MIN_HELD_OUT
    of_judges = drawn_alike(calibration, weights)
    judges = padded_held(rows.take(of_judges)) if structure.regularised and judged else None
    if not estimator._structure_of(config, structure.modalities, num_classes, judged=judged).regularised:
        by_weights = np.stack([weights_of(replace(config, strength=0.0))] * len(by_weights))
    if config.expert:
        rows = with_experts_of_different(rows, num_classes, source, where=fit_rows)
    own = None if weights is None else weights[fit]
    if own is not None and not own.any():
        raise DataError("sample_weight is 0 in all training rows of a fold: use fewer folds or other weights.")
    plan = batch_plan(int(fit.sum()), batch_size=batch, steps=estimator.steps, seed=seed, weights=own)
    trained = jax.device_get(
        path_of(structure)(
            rows,
            np.flatnonzero(fit).astype(np.int32)[plan],
            seed,
            estimator.learning_rate,
            estimator.weight_decay,
            fit_rows,
            held_rows,
            judges,
            by_weights,
        )
    )
    summed = weights_once(weights, source)
    found, outside = [], (fit | calibration) & first_ones(source)
    weighted = summed is None or (summed[fit].any() and summed[calibration].any())  # on both sides
    for s, logits in enumerate(trained.logits[estimator.route][:, : len(codes)]):
        if not np.isfinite(trained.losses[s]).all() or not np.isfinite(logits).all():
            found.append((np.nan, (np.nan,) * 4))
            continue
        outputs = logits[held]
        if judged and weighted:
            own = None if summed is None else summed[outside]
            outputs = calibrate(logits[outside], codes[outside], calibration[outside], own)(outputs)
        right = outputs.argmax(1) == codes[held]
        balanced = np.mean([right[codes[held] == k].mean() for k in np.unique(codes[held])])
        found.append((right, (right.mean(), balanced, float(trained.expert_accuracy[s]), float(trained.risk[s]))))
    return found


def _choices(
    strengths: list[float], path: dict[str, np.ndarray], correct: np.ndarray, groups: np.ndarray | None
) -> tuple[dict[str, float], dict[str, np.ndarray] | None]:
    """What each rule chooses, and the accuracies by group."""
    by_fold = {name: values.reshape(-1, len(strengths)) for name, values in path.items()}  # (folds, strengths)
    folds = len(by_fold["fold"])
    figures = {name: by_fold[name].mean(0) for name in COLUMNS[2:]}
    failed = ~np.isfinite(figures["accuracy"])
    if failed.all():
        raise NonFiniteError(
            "the loss is not finite with any of the strengths, but finite numbers were expected: lower learning_rate "
            "or the weights of config."
        )
    for strength in np.array(strengths)[failed]:
        warnings.warn(
            f"with strength {strength:g} the loss became non-finite: it is not chosen; lower learning_rate or leave it "
            "out of strengths.",
            stacklevel=3,
        )
    none = np.zeros(len(strengths))  # one fold shows no spread
    errors = {name: by_fold[name].std(0, ddof=1) / np.sqrt(folds) if folds > 1 else none for name in COLUMNS[2:]}
    table = None
    if groups is not None:
        scored = np.isfinite(correct[~failed]).all(0)  # a splitter need not hold out every row
        names = np.unique(groups[scored])
        accuracy = np.stack([correct[:, scored & (groups == name)].mean(1) for name in names], axis=1)
        figures |= {"group_accuracy": accuracy.mean(1), "worst_group": accuracy.min(1)}
        table = {
            "strength": np.repeat(strengths, len(names)),
            "group": np.tile(names, len(strengths)),
            "accuracy": accuracy.ravel(),
        }
    possible = [name for name, rule in RULES.items() if groups is not None or not rule.groups]
    return {name: strengths[choose_strength(name, strengths, figures, errors)] for name in possible}, table
