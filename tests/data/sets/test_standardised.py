"""Standardisation of features and sequences: against NumPy, exact through a file, wherever examples come from."""

import pickle

import numpy as np
import pytest

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.batches.one_pass import eval_batches
from c3r_jax.data.counter_rng import permutation
from c3r_jax.data.sets.standardised import StandardisedSource, fit_standardisation, standardisation_from_json
from c3r_jax.data.source import DatasetInfo
from c3r_jax.errors import DataError

RNG = np.random.default_rng(0)
INFO = DatasetInfo("demo", ("sound", "table"), ("a", "b"))


def columns(n=40):
    """Sequences with padding, and features whose scales differ by six orders of magnitude."""
    sound = (3 + 0.1 * RNG.standard_normal((n, 6, 2))).astype(np.float32)
    sound[::2, 4:] = 0
    table = (RNG.standard_normal((n, 4)) * (1e-3, 1, 1e3, 0) + (0, 5, 1e3, 7)).astype(np.float32)
    return {"sound": sound, "table": table}


@pytest.fixture
def made():
    present = np.ones((40, 2), bool)
    present[:5, 1] = False
    source = ArraySource(columns(), np.arange(40) % 2, info=INFO, present=present)
    source.columns["table"][:5] = 1e9  # not there, so not counted
    return source, fit_standardisation(source)


def test_means_and_deviations_become_0_and_1(made):
    source, standardisation = made
    found = StandardisedSource(source, standardisation).gather(np.arange(40))
    table = found["table"][5:]
    np.testing.assert_allclose(table.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(table.std(0), [1, 1, 1, 0], atol=1e-4)
    padding = ~source.columns["sound"].any(2)
    assert (found["sound"][padding] == 0).all() and padding.sum() == 40
    np.testing.assert_allclose(found["sound"][~padding].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(found["sound"][~padding].std(0), 1, atol=1e-4)


def test_one_example_or_many_in_any_form(made):
    source, standardisation = made
    again = standardisation_from_json(standardisation.to_json())
    whole = StandardisedSource(source, standardisation).gather(np.arange(40))
    for form in (again, pickle.loads(pickle.dumps(standardisation))):
        alone = pickle.loads(pickle.dumps(StandardisedSource(source, form)))
        assert alone.labels is not None and len(alone) == 40
        for name in INFO.modalities:
            np.testing.assert_array_equal(np.stack([alone[i][name] for i in range(40)]), whole[name], strict=True)
    batch = next(iter(eval_batches(alone, None, batch_size=40)))
    assert (batch["inputs"]["table"][:5] == 0).all()  # what is missing stays empty
    np.testing.assert_array_equal(batch["inputs"]["table"][5:], whole["table"][5:])


def test_the_sample_is_bounded():
    class Long:
        info, read = DatasetInfo("long", ("sound",), ("a",)), 0

        def __len__(self):
            return 5000

        def __getitem__(self, i):
            self.read += 1
            return {"sound": np.full((2000, 1), i, np.float32), "label": 0}

    source = Long()
    fit_standardisation(source)
    assert source.read <= 66  # 64, and what finding the kinds takes


def test_what_few_examples_have_is_measured_too():
    sound, table = np.ones((300, 1100, 1), np.float32), np.full((300, 2), 5, np.float32)
    present = np.ones((300, 2), bool)
    present[:, 1] = np.arange(300) == permutation(300, 0, "scales")[200]
    source = ArraySource({"sound": sound, "table": table}, np.zeros(300, int), info=INFO, present=present)
    assert fit_standardisation(source).mean["table"].tolist() == [5, 5]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a": 3}', '{"a": [[1], [1, 2]]}', '{"a": [["x"], [1]]}', '{"a": [[NaN], [1]]}']
)
def test_files_that_are_none(text):
    with pytest.raises(DataError, match="restore the file"):
        standardisation_from_json(text)


def test_values_that_are_not_finite():
    bad = columns()
    bad["table"][7, 2] = np.nan
    with pytest.raises(DataError, match="Example 7 of 'demo' has values of 'table' that are NaN"):
        source = ArraySource(bad, np.arange(40) % 2, info=INFO)
        fit_standardisation(source)
