"""L_v where a batch has few rows for its instrument: what is measured, what is trained on, and when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax
from c3r_jax.core.first_stage import FirstStage
from c3r_jax.core.moments import batch_moments
from c3r_jax.core.relevance import relevance, supported_share
from tests.core import problems

WIDTH = 3
COLUMNS = 2 * WIDTH  # of each instrument, with three modalities


def weighted(data, moments=None, **settings):
    """The loss of a thousandth of the task and L_v, its terms and gradient."""
    config = c3r_jax.C3RConfig(w_task=0.001, lambda_s=0.0, lambda_n=0.0, subsets=0.0, cap=0.0, **settings)

    @jax.jit
    def run(features, moments):
        def loss(features):
            more = {"config": config, "moments": moments}
            return c3r_jax.c3r_loss(data.predict, problems.mean_fuse, features, jnp.asarray(data.labels), **more)

        return jax.value_and_grad(loss, has_aux=True)(features)

    (value, terms), gradient = run({name: jnp.asarray(h) for name, h in data.features.items()}, moments)
    return float(value), terms, gradient


def test_the_default_trains_on_the_share_that_the_rows_support():
    """4.5 rows a column: half of L_v is in the loss and in its gradient; what is reported is L_v itself."""
    data = problems.problem(rows=int(4.5 * COLUMNS))
    value, terms, gradient = weighted(data, lambda_v=2.0)
    whole, same, all_of_it = weighted(data, lambda_v=2.0, gate=False)
    _, _, of_task = weighted(data, lambda_v=0.0)
    np.testing.assert_allclose(terms.relevance, same.relevance, rtol=1e-6)
    np.testing.assert_allclose(whole - value, float(terms.relevance), rtol=1e-5)
    for name in gradient:
        moved = np.asarray(all_of_it[name]) - np.asarray(of_task[name])
        assert np.abs(moved).max() > 1e-3
        np.testing.assert_allclose(gradient[name], of_task[name] + 0.5 * moved, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:the first stage has")
def test_rows_of_earlier_batches_count():
    """Two rows a column train nothing; with the moments of four more, all of L_v."""
    earlier = problems.problem(1, rows=4 * COLUMNS).features
    moments = batch_moments(jnp.concatenate([jnp.asarray(earlier[name]) for name in problems.NAMES], axis=1))
    data = problems.problem(rows=2 * COLUMNS)
    settings = {"stage_rows": "complete", "lambda_v": 1.0}
    alone, terms, _ = weighted(data, **settings)
    np.testing.assert_allclose(alone, 0.001 * float(terms.task), rtol=1e-5)
    value, terms, _ = weighted(data, moments, **settings)
    np.testing.assert_allclose(value, 0.001 * float(terms.task) + float(terms.relevance), rtol=1e-5)


@pytest.mark.parametrize("rows", [(12, 12, 12), (27, 45, 60), (0, 18, 33), (0, 0, 0)])
def test_each_stage_counts_by_its_own_rows(rows):
    """Stages of unequal widths, against the formula in float64."""
    rng = np.random.default_rng(0)
    shapes = {"audio": (5, 2), "image": (4, 3), "text": (5, 2)}  # (p, d)
    r2 = {name: rng.random(d) for name, (_, d) in shapes.items()}
    unexplained = np.concatenate([1 - r2[name] for name in shapes])
    per_column = np.concatenate([np.full(d, n / p) for n, (p, d) in zip(rows, shapes.values(), strict=True)])
    fitted, share = per_column > 0, np.clip(per_column / 3 - 1, 0, 1)
    expected = [(weight * unexplained * fitted).sum() / max(fitted.sum(), 1) for weight in (1, share)]
    nothing = jnp.zeros(0)
    stages = {
        name: FirstStage(nothing, jnp.zeros(shape), nothing, nothing, jnp.asarray(r2[name]), nothing)
        for name, shape in shapes.items()
    }
    np.testing.assert_allclose(relevance(stages, jnp.asarray(rows, jnp.float32)), expected, rtol=1e-6, atol=1e-7)


def test_the_share_grows_with_the_rows():
    shares = np.asarray(supported_share(jnp.arange(0.0, 100.0), 10))
    assert shares[30] == 0 and shares[60] == 1 and np.all(np.diff(shares) >= 0)
    np.testing.assert_allclose(shares[45], 0.5, rtol=1e-6)
