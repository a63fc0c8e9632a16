"""Operations, cycles and collectives of programs that a person can count by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from c3r_jax.parallel.hlo import executions, parse
from c3r_jax.parallel.program import Collectives, collectives, count, inspect
from c3r_jax.parallel.transfers import groups, transfers

ROWS, COPIED = PartitionSpec("rows"), PartitionSpec()


def on_devices(function, *shapes, specs, out):
    """A function of one device's shares, compiled for eight devices."""
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in zip(shapes, specs, strict=True)
    ]
    mapped = jax.shard_map(function, mesh=mesh, in_specs=tuple(specs), out_specs=out, check_vma=False)
    return jax.jit(mapped).lower(*arguments)


def test_a_loop_counts_as_often_as_it_runs():
    """Five trips of a (4, 16) x (16, 16) product and a sum of 16 x 16 numbers; then one more of each."""

    def share(x, w):
        def trip(w, _):
            return jax.lax.psum(x.T @ (x @ w), "rows") / 100, None

        w, _ = jax.lax.scan(trip, w, None, length=5)
        return jax.lax.psum(jnp.tanh(x @ w).sum(), "rows")

    lowered = on_devices(share, (32, 16), (16, 16), specs=(ROWS, COPIED), out=COPIED)
    found = inspect(lowered.compile())
    product = 2 * 4 * 16 * 16
    assert found.flops == 5 * 2 * product + product == count(lowered.as_text(dialect="hlo")).flops
    assert found.collectives == {"all-reduce": Collectives(6, 5 * 16 * 16 * 4 + 4)}
    assert found.unknown_loops == 0 and found.cycles is None
    assert sum(transfer.times for transfer in found.transfers) == 6


def test_loops_in_loops_multiply():
    def f(x):
        return jax.lax.fori_loop(0, 3, lambda _, y: jax.lax.fori_loop(0, 7, lambda _, z: jnp.sin(z @ x), y), x)

    lowered = jax.jit(f).lower(jnp.eye(4))
    assert count(lowered.as_text(dialect="hlo")).flops == inspect(lowered.compile()).flops == 3 * 7 * 2 * 4**3


LOOP = """
%body (p: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %p = (s32[], f32[8,8]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8,8] get-tuple-element(%p), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %y = f32[8,8] fusion(%x), kind=kOutput, calls=%fused, backend_config={"estimated_cycles":"100"}
  ROOT %t = (s32[], f32[8,8]) tuple(%next, %y)
}

%condition (p: (s32[], f32[8,8])) -> pred[] {
  %p = (s32[], f32[8,8]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %end = s32[] constant(9)
  ROOT %less = pred[] compare(%i, %end), direction=LT
}

%fused (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8] parameter(0)
  ROOT %d = f32[8,8] convolution(%a, %a), dim_labels=bf_io->bf
}

ENTRY %main (x: f32[8,8]) -> (s32[], f32[8,8]) {
  %x = f32[8,8] parameter(0)
  %zero = s32[] constant(0)
  %start = s32[] copy(%zero)
  %t = (s32[], f32[8,8]) tuple(%start, %x), backend_config={"estimated_cycles":"7"}
  ROOT %w = (s32[], f32[8,8]) while(%t), condition=%condition, body=%body
}
"""


def test_trips_are_read_from_the_counter_where_the_compiler_does_not_say():
    """0, 2, 4, 6, 8: five trips of 2 x 8^3 operations and 100 cycles."""
    found = count(LOOP)
    assert (found.flops, found.cycles, found.fusions, found.unknown_loops) == (5 * 1024, 507, 5, 0)
    said = LOOP.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"3"}}')
    assert count(said).cycles == 307
    unknown = count(LOOP.replace("constant(9)", "iota(), iota_dimension=0"))
    assert (unknown.cycles, unknown.unknown_loops) == (107, 1)
    for direction, limit, trips in (("LE", 9, 5), ("LE", 8, 5), ("LT", 8, 4), ("NE", 6, 3), ("LT", -3, 0)):
        text = LOOP.replace("constant(9)", f"constant({limit})").replace("direction=LT", f"direction={direction}")
        assert count(text).flops == trips * 1024, (direction, limit)


ASYNC = """
%start (a: f32[4]) -> (f32[4], f32[8]) {
  %a = f32[4] parameter(0)
  %g = f32[8] all-gather(%a), channel_id=5, replica_groups=[1,2]<=[2], frontend_attributes={chain_id="1"}
  ROOT %c = (f32[4], f32[8]) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%during (a: f32[4], b: f32[16]) -> f32[8] {
  %a = f32[4] parameter(0)
  ROOT %g = f32[8] all-gather(%a), channel_id=5, replica_groups=[1,2]<=[2], frontend_attributes={chain_id="1"}
}

%other (a: f32[4]) -> (f32[4], f32[8]) {
  %a = f32[4] parameter(0)
  %g = f32[8] all-gather(%a), channel_id=5, replica_groups=[1,2]<=[2], frontend_attributes={chain_id="2"}
  ROOT %c = (f32[4], f32[8]) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%body (a: f32[4]) -> f32[4] {
  %a = f32[4] parameter(0)
  ROOT %d = f32[4] fusion(%a), kind=kCustom, calls=%during
}

%condition (a: f32[4]) -> pred[] {
  %a = f32[4] parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (a: f32[4]) -> f32[8] {
  %a = f32[4] parameter(0)
  %s = (f32[4], f32[8]) fusion(%a), kind=kCustom, calls=%start
  %w = f32[4] while(%a), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"9"}}
  %d = f32[8] fusion(%w), kind=kCustom, calls=%during
  %o = f32[8] fusion(%a), kind=kCustom, calls=%other
  %sum = f32[4] all-reduce(%a), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  %again = f32[4] all-reduce(%sum), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  %rs = ((f32[4]), f32[2]) reduce-scatter-start(%a), channel_id=2, replica_groups={{0,1}}
  ROOT %rd = f32[2] reduce-scatter-done(%rs)
}
"""


