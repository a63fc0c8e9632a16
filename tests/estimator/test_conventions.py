"""What people who know scikit-learn expect: its own checks, seeds, nested settings, tables, names of columns."""

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV, ParameterGrid, cross_val_score, train_test_split
from sklearn.utils.estimator_checks import estimator_checks_generator

from c3r_jax import C3RClassifier, C3RClassifierCV, C3RConfig, MultiModal
from c3r_jax.data.sets.structural import StructuralModel
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.estimator import classifier as module
from c3r_jax.estimator.conventions import seed_of
from c3r_jax.estimator.folds import make_folds
from c3r_jax.estimator.held_out import stratified_holdout
from c3r_jax.estimator.inputs import check_labels, check_weights, split_modalities
from c3r_jax.estimator.redrawn import first_of_equal

from .conftest import SMALL

pytestmark = pytest.mark.filterwarnings("ignore")  # few rows are held out: some diagnostic may speak

# The checks of scikit-learn that ask for something else, and why it is as it is.
DO_NOT_APPLY = {
    "check_sample_weight_equivalence_on_dense_data": "a weight says how often a row is drawn: equal in the mean only",
    "check_dtype_object": "a value that is no number is a DataError that names its row, a ValueError and no TypeError",
    "check_estimators_pickle": "a row that is NaN in part is refused: one of NaN alone means an absent modality",
    "check_array_api_input": "arrays of other libraries are converted to NumPy's; scikit-learn skips it by default",
}


def test_the_checks_of_scikit_learn():
    """By the network alone: C3R's terms change nothing of the interface, and take long to compile for every shape."""
    small = {"steps": 100, "hidden": (8,), "dim": 2, "batch_size": 32, "learning_rate": 2e-2, "regularised": False}
    small["validation_fraction"] = 0.0  # diagnostics of held-out rows are compiled for every shape, too
    model = C3RClassifier(**small, modalities={"first": slice(0, 1), "others": slice(1, None)})
    seen = set()
    for estimator, check in estimator_checks_generator(model):
        name = check.func.__name__
        seen.add(name)
        if name not in DO_NOT_APPLY:
            check(estimator)
    assert set(DO_NOT_APPLY) <= seen and len(seen) > 30


def test_random_state_and_its_alias(sample, fitted):
    assert [seed_of(None, 4), seed_of(np.int64(5), 4), seed_of(0, 4)] == [4, 5, 0]
    assert seed_of(None, np.random.RandomState(1)) == seed_of(None, np.random.RandomState(1))
    assert seed_of(None, None) != seed_of(None, None)
    for seed, state, message in ((-1, 0, "seed is -1"), (None, 1.5, "random_state is 1.5"), (True, 0, "seed is True")):
        with pytest.raises(ConfigError, match=message):
            seed_of(seed, state)
    plain = clone(fitted).set_params(regularised=False)
    by_state, by_seed, other = (
        clone(plain).set_params(**change) for change in ({"random_state": 3}, {"seed": 3}, {"random_state": 4})
    )
    expected = by_state.fit(sample.inputs, sample.labels).predict_proba(sample.inputs)
    np.testing.assert_array_equal(by_seed.fit(sample.inputs, sample.labels).predict_proba(sample.inputs), expected)
    assert np.abs(expected - other.fit(sample.inputs, sample.labels).predict_proba(sample.inputs)).max() > 1e-3


def test_fields_of_the_configuration_are_parameters():
    model = C3RClassifier()
    params = model.get_params()
    assert params["config"] is None and params["config__expert"] == 0.5 and params["config__lambda_n"] == 1.0
    assert not any(name.startswith("config__") for name in model.get_params(deep=False))
    assert model.set_params(config__lambda_n=2.0, steps=7) is model
    assert model.config == C3RConfig(lambda_n=2.0, expert=0.5) and model.steps == 7
    assert clone(model).config == model.config
    model.set_params(config=C3RConfig.strong(), config__ridge=0.1)
    assert model.config == C3RConfig.strong(ridge=0.1)
    search = C3RClassifierCV(C3RClassifier()).set_params(estimator__config__lambda_v=3.0)
    assert search.estimator.config.lambda_v == 3.0
    with pytest.raises(ConfigError, match="no field 'lambda_m', but one of w_task, lambda_s"):
        model.set_params(config__lambda_m=1.0)
    with pytest.raises(ValueError, match="lambda_n is -1"):
        model.set_params(config__lambda_n=-1.0)


