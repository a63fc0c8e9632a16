"""The matrix-product-only solver."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.linear_solve import _scales, inverse_spd, solve_spd

from . import oracles
from .conftest import Precision


def system(seed: int, p: int, d: int, condition: float, scale: float = 1.0) -> tuple[Any, Any, Any]:
    """a with eigenvalues from `scale` down to `scale / condition`, x, and b = a x."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(p, p)))
    a = (q * (scale * np.geomspace(1, 1 / condition, p))) @ q.T
    x = rng.normal(size=(p, d))
    return (a + a.T) / 2, x, (a + a.T) / 2 @ x


def test_by_hand(precision: Precision) -> None:
    """[[2, 1], [1, 2]] x = (3, 0) has x = (2, -1); 4 x = 2 has x = 1/2."""
    solve = jax.jit(solve_spd)
    x = solve(jnp.array([[2.0, 1], [1, 2]], precision.dtype), jnp.array([[3.0], [0]], precision.dtype))
    precision.close(x, [[2], [-1]])
    precision.close(solve(jnp.array([[4.0]], precision.dtype), jnp.array([[2.0]], precision.dtype)), [[0.5]])


@pytest.mark.parametrize("floor", [False, True])
@pytest.mark.parametrize(
    ("p", "condition", "scale"), [(1, 1.0, 1.0), (16, 1e2, 1.0), (16, 1e2, 1e-12), (16, 1e2, 1e12), (64, 1e4, 1.0)]
)
def test_backward_error(precision: Precision, p: int, condition: float, scale: float, floor: bool) -> None:
    """|a x - b| within rounding of |a| |x|, and so an error within rounding times the condition number."""
    a, x, b = system(1, p, 3, condition, scale)
    a32, b32 = jnp.asarray(a, precision.dtype), jnp.asarray(b, precision.dtype)
    a64, b64 = np.asarray(a32, np.float64), np.asarray(b32, np.float64)
    eps = float(np.finfo(precision.dtype).eps)
    bound = {"condition": 2 * condition * p} if floor else {}
    y = np.asarray(jax.jit(functools.partial(solve_spd, **bound))(a32, b32), np.float64)
    assert y.shape == x.shape
    residual = np.linalg.norm(a64 @ y - b64) / (np.linalg.norm(a64, 2) * np.linalg.norm(x))
    assert residual < 30 * eps, residual / eps
    error = np.linalg.norm(y - np.linalg.solve(a64, b64)) / np.linalg.norm(x)
    assert error < 100 * condition * eps, error / condition / eps


def test_steps_are_halved() -> None:
    """Scaled steps for |A|_inf / ridge of 512 columns, which plain ones need ceil(log2(1.2e6)) + 6 = 27 for."""
    assert len(_scales(512**1.5 * 1.01 / 0.01)) == 14


@pytest.mark.parametrize("rank", [1, 4, 64])
@pytest.mark.parametrize("ridge", [1e-2, 1e-3])
def test_the_trace_as_the_bound(precision: Precision, rank: int, ridge: float) -> None:
    """A covariance of few directions with its ridge: solved as well with fewer steps, none of them in a loop."""
    p = 64
    x = np.random.default_rng(rank).normal(size=(p, rank))
    cov = x @ x.T
    a = jnp.asarray(cov + ridge * np.trace(cov) / p * np.eye(p), precision.dtype)
    a64, b = np.asarray(a, np.float64), np.asarray(cov[:, :3])
    bound = {"condition": 1.001 * p * (1 + ridge) / ridge, "largest": 1.001 * jnp.trace(a)}
    assert len(_scales(bound["condition"], 2)) <= len(_scales(p**1.5 * (1 + ridge) / ridge)) - 2
    invert = functools.partial(inverse_spd, **bound, polish=2 if precision.dtype == jnp.float32 else 3, unroll=True)
    assert not {"while", "scan"} & {str(equation.primitive) for equation in jax.make_jaxpr(invert)(a).eqns}
    y = np.asarray(solve_spd(a, jnp.asarray(b, precision.dtype), inverse=jax.jit(invert)(a)), np.float64)
    residual = np.linalg.norm(a64 @ y - b) / (np.linalg.norm(a64, 2) * np.linalg.norm(y))
    assert residual < 100 * float(np.finfo(precision.dtype).eps), residual