def test_a_collective_in_many_fusions_counts_once_and_a_channel_is_no_name():
    """TPU programs: one gather runs through a loop and a fusion, another shares its channel; two sums share theirs."""
    assert collectives(ASYNC) == {
        "all-gather": Collectives(2, 64),
        "all-reduce": Collectives(2, 32),
        "reduce-scatter": Collectives(1, 8),
    }


def test_a_start_with_many_arrays_counts_its_results():
    line = (
        "%g = ((f32[2], bf16[4]), (f32[16], bf16[32]), u32[]) all-gather-start(f32[2] %a, bf16[4] %b), dimensions={0}"
    )
    assert collectives(line) == {"all-gather": Collectives(1, 64 + 64)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("replica_groups={{0,1,2,3}}", [[0, 1, 2, 3]]),
        ("replica_groups=[4,2]<=[8]", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("replica_groups=[4,2]<=[2,2,2]T(2,0,1)", [[0, 2], [4, 6], [1, 3], [5, 7]]),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=2], device_ids=([2,2]T(1,0)) {'a'}, x", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("replica_groups={}", None),
        ("to_apply=%add", None),
    ],
)
def test_groups_of_devices_are_read(text, expected):
    found = groups(text)
    assert (None if found is None else [list(row) for row in found]) == expected
    line = f"  %s = f32[2] all-reduce(%a), channel_id=3, {text}, use_global_device_ids=true"
    [transfer] = transfers(executions(parse(line)))
    assert transfer.groups == found


@pytest.mark.parametrize(
    ("image", "kernel", "settings"),
    [
        ((2, 9, 9, 4), (3, 3, 4, 6), {"window_strides": (2, 2), "padding": "SAME"}),
        ((2, 9, 7, 4), (3, 2, 4, 6), {"window_strides": (1, 2), "padding": [(0, 1), (2, 0)], "lhs_dilation": (2, 1)}),
        ((2, 11, 9, 4), (3, 2, 4, 6), {"window_strides": (1, 1), "padding": "VALID", "rhs_dilation": (2, 3)}),
        ((2, 6, 6, 4), (2, 2, 2, 6), {"window_strides": (1, 1), "padding": "VALID", "feature_group_count": 2}),
        ((4, 6, 6, 4), (2, 2, 4, 6), {"window_strides": (1, 1), "padding": "VALID", "batch_group_count": 2}),
    ],
)
def test_convolutions_count_pairs_of_elements(image, kernel, settings):
    """With ones everywhere each output is the number of products in it."""

    def convolve(x, w):
        return jax.lax.conv_general_dilated(x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"), **settings)

    products = float(convolve(np.ones(image, np.float32), np.ones(kernel, np.float32)).sum())
    lowered = jax.jit(convolve).lower(jnp.ones(image), jnp.ones(kernel))
    assert count(lowered.as_text(dialect="hlo")).flops == 2 * products


def test_gradients_of_a_convolution_cost_as_much_as_itself():
    def loss(w, x):
        return jax.lax.conv(x, w, (2, 2), "VALID").sum()

    x, w = jnp.ones((2, 3, 9, 9)), jnp.ones((5, 3, 3, 3))
    once = count(jax.jit(loss).lower(w, x).as_text(dialect="hlo")).flops
    both = count(jax.jit(jax.grad(loss, (0, 1))).lower(w, x).as_text(dialect="hlo")).flops
    assert once == 2 * (2 * 5 * 4 * 4) * (3 * 3 * 3) and both == 2 * once


def test_calls_of_nvidias_libraries_are_counted():
    """As in programs for GPUs, where XLA's own cost analysis knows no number."""
    contracted = '{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}'
    product = f"""
      %a = bf16[64,32] parameter(0)
      %b = bf16[32,16] parameter(1)
      %c = (bf16[64,16], s8[4096]) custom-call(%a, %b), custom_call_target="__cublas$gemm", numbers={contracted}
    """
    assert count(product).flops == 2 * 64 * 16 * 32
    sizes = {"x": "f32[8,10,10,3]", "w": "f32[5,3,3,3]", "y": "f32[8,8,8,5]"}
    attributes = "window={size=3x3}, dim_labels=b01f_o01i->b01f"
    expected = 2 * (8 * 8 * 8 * 5) * (3 * 3 * 3)
    for name, (first, second, result) in {
        "Forward": ("x", "w", "y"),
        "BiasActivationForward": ("x", "w", "y"),
        "BackwardInput": ("y", "w", "x"),
        "BackwardFilter": ("x", "y", "w"),
    }.items():
        text = f"""
          %one = {sizes[first]} parameter(0)
          %two = {sizes[second]} parameter(1)
          %c = ({sizes[result]}, u8[0]) custom-call(%one, %two), {attributes}, custom_call_target="__cudnn$conv{name}"
        """
        assert count(text).flops == expected, name