def test_a_table_of_modalities_is_split_by_rows(sample):
    table = MultiModal({**sample.inputs, "m2": pd.DataFrame(sample.inputs["m2"])})
    assert len(table) == 400 and table.shape == (400, 48) and list(table) == ["m1", "m2"]
    assert repr(table) == "MultiModal(400 rows; columns of m1: 24, m2: 24)"
    for rows in ([3, 1], np.array([3, 1]), slice(3, 0, -2), np.isin(np.arange(400), [1, 3])):
        part = table[rows]
        order = [1, 3] if np.size(rows) == 400 else [3, 1]
        for name in ("m1", "m2"):
            np.testing.assert_array_equal(part[name], sample.inputs[name][order])
    for mistake in (3, (1, 2), np.eye(2, dtype=int)):
        with pytest.raises(DataError, match="the name of a modality or several rows"):
            table[mistake]
    for parts in ({}, sample.inputs["m1"]):
        with pytest.raises(DataError, match="a dict of at least one array"):
            MultiModal(parts)
    with pytest.raises(DataError, match=r"have the shapes .*'b': \(3, 1\)"):
        MultiModal({"a": np.ones((2, 1)), "b": np.ones((3, 1))})
    with pytest.raises(DataError, match=r"a c3r_jax.MultiModal table.*modalities=\{'image': slice\(0, 64\)"):
        C3RClassifier(**SMALL).fit(sample.inputs["m1"], sample.labels)


def test_cross_validation_and_grids_on_a_table(sample, fitted):
    table, model = MultiModal(sample.inputs), C3RClassifier(**SMALL, regularised=False)
    train, test, y_train, y_test = train_test_split(table, sample.labels, test_size=0.25, random_state=0)
    assert clone(model).fit(train, y_train).score(test, y_test) > 0.6
    assert cross_val_score(model, table, sample.labels, cv=2).min() > 0.6
    grid = {"config__lambda_n": [0.5, 2.0]}
    search = GridSearchCV(model, grid, cv=2, refit=False).fit(table, sample.labels)
    assert search.cv_results_["params"] == list(ParameterGrid(grid)) and search.best_score_ > 0.6
    np.testing.assert_array_equal(fitted.predict_proba(table), fitted.predict_proba(sample.inputs))


def test_names_of_columns_and_containers(sample, fitted):
    assert fitted.n_features_in_ == 48 and not hasattr(fitted, "feature_names_in_")
    assert list(fitted.get_feature_names_out()) == [f"c3rclassifier{i}" for i in range(4)]
    frames = {name: pd.DataFrame(x).add_prefix("x") for name, x in sample.inputs.items()}
    plain = C3RClassifier(**SMALL, regularised=False)
    of_frames = clone(plain).set_output(transform="pandas")
    out = of_frames.fit_transform(frames, sample.labels)
    assert of_frames.feature_names_in_[[0, 24]].tolist() == ["m1__x0", "m2__x0"]
    assert list(out.columns) == list(of_frames.get_feature_names_out()) and out.shape == (400, 4)
    wide = pd.concat([frame.add_prefix(name) for name, frame in frames.items()], axis=1)
    by_name = clone(plain).set_params(modalities={"m1": slice("m1x0", "m1x23"), "m2": slice("m2x0", None)})
    by_name.fit(wide, sample.labels)
    assert by_name.feature_names_in_.tolist() == list(wide.columns) and by_name.n_features_in_ == 48
    by_place = clone(plain).set_params(modalities={"m1": slice(0, 24), "m2": slice(24, None)})
    by_place.fit(wide.to_numpy(), sample.labels)
    with pytest.raises(DataError, match="X has 47 features, but C3RClassifier is expecting 48 features as input"):
        by_place.predict(wide.to_numpy()[:, :47])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_modalities(np.ones((0, 3)), {"a": [0], "b": [1]}), r"0 sample\(s\) \(shape=\(0, 3\)\)"),
        (lambda: split_modalities(np.ones((3, 0)), {"a": [0], "b": [1]}), r"0 feature\(s\) \(shape=\(3, 0\)\)"),
        (lambda: split_modalities({"a": np.ones((2, 1)) + 1j}), "Complex data not supported"),
        (lambda: check_labels([], 0), "X has no row"),
        (lambda: check_labels([0.5, 1.0], 2), "continuous"),
        (lambda: check_weights([0.0, 0.0], 2), "every weight is zero"),
    ],
)
def test_words_that_people_look_for(call, message):
    with pytest.raises(DataError, match=message):
        call()


def drawn(num_rows=120, times=2, seed=0):
    """Rows of a small model drawn with replacement, and which rows they are."""
    rows = np.random.default_rng(seed).integers(0, num_rows, times * num_rows)
    sample = StructuralModel("anticausal").sample(num_rows, seed=1)
    return {name: x[rows] for name, x in sample.inputs.items()}, sample.labels[rows], rows


def test_copies_of_a_row_are_known():
    inputs, labels, rows = drawn()
    source = first_of_equal(inputs, labels)
    np.testing.assert_array_equal(rows[source], rows)
    assert len(np.unique(source)) == len(np.unique(rows)) and (source <= np.arange(240)).all()
    inputs["m1"][3] = np.nan  # an absent modality is a value like any other
    assert first_of_equal(inputs, labels)[3] == 3
    turned = np.where(np.arange(240) == source[-1], 1 - labels, labels)
    assert first_of_equal(inputs, turned)[source[-1]] == source[-1]
    counts = np.random.default_rng(0).integers(0, 3, (240, 4)).astype(float)  # equal rows of different examples
    np.testing.assert_array_equal(first_of_equal({"a": counts}, labels), np.arange(240))


