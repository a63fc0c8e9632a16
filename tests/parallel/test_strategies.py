"""One step, two strategies: the same numbers on one device, by pmap, over meshes, and in chunks."""

import functools

import chex
import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from c3r_jax.caches import quick_compilation
from c3r_jax.errors import ConfigError
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.settings import read_settings
from c3r_jax.parallel.replicated import Replicated
from c3r_jax.parallel.sharded import Sharded, partition
from c3r_jax.parallel.strategy import build_strategy, check_batch
from c3r_jax.step.train_step import encode_in_chunks, step_columns, train_step
from tests.comparing import assert_same_values
from tests.parallel.chips import chips

STEPS = 20
SHARES = [np.nan] * 2 + [0.5] * 10 + [1.0] * 8  # explained share of held-out rows in each step, at first unknown
WAYS = {  # strategy, chunks, model.remat; each is compared with one device
    "pmap 8": (Replicated, 1, False),
    "pmap 8, four chunks": (Replicated, 4, False),
    "mesh 4 x 2": (lambda: Sharded(2, 1, 0), 1, False),
    "mesh 2 x 2 x 2, two chunks, remat": (lambda: Sharded(2, 2, 0), 2, True),
}


def begin(config):
    """The state before the first step and the batches of all steps, on the host: the same for every way."""
    experiment = build_experiment(config)
    iterator = experiment.train_iterator()
    batches = [step_columns(next(iterator), explained=share) for share in SHARES]
    iterator.close()
    return jax.device_get(jax.jit(experiment.state_maker())()), batches


def run(config, start, batches, devices, chunks, remat, guarded=False):
    """Metrics of every step and the final state on the host; the step is traced once."""
    config.model.remat = remat
    experiment = build_experiment(config)
    chex.clear_trace_counter()  # it counts by function, whatever compiled it
    traced = chex.assert_max_traces(train_step, n=1)
    step = devices.compile_step(
        functools.partial(
            traced,
            model=experiment.model,
            method=experiment.method,
            optimizer=experiment.optimizer,
            moments_decay=experiment.config.train.moments_decay,
            axis_name=devices.axis_name,
            accumulation=chunks,
            ema_decay=0.9,
        )
    )
    state, history = devices.put(jax.tree.map(np.copy, start)), []  # a copy: a step gives its memory away
    for number, columns in enumerate(batches):
        batch = devices.split(columns)
        with jax.transfer_guard("disallow" if guarded and number else "allow"):
            state, metrics = step(state, batch)
        history.append({name: float(value) for name, value in devices.host(metrics).items()})
    return history, devices.host(state), state


@pytest.fixture
def plain_descent(small_config):
    """Plain gradient descent shows the gradients as they are; Adam would blow up the rounding of those near zero."""
    small_config.optimizer.name, small_config.optimizer.learning_rate = "sgd", 0.3
    small_config.train.steps, small_config.train.ema_decay = STEPS, 0.9
    small_config.modality_dropout.switch = "on"
    small_config.c3r.counterfactual = "permute"  # pairs of examples from different devices
    small_config.model.image.block = "transformer"
    small_config.model.image.num_heads = 2
    return small_config


