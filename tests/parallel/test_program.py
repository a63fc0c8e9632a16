"""What is read from a compiled program, and a run on paper."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.parallel.chips import CHIPS
from c3r_jax.parallel.program import Collectives, collectives, inspect
from c3r_jax.step.train_step import step_columns
from c3r_jax.training.dry_run import compile_step, dry_run, measure


def test_asynchronous_collectives_count_once():
    program = """
      %s = f32[8,4]{1,0} all-reduce-start(f32[8,4]{1,0} %x), to_apply=%add
      %d = f32[8,4]{1,0} all-reduce-done(f32[8,4]{1,0} %s)
      %g = (bf16[2]{0}, bf16[16]{0}) all-gather-start(bf16[2]{0} %y), dimensions={0}
      %p = pred[3]{0} collective-permute(pred[3]{0} %z)
      %all-reduce-like = f32[100]{0} add(f32[100]{0} %a, f32[100]{0} %b)
    """
    assert collectives(program) == {
        "all-gather": Collectives(1, 32),
        "all-reduce": Collectives(1, 128),
        "collective-permute": Collectives(1, 3),
    }


def test_a_sum_over_eight_devices_is_seen():
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    x = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("rows")))
    whole = NamedSharding(mesh, PartitionSpec())
    found = inspect(jax.jit(lambda x: x.T @ x, out_shardings=whole).lower(x).compile())
    assert found.collectives == {"all-reduce": Collectives(1, 32 * 32 * 4)}
    assert found.flops >= 2 * 8 * 32 * 32 and found.argument_bytes == 8 * 32 * 4


@pytest.mark.parametrize("strategy", ["pmap", "mesh"])
def test_dry_run_describes_the_step_that_trains(small_config, strategy):
    small_config.parallel.strategy, small_config.parallel.min_size = strategy, 0
    small_config.parallel.fsdp = 4 if strategy == "mesh" else 1
    text = dry_run(small_config)
    experiment = build_experiment(small_config)
    state = experiment.state_maker()()
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert f"parameters: {count / 1e6:.2f} M" in text and "8 devices" in text and "all-reduce" in text
    # The real call uses the very program that was described: same inputs, same layouts.
    batch = next(experiment.train_iterator())
    arrays = experiment.devices.split(step_columns(batch, explained=np.nan))  # the gate is measured on validation rows
    real = inspect(experiment.step.lower(experiment.devices.put(jax.device_get(state)), arrays).compile())
    assert real == compile_step(experiment)
    times = [float(ms) for ms in re.findall(r": ([0-9.]+) ms", text)]
    assert len(times) == len(CHIPS) == 8
    assert "cannot tell" in text and "pip install '.[aot]'" in text


def test_chunks_save_memory_on_paper(small_config):
    """Four chunks: a quarter of the encoders' activations, and operations counted for the whole batch."""
    small_config.model.image.width, small_config.model.image.depth, small_config.train.batch_size = 64, 3, 512
    one = measure(small_config)
    small_config.train.accumulation = 4
    four = measure(small_config)
    assert four["temporary_bytes"] < 0.6 * one["temporary_bytes"]
    assert four["needed_flops"] == one["needed_flops"]
    # Every chunk is encoded once more for the gradient: 4 passes instead of 3, of nearly all operations.
    assert 1.2 < four["flops"] / one["flops"] < 1.4 and one["flops"] == pytest.approx(one["needed_flops"], rel=0.01)
