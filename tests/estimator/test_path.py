"""The strength by cross-validation: one program, the runs of the estimator, honest rules, and clear refusals."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut

from c3r_jax import C3RClassifier, C3RClassifierCV
from c3r_jax.core.own_causes import OwnCauses
from c3r_jax.data.sets.structural import StructuralModel
from c3r_jax.errors import ConfigError, DataError, NonFiniteError
from c3r_jax.estimator import classifier
from c3r_jax.estimator import path as module
from c3r_jax.estimator.classifier import DEFAULT
from c3r_jax.estimator.path_program import Trained, path_of
from c3r_jax.metrics.strength_rules import RULES
from c3r_jax.step.in_memory import run_of, weights_of

from .conftest import SMALL

pytestmark = pytest.mark.filterwarnings("ignore")  # few rows are held out: some diagnostic may speak
STRENGTHS = (0.0, 1.0, 3.0)


@pytest.fixture(scope="module")
def searched(sample):
    """A search on 400 rows, and what its program was called with."""
    called = []

    def remembered(structure):
        program = path_of(structure)
        return lambda *arguments: called.append((structure, arguments, program(*arguments))) or called[-1][2]

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(module, "path_of", remembered)
        path_of.cache_clear()
        search = C3RClassifierCV(C3RClassifier(**SMALL), strengths=STRENGTHS, cv=3)
        return search.fit(sample.inputs, sample.labels), called


def test_folds_share_a_program_and_strengths_their_batches(searched):
    _, called = searched
    assert len(called) == 3 and path_of.cache_info().misses == 1
    assert path_of(called[0][0])._cache_size() == 1
    for structure, (rows, plan, seed, _, _, fit, held, judges, weights), _ in called:
        assert structure.regularised and weights.shape[0] == len(STRENGTHS) and plan.ndim == 2 and seed == 0
        assert set(np.unique(plan)) <= set(np.flatnonzero(fit)) and not (fit & held).any()
        for evidence in rows.evidence.values():
            assert not evidence[~fit].any() and evidence[fit].any()
        between = np.flatnonzero(
            ~(fit | held)[:400]
        )  # the gate is measured on rows that are neither trained on nor scored
        assert len(between) >= 20 and (judges.present.any(1).sum(), judges.evidence) == (len(between), None)
        for name, values in judges.inputs.items():
            np.testing.assert_array_equal(values[: len(between)], rows.inputs[name][between])
    held = np.stack([arguments[6][:400] for _, arguments, _ in called])
    np.testing.assert_array_equal(held.sum(0), 1)  # each row is scored once


def test_a_strength_of_the_path_is_that_run_alone_and_zero_is_plain_training(searched):
    _, called = searched
    structure, (rows, plan, seed, *rates, _, _, judges, weights), together = called[1]
    for s, made in enumerate((structure._replace(regularised=False), structure, structure)):
        losses = run_of(made)(rows, plan, seed, weights[s], *rates, judges)[1]
        np.testing.assert_allclose(together.losses[s], losses, rtol=2e-3, atol=1e-3)
        assert np.abs(np.delete(together.losses, s, 0) - np.asarray(losses)).max(1).min() > 1e-2


def test_the_table_and_the_chosen_estimator(sample, searched):
    search, called = searched
    assert search.n_features_in_ == 48 and search.get_feature_names_out()[-1] == "c3rclassifiercv3"
    path = search.path_
    assert list(path) == list(module.COLUMNS) and {len(column) for column in path.values()} == {9}
    np.testing.assert_array_equal(path["strength"], STRENGTHS * 3)
    np.testing.assert_array_equal(path["fold"], np.repeat(range(3), 3))
    np.testing.assert_allclose(path["c3_risk"][:3], called[0][2].risk, rtol=1e-6)
    assert all(((path[name] > 0) & (path[name] <= 2)).all() for name in module.COLUMNS[2:])
    # Balanced classes: the two accuracies are nearly equal, and both far above chance.
    assert np.abs(path["accuracy"] - path["balanced_accuracy"]).max() < 0.02 and path["accuracy"].min() > 0.7
    assert search.groups_ is None and set(search.chosen_by_) == {n for n, rule in RULES.items() if not rule.groups}
    assert search.strength_ == search.chosen_by_["one_standard_error"] == search.best_estimator_.strength
    direct = C3RClassifier(**SMALL, strength=search.strength_).fit(sample.inputs, sample.labels)
    np.testing.assert_array_equal(search.predict_proba(sample.inputs), direct.predict_proba(sample.inputs))
    np.testing.assert_array_equal(
        search.predict(sample.inputs, "instrument"), direct.predict(sample.inputs, "instrument")
    )
    np.testing.assert_array_equal(search.transform(sample.inputs), direct.transform(sample.inputs))
    assert search.c3_risk_ == search.best_estimator_.c3_risk_ and list(search.classes_) == [0, 1]


def mixed_groups(per_group, seed):
    """Four groups; in the last the cues are reversed."""
    model = StructuralModel("anticausal")
    parts = [
        model.sample(per_group, seed=10 * seed + group, regime="shift" if group == 3 else "same") for group in range(4)
    ]
    inputs = {name: np.concatenate([part.inputs[name] for part in parts]) for name in model.modalities}
    return inputs, np.concatenate([part.labels for part in parts]), np.repeat(["a", "b", "c", "d"], per_group)


def test_groups_that_differ_show_what_strength_is_worth():
    inputs, labels, groups = mixed_groups(250, 0)
    search = C3RClassifierCV(C3RClassifier(**SMALL), strengths=STRENGTHS, rule="worst_group", cv=4)
    search.fit(inputs, labels, groups=groups)
    table = search.groups_
    assert list(table["group"][:4]) == ["a", "b", "c", "d"] and len(table["accuracy"]) == 12
    by_group = table["accuracy"].reshape(3, 4)
    # Each group is a fold of its own here.
    np.testing.assert_allclose(np.sort(by_group[0]), np.sort(search.path_["accuracy"].reshape(4, 3)[:, 0]))
    assert by_group[1:, 3].max() > by_group[0, 3] + 0.1
    assert search.strength_ == search.chosen_by_["worst_group"] > 0
    assert set(search.chosen_by_) == set(RULES)


def test_scikit_learn_manners(sample):
    search = C3RClassifierCV(C3RClassifier(**SMALL, modalities={"m1": slice(0, 24), "m2": slice(24, 48)}), cv=2)
    search.set_params(strengths=STRENGTHS, estimator__seed=2)
    assert clone(search).get_params()["estimator__seed"] == 2 and search.get_params()["rule"] == "one_standard_error"
    wide = np.concatenate([sample.inputs["m1"], sample.inputs["m2"]], axis=1)
    wide[::9, :24] = np.nan  # the modality is absent
    found = GridSearchCV(search, {"rule": ["accuracy", "c3_risk"]}, cv=2).fit(wide, sample.labels)
    assert found.best_score_ > 0.6 and found.best_estimator_.strength_ in STRENGTHS
    assert search.estimator.strength == 1 and not hasattr(search, "strength_")
    with pytest.raises(NotFittedError):
        search.predict(wide)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rule": "luck"}, ConfigError, "rule is 'luck', but one of accuracy, one_standard_error"),
        ({"rule": "worst_group"}, ConfigError, r"needs groups: call fit\(X, y, groups=...\)"),
        ({"strengths": (0.0, -1.0)}, ConfigError, "but different finite numbers >= 0 were expected"),
        ({"strengths": (1.0, 1.0)}, ConfigError, "but different finite numbers >= 0 were expected"),
        ({"strengths": ()}, ConfigError, "but different finite numbers >= 0 were expected"),
        ({"strengths": "strong"}, ConfigError, "a sequence of numbers was expected"),
        ({"cv": 1}, ConfigError, "cv is 1, but a whole number of at least 2"),
        ({"cv": 300}, DataError, "rows, but cv is 300 folds"),
        ({"estimator": "C3R"}, ConfigError, "estimator is str"),
        ({"estimator": C3RClassifier(regularised=False)}, ConfigError, "trains plainly whatever the strength"),
        ({"estimator": C3RClassifier(steps=0)}, ConfigError, "steps is 0"),
        ({"estimator": C3RClassifier(**{**SMALL, "learning_rate": 1e30})}, NonFiniteError, "lower learning_rate"),
    ],
)
def test_settings_refused(sample, change, error, message):
    settings = {"estimator": C3RClassifier(**SMALL), "strengths": STRENGTHS, "cv": 2} | change
    with pytest.raises(error, match=message):
        C3RClassifierCV(**settings).fit(sample.inputs, sample.labels)


@pytest.mark.parametrize(
    ("groups", "cv", "message"),
    [
        (np.zeros(399), 2, r"groups has shape \(399,\), but \(400,\)"),
        (np.where(np.arange(400) == 7, np.nan, 1.0), 2, "groups is missing at row 7"),
        (np.arange(400) % 2, 3, "groups has 2 different values, but cv is 3 folds"),
    ],
)
def test_groups_refused(sample, groups, cv, message):
    with pytest.raises(DataError, match=message):
        C3RClassifierCV(C3RClassifier(**SMALL), cv=cv).fit(sample.inputs, sample.labels, groups=groups)


def test_groups_in_another_order_are_refused(sample):
    inputs = {name: pd.DataFrame(value) for name, value in sample.inputs.items()}
    groups = pd.Series(np.arange(400) % 4)[::-1]
    with pytest.raises(DataError, match="groups has its rows in another order than m1: row 0 is 399"):
        C3RClassifierCV(C3RClassifier(**SMALL), cv=2).fit(inputs, sample.labels, groups=groups)


def test_experts_of_a_fold_see_copies_once(sample, monkeypatch):
    rows = np.random.default_rng(0).integers(0, 400, 400)
    seen = []

    def experts(found, num_classes, source, where):
        seen.append((source, where[: len(source)]))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "with_experts_of_different", experts)
    search = C3RClassifierCV(C3RClassifier(**SMALL), cv=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit({name: value[rows] for name, value in sample.inputs.items()}, sample.labels[rows])
    ((source, where),) = seen
    np.testing.assert_array_equal(rows[source], rows)
    assert where.any() and not set(source[where]) & set(source[~where])


def test_folds_are_calibrated_with_the_weights_of_their_rows(sample, searched, monkeypatch):
    """As the estimator is; biases of unweighted rows would undo the weights in the scores alone."""
    given = []  # by the program that the first search has compiled
    monkeypatch.setattr(module, "calibrate", lambda *arguments: given.append(arguments) or (lambda logits: logits))
    weights = np.where(sample.labels == 1, 3.0, 1.0)
    C3RClassifierCV(C3RClassifier(**SMALL), strengths=STRENGTHS, cv=3).fit(sample.inputs, sample.labels, weights)
    assert len(given) == 9
    for _, codes, held, own in given:
        np.testing.assert_array_equal(own, np.where(codes == 1, 3.0, 1.0))
        assert held.any() and not held.all()


def test_without_rows_for_the_gate_no_strength_is_chosen(sample, monkeypatch):
    """Folds of 45 rows train plainly at every strength, whose scores say nothing."""
    asked = []

    def program(rows, plan, *others):
        asked.append(others[-1])
        count = len(others[-1])
        logits = dict.fromkeys(("representation", "instrument"), np.zeros((count, len(rows.labels), 2)))
        return Trained(logits, np.zeros(count), np.zeros(count), np.zeros((count, len(plan))))

    monkeypatch.setattr(module, "path_of", lambda structure: program)
    few, small = {name: x[:90] for name, x in sample.inputs.items()}, C3RClassifier(**{**SMALL, "steps": 2})
    with pytest.warns(UserWarning, match="rows for the gate, but 20 were expected.*the weakest, 0, is taken"):
        search = C3RClassifierCV(small, strengths=(0.0, 2.0), cv=2).fit(few, sample.labels[:90])
    assert search.strength_ == 0 and set(search.chosen_by_.values()) == {0.0}
    for by_weights in asked:
        np.testing.assert_array_equal(by_weights, [weights_of(replace(DEFAULT, strength=0.0))] * 2)


def test_what_folds_have_judged_is_trained_even_where_it_silences_likely_causes(sample, monkeypatch):
    def program(rows, plan, *_):
        logits = dict.fromkeys(("representation", "instrument"), np.zeros((1, len(rows.labels), 2)))
        return Trained(logits, np.zeros(1), np.zeros(1), np.zeros((1, len(plan))))

    monkeypatch.setattr(module, "path_of", lambda structure: program)
    monkeypatch.setattr(classifier, "own_causes_of", lambda *_: OwnCauses(0.9, {}, 4000))
    alone = C3RClassifier(**SMALL)
    search = C3RClassifierCV(alone, strengths=(1.0,), cv=2).fit(sample.inputs, sample.labels)
    assert search.best_estimator_._structure.regularised
    assert not alone.fit(sample.inputs, sample.labels)._structure.regularised


def test_a_fold_needs_every_class_to_train_on(sample):
    search = C3RClassifierCV(C3RClassifier(**SMALL), cv=LeaveOneGroupOut())
    with pytest.raises(DataError, match="fold 0 has no row of class 0 to train on"):
        search.fit(sample.inputs, sample.labels, groups=sample.labels)