def test_every_way_trains_the_same(plain_descent):
    start = begin(plain_descent)
    expected, state, _ = run(plain_descent, *start, Replicated(jax.devices()[:1]), 1, False)
    assert len(expected) == STEPS and expected[0]["loss"] > 0
    gates = np.array([values["explained"] for values in expected])
    np.testing.assert_allclose(gates[2:], SHARES[2:], rtol=1e-6)
    assert np.isfinite(gates[:2]).all()
    for name, (make, chunks, remat) in WAYS.items():
        devices = make()
        history, other, after = run(plain_descent, *start, devices, chunks, remat, guarded=True)
        if isinstance(devices, Sharded):  # and the state is still laid out as it was
            jax.tree.map(
                lambda x, layout: chex.assert_equal(x.sharding.is_equivalent_to(layout, x.ndim), True),
                after,
                devices.shardings(after),
            )
        for a, b in zip(expected, history, strict=True):
            assert_same_values(a, b, name)
        chex.assert_trees_all_close(state.params, other.params, rtol=1e-5, atol=2e-6)
        chex.assert_trees_all_close(state.ema, other.ema, rtol=1e-5, atol=2e-6)
        chex.assert_trees_all_close(state.instrument, other.instrument, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("strategy", ["pmap", "mesh"])
def test_the_first_state_is_the_same_where_it_is_compiled_sooner(small_config, strategy, monkeypatch):
    """Without the tests' own flag of the compiler, as in a user's run: JAX takes options of outermost programs only."""
    monkeypatch.delenv("XLA_FLAGS")
    assert quick_compilation(1) or jaxlib.version.__version_info__ >= (0, 11) or jax.default_backend() != "cpu"
    small_config.parallel.strategy, small_config.optimizer.warmup_steps = strategy, 3  # a setting of its own
    experiment = build_experiment(small_config)
    jax.eval_shape(experiment.state_maker())
    found = experiment.devices.host(experiment.first_state())
    chex.assert_trees_all_close(found, jax.device_get(jax.jit(experiment.state_maker())()), rtol=1e-6, atol=1e-7)


def test_nothing_is_copied_that_can_be_split(small_config):
    """Every device holds a share of each parameter with a dimension to split, and of what the optimiser keeps of it."""
    small_config.model.image.block = "transformer"
    small_config.model.image.num_heads = 2
    experiment = build_experiment(small_config)
    devices = Sharded(2, 2, 64)
    state = devices.init(experiment.state_maker())

    def share(leaf):
        return leaf.addressable_shards[0].data.size / leaf.size

    block = state.params["encoders_image"]["TransformerBlock_0"]
    assert share(block["Dense_0"]["kernel"]) == share(block["Dense_1"]["kernel"]) == 1 / 4
    assert share(block["MultiHeadDotProductAttention_0"]["query"]["kernel"]) == 1 / 4
    assert share(state.params["encoders_text"]["embed_2"]["embedding"]) == 1 / 2
    assert share(state.params["head"]["bias"]) == share(state.instrument["cov"]) == 1
    adam = next(s for s in jax.tree.leaves(state.opt_state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(s, "mu"))
    for moment in (adam.mu, adam.nu):
        jax.tree.map(lambda p, m: chex.assert_equal(p.sharding, m.sharding), state.params, moment)
    # Where the state lives does not change what it is.
    chex.assert_trees_all_close(
        devices.host(state), jax.device_get(jax.jit(experiment.state_maker())()), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("params/encoders_image/MixerBlock_0/Dense_3/kernel", (64, 32), ("tensor", "fsdp")),
        ("params/encoders_image/MixerBlock_1/Dense_0/kernel", (64, 32), ("fsdp", "tensor")),
        ("opt_state/1/0/mu/encoders_text/TransformerBlock_0/Dense_1/kernel", (64, 32), ("tensor", "fsdp")),
        ("params/t/TransformerBlock_0/MultiHeadDotProductAttention_0/out/kernel", (2, 8, 16), ("tensor", None, "fsdp")),
        ("params/t/TransformerBlock_0/MultiHeadDotProductAttention_0/key/kernel", (16, 3, 8), ("fsdp", None, None)),
        ("params/encoders_text/embed/embedding", (257, 64), (None, "fsdp")),
        ("opt_state/0/v_row/t/TransformerBlock_0/Dense_0/kernel", (128,), ("fsdp",)),
        ("params/odd/kernel", (9, 7), (None, None)),
        ("instrument/cov", (64, 64), (None, None)),
        ("step", (), ()),
    ],
)
def test_layout_by_name_and_shape(path, shape, expected):
    assert partition(path, shape, {"data": 2, "fsdp": 2, "tensor": 2}, 0) == PartitionSpec(*expected)
    assert partition(path, shape, {"data": 2, "fsdp": 2, "tensor": 2}, 1 << 20) == PartitionSpec(*[None] * len(shape))


def test_chunks_give_the_gradient_of_a_loss_of_the_whole_batch():
    """A loss that couples all rows, differentiated through chunks: the same as at once, each row in its place."""
    w = jax.random.normal(jax.random.key(0), (4, 3))
    x = jax.random.normal(jax.random.key(1), (12, 4))
    keys = jax.random.split(jax.random.key(2), 12)

    def encode(w, x, keys):
        noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
        return {"h": jnp.tanh(x @ w) + noise}

    def loss(w, chunks):
        h = encode_in_chunks(functools.partial(encode, w), (x, keys), chunks)["h"]
        return jax.nn.logsumexp(h @ h.T) + h[0].sum(), h

    (expected, h), gradient = jax.value_and_grad(loss, has_aux=True)(w, 1)
    for chunks in (2, 4, 12):
        found = jax.value_and_grad(loss, has_aux=True)(w, chunks)
        chex.assert_trees_all_close(found, ((expected, h), gradient), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ({"strategy": "mesh", "fsdp": 3}, "3 x 1, which does not divide the 8 devices"),
        ({"strategy": "mesh", "tensor": 0}, "config.parallel.tensor is 0"),
        ({"strategy": "mesh", "min_size": -1}, "config.parallel.min_size is -1"),
        ({"tensor": 2}, "pmap copies"),
    ],
)
def test_unusable_layouts_are_refused(small_config, leaves, message):
    small_config.parallel.update(leaves)
    with pytest.raises(ConfigError, match=message):
        build_strategy(read_settings(small_config).parallel)


