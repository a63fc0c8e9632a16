"""Contrastive C3R on eight devices, in one process or two of four, against its float64 oracle.

Run by test_pairs.py as ``python -m tests.parallel.pairs ADDRESS NUMBER_OF_PROCESSES PROCESS``.
"""

import functools
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.methods.losses import method_loss
from c3r_jax.methods.method import Method
from c3r_jax.models.encoders.features import FeatureEncoder
from c3r_jax.models.fusion.representations import MaskedMean
from c3r_jax.models.pair_head import PairHead
from c3r_jax.models.twin import TwinNetwork
from c3r_jax.parallel.sharded import Sharded
from tests.core import oracle_matching

NAMES = ("image", "text")
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # what it compiles runs once


def head():
    """The parameters whose logits the oracle has."""
    values = {"log_scale": np.log(oracle_matching.SCALE), "offset": oracle_matching.OFFSET}
    return {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}


def value_and_gradient(h, where, head, *, kind, rows=None, regularised=True, key_chunks=None):
    """The loss of a method, and its gradient for representations and head."""
    encoders = {name: FeatureEncoder(h[name].shape[1], ()) for name in NAMES}
    config = C3RConfig(lambda_v=1.0)  # as the formulas
    model = TwinNetwork(encoders, MaskedMean(), PairHead(), config, h[NAMES[0]].shape[1])
    method = Method("c3r" if regularised else "plain", regularised, config, 0.0, kind)

    def loss(h, head):
        present = jnp.ones((len(where), len(NAMES)), bool)
        labels = jnp.zeros(len(where), jnp.int32)
        variables = {"params": {"head": head}}
        batch = EncodedBatch(model, variables, h, present, labels, where, None, CLASSIFICATION, 0.0, None)
        batch = batch._replace(rows=rows, key_chunks=key_chunks)
        value, (metrics, _) = method_loss(batch, method, jax.random.key(0))
        return value, metrics

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(h, head)


def check(kind, key_chunks):
    """Loss and gradient over a mesh of all devices are the oracle's."""
    features, rows = oracle_matching.problem()
    expected, of_features, of_learned, _ = oracle_matching.value_and_gradient(features, rows, kind)
    devices = Sharded(2, 1, 0)
    own = slice(jax.process_index() * 24 // jax.process_count(), (jax.process_index() + 1) * 24 // jax.process_count())
    h = devices.split({name: value[own].astype(np.float32) for name, value in features.items()})
    compute = functools.partial(value_and_gradient, kind=kind, rows=devices.rows, key_chunks=key_chunks)
    (loss, _), (of_h, of_head) = jax.jit(compute, compiler_options=QUICK)(h, devices.split(rows[own]), head())
    np.testing.assert_allclose(devices.host(loss), expected, rtol=1e-5)
    chex.assert_trees_all_close(devices.gather(of_h), of_features, rtol=1e-4, atol=5e-6)
    found = devices.host(of_head)
    np.testing.assert_allclose([found["log_scale"], found["offset"]], of_learned, rtol=1e-4, atol=5e-6)


if __name__ == "__main__":
    address, count, index = sys.argv[1:]
    jax.distributed.initialize(address, int(count), int(index))
    assert jax.device_count() == 8 and jax.local_device_count() == 8 // int(count)
    check("softmax", None)
    check("sigmoid", 1)