@pytest.mark.parametrize("unit", [1, 0.1])
def test_equal_rows_of_scores_are_no_copies(unit):
    """Few possible values, or whole numbers, are equal by coincidence, however many of them there are."""
    rng = np.random.default_rng(0)
    score, y = unit * rng.integers(0, 41, 2000), rng.integers(0, 2, 2000)
    source = first_of_equal({"a": score[:, None], "b": (score > 20 * unit)[:, None].astype(float)}, y)
    np.testing.assert_array_equal(source, np.arange(2000))
    few = {name: value[:200] / 40 for name, value in {"a": score[:, None], "b": 1.0 * (score > 20)[:, None]}.items()}
    np.testing.assert_array_equal(first_of_equal(few, y[:200]), np.arange(200))
    counts = rng.integers(0, 10_000, 400)[rng.integers(0, 400, 400)]  # most of them different, as amounts are
    np.testing.assert_array_equal(first_of_equal({"a": counts[:, None]}, np.zeros(400, int)), np.arange(400))
    drawn = rng.integers(0, 400, 400)  # one continuous column is enough
    both = {"a": counts[drawn, None], "b": rng.standard_normal((400, 1))[drawn]}
    assert len(np.unique(first_of_equal(both, np.zeros(400, int)))) == len(np.unique(drawn))


def test_copies_of_a_row_are_on_one_side_of_every_split():
    inputs, labels, rows = drawn()
    source = first_of_equal(inputs, labels)
    held = stratified_holdout(labels, 0.3, np.random.default_rng(0), source=source)
    assert held.any() and not set(rows[held]) & set(rows[~held])
    alone = stratified_holdout(labels, 0.3, np.random.default_rng(0))
    assert set(rows[alone]) & set(rows[~alone])  # so the assertion above can fail
    for outside, inside in make_folds(3, labels, np.unique(labels), None, seed=0, source=source):
        assert inside.any() and not set(rows[inside]) & set(rows[outside])


def test_copies_of_a_row_are_counted_once(monkeypatch):
    inputs, labels, rows = drawn()
    seen = {}

    def report(h, present, labels, *, held, **settings):
        seen["rows"], seen["held"] = len(labels), held.sum()
        return {}, []

    def calibrated(logits, labels, held, weights):
        seen["weights"] = weights
        return module.no_calibration(2)

    monkeypatch.setattr(module, "first_stage_report", report)
    monkeypatch.setattr(module, "calibrate", calibrated)
    C3RClassifier(**SMALL, regularised=False, validation_fraction=0.3).fit(inputs, labels)
    assert seen["rows"] == len(np.unique(rows)) and seen["held"] < 0.31 * seen["rows"]
    assert sorted(seen["weights"]) == sorted(np.unique(rows, return_counts=True)[1])


def test_experts_do_not_see_the_copy_of_a_row_that_is_left_out():
    """Noise that says nothing of the label: experts that see a row twice would remember it."""
    rng = np.random.default_rng(0)
    x = {name: rng.standard_normal((60, 40)).astype(np.float32) for name in ("a", "b")}
    labels, copies = rng.integers(0, 2, 60).astype(np.int32), np.tile(np.arange(60), 4)
    rows = module.Rows({name: value[copies] for name, value in x.items()}, np.ones((240, 2), bool), labels[copies])
    once = module.with_experts_of_different(rows, 2, copies)
    twice = module.with_experts_of_different(rows, 2, np.arange(240))
    alone = module.with_experts_of_different(rows.take(np.arange(60)), 2, np.arange(60))
    for name in x:
        np.testing.assert_allclose(once.evidence[name], alone.evidence[name][copies], atol=1e-5)
    where = np.arange(300) % 3 > 0  # of rows of which the last 60 are padding
    where[240:] = False
    tail = module.Rows(*(jax.tree.map(lambda v: np.concatenate([v, v[:60]]), part) for part in rows[:3]))
    some = module.with_experts_of_different(tail, 2, copies, where=where)
    _, first, group = np.unique(copies[where[:240]], return_index=True, return_inverse=True)
    few = module.with_experts_of_different(tail.take(np.flatnonzero(where)[first]), 2, np.arange(len(first)))
    for name in x:
        np.testing.assert_allclose(some.evidence[name][where], few.evidence[name][group], atol=1e-5)
        assert not some.evidence[name][~where].any()
    gained = [np.mean(rows_.evidence["a"][np.arange(240), rows.labels]) for rows_ in (twice, once)]
    assert gained[0] > gained[1] + 0.2


def test_bagging_on_a_wide_array(sample):
    wide = np.concatenate([sample.inputs["m1"], sample.inputs["m2"]], axis=1)
    model = C3RClassifier(**SMALL, regularised=False, modalities={"m1": slice(0, 24), "m2": slice(24, 48)})
    assert (
        BaggingClassifier(model, n_estimators=2, random_state=0).fit(wide, sample.labels).score(wide, sample.labels)
        > 0.7
    )