def test_a_process_must_hold_whole_rows(small_config):
    small_config.parallel.update({"strategy": "mesh", "tensor": 4})
    with pytest.raises(ConfigError, match="tensor is 4, but a process has 2 devices"):
        build_strategy(read_settings(small_config).parallel, chips("TPU v5 lite", (4, 2, 1), host=(2, 1, 1)))


def test_a_batch_must_be_shared_equally():
    check_batch(Sharded(2, 2, 0), 16, "config.train.batch_size", 4)
    with pytest.raises(
        ConfigError, match=r"config\.train\.batch_size is 24: .* multiple of 16 \(4 devices .* x 4 chunks"
    ):
        check_batch(Sharded(2, 2, 0), 24, "config.train.batch_size", 4)


def test_bfloat16_computes_and_float32_remembers(small_config):
    """Traced only: representations are bfloat16; state, losses, risks and diagnostics float32."""
    small_config.model.dtype = "bfloat16"
    experiment = build_experiment(small_config)
    state = jax.eval_shape(experiment.state_maker())
    batch = step_columns(next(experiment.eval_iterator("train")))
    step = functools.partial(
        train_step,
        model=experiment.model,
        method=experiment.method,
        optimizer=experiment.optimizer,
        moments_decay=0.9,
    )
    after, metrics = jax.eval_shape(step, state, batch)
    floats = [leaf.dtype for leaf in jax.tree.leaves((after, metrics)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype("float32")} and "risk_total" in metrics
    h = jax.eval_shape(
        lambda params: experiment.model.apply(
            {"params": params}, batch["inputs"], batch["present"], method=experiment.model.encode
        ),
        state.params,
    )
    assert {value.dtype for value in h.values()} == {jnp.dtype("bfloat16")}


def test_a_step_of_several_processes_is_compiled_as_a_whole():
    """The program that is described ahead of time is that of all devices, whichever process they belong to."""
    devices = Replicated()
    devices._count = 4  # as if the other four were a second process's
    state, batch = devices.abstract(lambda: jnp.zeros(3), jax.ShapeDtypeStruct((64, 5), jnp.float32))
    assert state.shape == (8, 3) and batch.shape == (8, 8, 5)
    step = devices.compile_step(lambda state, batch: (state + jax.lax.psum(batch.sum(), devices.axis_name), {}))
    assert "all-reduce" in step.lower(state, batch).compile().as_text()


@pytest.mark.parametrize("make", [Replicated, lambda: Sharded(2, 2, 0)])
def test_a_process_gets_its_own_rows_back(make):
    devices, rows = make(), np.arange(32.0).reshape(16, 2)
    np.testing.assert_array_equal(devices.own(devices.split(rows)), rows)
