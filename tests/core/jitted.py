"""Functions of the core as one program each; op by op, hundreds of small programs are compiled for each new shape."""

from __future__ import annotations

from typing import Any

import jax

from c3r_jax.core import contrastive, expert, held_out, objective


def c3r_loss(predict: Any, fuse: Any, features: Any, labels: Any, **settings: Any) -> Any:
    """:func:`c3r_jax.c3r_loss`; all but the features are constants of the program."""
    return jax.jit(lambda h: objective.c3r_loss(predict, fuse, h, labels, **settings))(features)


def contrastive_c3r_loss(match: Any, features: Any, **settings: Any) -> Any:
    """:func:`c3r_jax.core.contrastive.contrastive_c3r_loss`; all but the features are constants of the program."""
    return jax.jit(lambda h: contrastive.contrastive_c3r_loss(match, h, **settings))(features)


def held_out_share(predict: Any, fuse: Any, features: Any, labels: Any, moments: Any, **settings: Any) -> Any:
    """:func:`c3r_jax.held_out_share`; all but features and moments are constants of the program."""
    run = jax.jit(lambda h, fitted: held_out.held_out_share(predict, fuse, h, labels, fitted, **settings))
    return run(features, moments)


def residual_experts(features: Any, targets: Any, **settings: Any) -> Any:
    """:func:`c3r_jax.core.expert.residual_experts`; all but features and targets are constants of the program."""
    return jax.jit(lambda h, y: expert.residual_experts(h, y, **settings))(features, targets)
