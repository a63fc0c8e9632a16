"""One small fit shared by the tests that only read it."""

import warnings

import pytest

from c3r_jax import C3RClassifier
from c3r_jax.data.sets.structural import StructuralModel

SMALL = {"steps": 60, "hidden": (8,), "dim": 4, "batch_size": 64, "learning_rate": 1e-2}


@pytest.fixture(scope="session")
def sample():
    return StructuralModel("anticausal").sample(400, seed=0)


@pytest.fixture(scope="session")
def fitted(sample):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forty rows held out are few: some diagnostic may speak
        return C3RClassifier(**SMALL).fit(sample.inputs, sample.labels)
