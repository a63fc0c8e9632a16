"""benchmarks/torch_parity.py: the estimator trained by PyTorch is the one trained here."""

import warnings

import numpy as np
import pytest

from benchmarks import vs_torch
from benchmarks.safety import gaussian_world
from benchmarks.torch_parity import METHODS, InTorch, made
from c3r_jax import C3RClassifier

pytestmark = pytest.mark.torch


def test_the_estimator_in_pytorch_predicts_the_same():
    rows = gaussian_world(2, 3, rows=300)(0)
    small = {"steps": 15, "seed": 1, "hidden": (8,), "dim": 4}
    here, there = ({**METHODS[name], **small} for name in ("c3r", "c3r, PyTorch"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few rows
        ours, theirs = (made(**settings).fit(*rows["train"]) for settings in (here, there))
    assert isinstance(theirs, InTorch) and not isinstance(ours, InTorch) and isinstance(ours, C3RClassifier)
    np.testing.assert_allclose(theirs.loss_curve_, ours.loss_curve_, rtol=1e-4)
    assert ours.loss_curve_[-1] < ours.loss_curve_[0]
    inputs = rows["same"][0]
    np.testing.assert_allclose(theirs.predict_proba(inputs), ours.predict_proba(inputs), atol=1e-3)


def test_the_benchmark_refuses_what_it_cannot_measure(capsys):
    for given, words in (("--models=foo", "--models has 'foo'"), ("--repeats=1", "--repeats is 1")):
        with pytest.raises(SystemExit):
            vs_torch.parsed(["--json=out.json", given])
        assert words in capsys.readouterr().err
    assert vs_torch.parsed(["--json=out.json", "--models=mlp,stack"]).models == ["mlp", "stack"]