@pytest.mark.parametrize("p", [8, 256])
def test_singular_matrices_stay_finite(p: int) -> None:
    """Rank p / 4 without a ridge: what cannot be solved is wrong, but finite."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1024, p // 4)) @ rng.normal(size=(p // 4, p))
    a = jnp.asarray(np.cov(x.T), jnp.float32)
    assert np.isfinite(jax.jit(solve_spd)(a, a[:, :2])).all()


def test_finite_differences(x64: None) -> None:
    a, _, _ = system(2, 6, 2, 50.0)
    rng = np.random.default_rng(3)
    b, db, weight = rng.normal(size=(3, 6, 2))
    half = rng.normal(size=(6, 6)) / 200
    da = half + half.T

    def value(a: Any, b: Any) -> Any:
        return jnp.vdot(weight, jnp.tanh(solve_spd(a, b)))

    ga, gb = jax.jit(jax.grad(value, argnums=(0, 1)))(jnp.asarray(a), jnp.asarray(b))
    slope = oracles.directional(lambda t: float(np.vdot(weight, np.tanh(np.linalg.solve(a + t * da, b + t * db)))))
    np.testing.assert_allclose(np.vdot(ga, da) + np.vdot(gb, db), slope, rtol=1e-7)
    forward = jax.jit(lambda a, b, da, db: jax.jvp(value, (a, b), (da, db))[1])
    tangent = forward(jnp.asarray(a), jnp.asarray(b), jnp.asarray(da), jnp.asarray(db))
    np.testing.assert_allclose(tangent, slope, rtol=1e-7)


def test_higher_derivatives(x64: None) -> None:
    """a = 2 + t: x = 1 / (2 + t), x' = -1/4, x'' = 1/4, x''' = -3/8 at 0."""
    f = lambda t: solve_spd(jnp.reshape(2 + t, (1, 1)), jnp.ones((1, 1)))[0, 0]  # noqa: E731
    derivatives = []
    for _ in range(4):
        derivatives.append(float(jax.jit(f)(0.0)))
        f = jax.grad(f)
    np.testing.assert_allclose(derivatives, [0.5, -0.25, 0.25, -0.375], rtol=1e-9)


def test_jit_and_vmap(precision: Precision) -> None:
    batch = [system(s, 8, 2, 20.0) for s in range(5)]
    a, x, b = (jnp.asarray(np.stack([s[i] for s in batch]), precision.dtype) for i in range(3))
    precision.close(jax.jit(jax.vmap(solve_spd))(a, b), x, loosen=20)
    precision.close(jax.jit(solve_spd)(a[0], b[0]), x[0], loosen=20)
    shared = jax.jit(jax.vmap(solve_spd, in_axes=(None, 0)))(a[0], b)
    precision.close(shared, np.linalg.solve(np.asarray(a[0], float), np.asarray(b, float)), loosen=50)
    gradient = jax.grad(lambda a, b: jnp.sum(solve_spd(a, b) ** 2))
    many, one = jax.jit(jax.vmap(gradient))(a, b), jax.jit(gradient)(a[2], b[2])
    precision.close(many[2], one, loosen=200)


def test_no_factorisation_in_the_program() -> None:
    """Only matrix products: no LAPACK call, which may hang under vmap in a scan."""
    a, _, b = system(4, 8, 2, 10.0)
    grad = jax.vmap(jax.grad(lambda a, b: jnp.sum(solve_spd(a, b))))
    text = jax.jit(grad).lower(jnp.asarray([a, a]), jnp.asarray([b, b])).as_text().lower()
    for name in ("lapack", "cholesky", "triangular_solve", "potrf", "getrf", "syevd"):
        assert name not in text


SCAN = """
import c3r_jax, jax, jax.numpy as jnp, numpy as np
config, rng = c3r_jax.C3RConfig.hinge(), np.random.default_rng(0)
h = {m: jnp.asarray(rng.normal(size=(50, 96, 16)), jnp.float32) for m in ("a", "b")}
y = jnp.asarray(rng.integers(0, 3, (50, 96)))
w = jnp.asarray(rng.normal(size=(50, 16, 3)), jnp.float32)

def loss(w, h, y):
    fuse = lambda f, present: (f["a"] + f["b"]) / 2
    features = {m: jnp.tanh(a) * w.sum() for m, a in h.items()}
    return c3r_jax.c3r_loss(lambda z: z @ w, fuse, features, y, config=config)[0]

def step(w, _):
    value, slope = jax.vmap(jax.value_and_grad(loss))(w, h, y)
    return w - 0.01 * slope, value

w, values = jax.jit(lambda w: jax.lax.scan(step, w, None, length=20))(w)
assert values.shape == (20, 50) and np.isfinite(values).all(), values
assert (values[-1] < values[0]).mean() > 0.9
print("finished")
"""


def test_fifty_problems_in_a_scan_finish() -> None:
    """In a process of its own: what this guards against is a hang for ever."""
    done = subprocess.run([sys.executable, "-c", SCAN], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0 and "finished" in done.stdout, done.stderr
