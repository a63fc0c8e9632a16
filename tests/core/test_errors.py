"""Mistakes of the caller: a ValueError that names what came and what was expected."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import c3r_jax
from c3r_jax.core.counterfactual import drop_modality
from c3r_jax.core.tasks.multilabel import MultiLabel

from . import oracles, problems

Y = jnp.zeros(8, jnp.int32)
Z = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
LOGITS = jnp.ones((8, 4))
HEAD = problems.mlp(1, 3, 4)
WIDE = {m: jnp.asarray(a) for m, a in problems.problem(1).features.items()}
LABELS = jnp.asarray(problems.problem(1).labels)


CHEAP = {"instrument": "none", "counterfactual": "mean"}


def loss(
    features: Any = WIDE, labels: Any = LABELS, *, fuse: Any = problems.mean_fuse, head: Any = None, **kwargs: Any
) -> Any:
    config = kwargs.pop("config", {})
    settings = c3r_jax.C3RConfig.hinge(**config)
    return c3r_jax.c3r_loss(head or problems.mlp(7, 3, 4), fuse, features, labels, config=settings, **kwargs)


def swing(**kwargs: Any) -> Any:
    args = {"predict": HEAD, "z": Z, "labels": Y} | kwargs
    return c3r_jax.counterfactual(args.pop("predict"), args.pop("z"), args.pop("labels"), **args)


# The call, and the two things its message must name.
CASES: dict[str, tuple[Any, str, str]] = {
    # ranks and shapes
    "sufficiency rank": (lambda: c3r_jax.sufficiency_loss(LOGITS[0], Y), "(4,)", "2"),
    "sufficiency rows": (lambda: c3r_jax.sufficiency_loss(LOGITS[:5], Y), "(8,)", "5"),
    "sufficiency labels rank": (lambda: c3r_jax.sufficiency_loss(LOGITS, Y[:, None]), "(8, 1)", "8"),
    "necessity rank": (lambda: c3r_jax.necessity_loss(LOGITS[None], Y), "(1, 8, 4)", "2"),
    "necessity rows": (lambda: c3r_jax.necessity_loss(LOGITS, Y[:5]), "(5,)", "8"),
    "necessity prior": (lambda: c3r_jax.necessity_loss(LOGITS, Y, kind="kl", prior=jnp.ones(3) / 3), "(3,)", "4"),
    "risk shapes": (lambda: c3r_jax.c3_risk(LOGITS, LOGITS[:, :3], Y), "(8, 4)", "(8, 3)"),
    "risk rows": (lambda: c3r_jax.c3_risk(LOGITS, LOGITS, Y[:3]), "(3,)", "8"),
    "risk where": (lambda: c3r_jax.c3_risk(LOGITS, LOGITS, Y, where=jnp.ones(7, bool)), "(7,)", "8"),
    "counterfactual rank": (lambda: swing(z=Z[None]), "(1, 8, 3)", "2"),
    "counterfactual rows": (lambda: swing(labels=Y[:5]), "(5,)", "8"),
    "counterfactual z_c": (lambda: swing(z_c=Z[:, :2]), "(8, 3)", "(8, 2)"),
    "counterfactual where": (lambda: swing(where=jnp.ones((8, 1), bool)), "(8, 1)", "8"),
    "counterfactual logits": (lambda: swing(predict=lambda z: z[:, 0]), "(8,)", "8"),
    "first stage rank": (lambda: c3r_jax.first_stage(jnp.ones(40), jnp.ones((40, 2))), "(40,)", "2"),
    "first stage rows": (lambda: c3r_jax.first_stage(jnp.ones((40, 2)), jnp.ones((39, 2))), "(40, 2)", "(39, 2)"),
    "first stage where": (
        lambda: c3r_jax.first_stage(jnp.ones((40, 2)), jnp.ones((40, 2)), where=jnp.ones(39, bool)),
        "(39,)",
        "40",
    ),
    "loss rows": (lambda: loss(labels=LABELS[:9]), "(9,)", "64"),
    "loss feature rank": (lambda: loss({**WIDE, "text": jnp.ones(64)}), "text", "(64,)"),
    "loss feature rows": (lambda: loss({**WIDE, "text": jnp.ones((63, 3))}), "(63, 3)", "64"),
    "loss present": (lambda: loss(present=jnp.ones((64, 2), bool)), "(64, 2)", "(64, 3)"),
    "loss present as a dict": (
        lambda: loss(present=dict.fromkeys(WIDE, jnp.ones(64, bool))),
        "dict of ['audio', 'image', 'text']",
        "jnp.stack([has['audio'], has['image'], has['text']], axis=1)",
    ),
    "loss weights": (lambda: loss(weights=jnp.ones(3)), "(3,)", "(64,)"),
    "loss where": (lambda: loss(where=jnp.ones(3, bool)), "(3,)", "64"),
    # dtypes
    "float labels": (lambda: c3r_jax.sufficiency_loss(LOGITS, jnp.zeros(8)), "float32", "integer"),
    "float labels necessity": (lambda: c3r_jax.necessity_loss(LOGITS, jnp.zeros(8)), "float32", "integer"),
    "float labels risk": (lambda: c3r_jax.c3_risk(LOGITS, LOGITS, jnp.zeros(8)), "float32", "integer"),
    "float labels counterfactual": (lambda: swing(labels=jnp.zeros(8)), "float32", "integer"),
    "float labels loss": (lambda: loss(labels=LABELS * 1.0), "float32", "integer"),
    "integer z": (lambda: swing(z=jnp.ones((8, 3), jnp.int32)), "int32", "float"),
    "integer features": (lambda: loss({**WIDE, "text": jnp.ones((64, 3), jnp.int32)}), "int32", "float"),
    "integer instrument": (lambda: c3r_jax.first_stage(jnp.ones((40, 2), int), jnp.ones((40, 2))), "int32", "float"),
    "float where": (lambda: c3r_jax.c3_risk(LOGITS, LOGITS, Y, where=jnp.ones(8)), "float32", "bool"),
    "float present": (lambda: loss(present=jnp.ones((64, 3))), "float32", "bool"),
    # ranges
    "label above": (lambda: c3r_jax.sufficiency_loss(LOGITS, Y.at[3].set(4)), "4", "4"),
    "label far above": (lambda: c3r_jax.necessity_loss(LOGITS, Y.at[3].set(17)), "17", "4"),
    "label below": (lambda: c3r_jax.c3_risk(LOGITS, LOGITS, Y.at[3].set(-2)), "-2", "4"),
    "label counterfactual": (lambda: swing(labels=Y.at[3].set(9)), "9", "4"),
    "label loss": (lambda: loss(labels=LABELS.at[3].set(11), config=CHEAP), "11", "4"),
    # modes, each with one that exists
    "unknown counterfactual": (lambda: swing(mode="magic"), "magic", "removal"),
    "drop is none of them": (lambda: swing(mode="drop"), "drop", "removal"),
    "unknown necessity": (lambda: c3r_jax.necessity_loss(LOGITS, Y, kind="magic"), "magic", "hinge"),
    "unknown config counterfactual": (lambda: loss(config={"counterfactual": "magic"}), "magic", "removal"),
    "unknown config necessity": (lambda: loss(config={"necessity": "magic"}), "magic", "hinge"),
    "unknown config instrument": (lambda: loss(config={"instrument": "magic"}), "magic", "two_stage"),
    "unknown config keys": (
        lambda: loss(config={"instrument": "attention", "attention_keys": "magic"}),
        "magic",
        "others",
    ),
    # what a mode needs
    "kl without prior": (lambda: c3r_jax.necessity_loss(LOGITS, Y, kind="kl"), "kl", "prior"),
    "permute without key": (lambda: swing(mode="permute"), "permute", "key"),
    "loss permute without key": (lambda: loss(config={"counterfactual": "permute"}), "permute", "key"),
    "instrumented without z_c": (lambda: swing(mode="instrumented"), "instrumented", "z_c"),
    "one modality": (lambda: loss({"text": WIDE["text"]}), "two_stage", "none"),
    "heads": (lambda: loss(config={"instrument": "attention", "num_heads": 2}), "2", "3"),
    "drop unknown modality": (lambda: drop_modality(WIDE, "smell"), "smell", "text"),
    "no steps": (lambda: swing(num_steps=0), "num_steps", "0"),
    "few rows": (lambda: c3r_jax.first_stage(jnp.ones((4, 3)), jnp.ones((4, 2))), "4", "3"),
}


@pytest.mark.parametrize("case", CASES)
def test_message_names_both(case: str) -> None:
    """Shapes, dtypes and modes are static, so that no mistake hides behind jit; labels must be known to be checked."""
    call, first, second = CASES[case]
    with pytest.raises(ValueError) as caught:
        if case.startswith("label"):
            call()
        else:
            jax.eval_shape(call)
    message = str(caught.value)
    for word in (first, second):
        assert re.search(rf"(?<![\w.]){re.escape(word)}(?!\d)", message), (word, message)
    assert message.count(first) >= (2 if first == second else 1), message


@pytest.mark.parametrize("case", ["sufficiency rows", "counterfactual z_c", "first stage rows", "float labels loss"])
def test_same_without_jit(case: str) -> None:
    call, first, _ = CASES[case]
    with pytest.raises(ValueError, match=re.escape(first)):
        call()


def test_label_out_of_range_under_jit_is_nan() -> None:
    bad = Y.at[3].set(4).at[5].set(-1)
    for function in (c3r_jax.sufficiency_loss, c3r_jax.necessity_loss):
        value = np.asarray(jax.jit(function)(LOGITS, bad))
        np.testing.assert_array_equal(np.isnan(value), [i in (3, 5) for i in range(8)])
    for label in (4, -1):
        labels = np.where(np.arange(64) == 2, label, np.asarray(LABELS))
        loss, terms, _ = problems.evaluate(dataclasses.replace(problems.problem(1), labels=labels))
        assert np.isnan(loss) and terms.invalid_labels == 1
    assert problems.evaluate(problems.problem(1))[1].invalid_labels == 0
    assert MultiLabel().out_of_range(jnp.asarray([[0, 1], [2, 0], [1, -1]]), 2).tolist() == [False, True, True]


def test_a_share_under_jit_is_one_number_within_its_bounds() -> None:
    h = {m: jax.random.normal(jax.random.key(i), (64, 3)) for i, m in enumerate("ab")}
    run = jax.jit(
        lambda explained: (
            c3r_jax.c3r_loss(
                lambda z: z @ jnp.eye(3), lambda h, _: (h["a"] + h["b"]) / 2, h, jnp.arange(64) % 3, explained=explained
            )[1].explained
        )
    )
    assert run(7.0) == 1
    with pytest.raises(ValueError, match=r"explained has shape \(1,\), but one share"):
        run(jnp.ones(1))


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8"])
def test_any_integer_labels(dtype: str) -> None:
    rng = np.random.default_rng(0)
    logits, labels = jnp.asarray(rng.normal(size=(8, 4))), np.array([0, 3, 1, 2, 2, 0, 1, 3])
    for y in (jnp.asarray(labels, dtype), labels.astype(dtype)):
        np.testing.assert_allclose(
            c3r_jax.necessity_loss(logits, y), oracles.necessity(np.asarray(logits), labels), rtol=1e-5
        )
        np.testing.assert_allclose(
            c3r_jax.sufficiency_loss(logits, y), oracles.cross_entropy(np.asarray(logits), labels), rtol=1e-5
        )


@pytest.mark.parametrize(("dtype", "classes"), [("uint8", 256), ("int8", 128)])
def test_labels_of_few_bits_with_as_many_classes_as_they_hold(dtype: str, classes: int) -> None:
    """Compared in their own 8 bits, 256 would be 0, and every label out of range."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(8, classes)), jnp.float32)
    labels = np.arange(8) * 17 % classes
    head = jnp.asarray(rng.normal(size=(3, classes)), jnp.float32)
    for function in (
        c3r_jax.sufficiency_loss,
        c3r_jax.necessity_loss,
        lambda logits, y: c3r_jax.c3_risk(logits, logits, y),
        lambda _, y: c3r_jax.counterfactual(lambda z: z @ head, Z, y),
    ):
        wide, narrow = function(logits, jnp.asarray(labels)), function(logits, jnp.asarray(labels, dtype))
        jax.tree.map(np.testing.assert_array_equal, wide, narrow)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([2**32 + 1, 0] * 4), "label 4294967297 is beyond 32 bits"),
        (np.array(["cat", "dog"] * 4), "labels have dtype <U3, but numbers were expected"),
        (np.eye(4, dtype=int)[[0, 1] * 4], r"labels have shape \(8, 4\), .* take labels.argmax\(1\)"),
    ],
)
def test_labels_that_are_no_class_ids(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        c3r_jax.sufficiency_loss(LOGITS, labels)


@pytest.mark.parametrize("config", [{}, {"cap": 1.0}])
def test_random_numbers_of_nnx_in_the_head(config: dict[str, Any]) -> None:
    """They change while the head is called several times; the sentence says what works, and that does work."""
    noisy = nnx.Sequential(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), nnx.Linear(3, 4, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"state of an NNX module.*nnx.view\(head, deterministic=True\)"):
        jax.eval_shape(lambda: loss(head=noisy, config=config))
    still = nnx.view(noisy, deterministic=True)
    assert jax.eval_shape(lambda: loss(head=still, config=config))[0].shape == ()

    def broken(z: Any) -> Any:
        raise KeyError("of the caller")

    with pytest.raises(KeyError, match="of the caller"):
        jax.eval_shape(lambda: loss(head=broken, config=config))
