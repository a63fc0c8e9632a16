"""Chips, topologies and times on paper."""

import importlib.util

import pytest

from c3r_jax.errors import ConfigError
from c3r_jax.parallel.chips import CHIPS, description
from c3r_jax.parallel.estimate import UTILISATION, sent, times
from c3r_jax.parallel.program import Program, count
from c3r_jax.parallel.topology import find_topology
from c3r_jax.parallel.transfers import Transfer

CHIP = CHIPS["v5e"]._replace(flops=100.0, bandwidth=10.0, links=4.0, network=2.0, clock=1000.0)


def program(**changes):
    """A program of 400 operations and 50 bytes."""
    return Program(400.0, 30, 20, {})._replace(**changes)


def test_time_is_that_of_cycles_and_of_bytes_sent():
    # 16 bytes are summed twice over 2 devices of each of 2 slices: 16 inside and 8 across, each time.
    found = times(program(cycles=3000, transfers=(Transfer("all-reduce", 16, 2, None),)), CHIP, [0, 0, 1, 1])
    assert found == (3.0, 2 * 16 / 4.0, 2 * 8 / 2.0)
    assert found.shortest == 8.0 and found.longest == 3.0 + 8.0 + 8.0


def test_without_cycles_a_share_of_the_peak_or_the_memory_decides():
    assert times(program(), CHIP, [0]).compute == max(400 / (UTILISATION * 100), 50 / 10) == 10.0
    assert times(program(flops=1.0), CHIP, [0]).compute == 5.0


@pytest.mark.parametrize(
    ("kind", "near", "far"),
    # 8 devices in 2 parts of k = 4: by hand, from 80 bytes of result on each.
    [
        ("all-reduce", 2 * 80 * 3 / 4, 2 * 20 / 2),
        ("all-gather", 80 * 3 / 4, 20 / 2),
        ("reduce-scatter", 2 * 80 * 3, 80),
        ("all-to-all", 80 * 3 / 8, 80 / 2),
    ],
)
def test_what_crosses_slices(kind, near, far):
    parts = [0, 0, 0, 0, 1, 1, 1, 1]
    assert sent(Transfer(kind, 80, 1, None), parts) == (near, far)
    inside = Transfer(kind, 80, 1, ((0, 1, 2, 3), (4, 5, 6, 7)))
    assert sent(inside, parts) == (inside.sent(8), 0)
    across = Transfer(kind, 80, 1, ((0, 4), (1, 5), (2, 6), (3, 7)))
    assert sent(across, parts) == (0, across.sent(8))


def test_permutations_cross_if_any_pair_does():
    parts = [0, 0, 1, 1]
    assert sent(Transfer("collective-permute", 8, 1, ((0, 1), (1, 0))), parts) == (8, 0)
    assert sent(Transfer("collective-permute", 8, 1, ((0, 1), (1, 2))), parts) == (0, 8)


def test_a_program_of_several_slices_is_that_of_one_with_sends_between_them():
    """Two slices of two: 24 bytes are summed in the slice, then 24 of every device with the other slice."""
    attributes = 'is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}'
    text = f"""
      %s = f32[6] all-reduce(%a), channel_id=1, replica_groups={{{{0,1}}}}, use_global_device_ids=true, to_apply=%add
      %t = (f32[6], u32[], token[]) send(%s, %x), channel_id=4, {attributes}
      %r = (f32[6], u32[], token[]) recv(%x), channel_id=3, {attributes}
    """
    found = count(text).transfers
    assert [transfer.kind for transfer in found] == ["all-reduce", "all-reduce between slices"]
    # In whatever order the mesh has the devices, those of the program are of one slice.
    assert times(program(cycles=0, transfers=found), CHIP, [0, 1, 0, 1]) == (0.0, 24 / 4.0, 24 / 2.0)


@pytest.mark.parametrize("name", CHIPS)
def test_figures_of_chips_are_plausible(name):
    chip = CHIPS[name]
    assert 1e14 < chip.flops < 3e15 and 15e9 < chip.memory < 200e9 and 5e11 < chip.bandwidth < 1e13
    assert chip.network < chip.links < chip.bandwidth
    assert (chip.clock is not None) == (chip.platform == "tpu") == (chip.gpu is None)
    if chip.gpu:
        assert description(chip).count("{") == description(chip).count("}")


@pytest.mark.parametrize(
    ("name", "slices", "message"),
    [
        ("v5p", 1, "expected a chip of v4, v5e, .* and its sizes"),
        ("v5p:4x4xfour", 1, "expected a chip of"),
        ("v9:2x2", 1, "the chip 'v9' is unknown: expected one of v4, v5e"),
        ("v5e:2x0", 1, "expected sizes and slices of 1 or more"),
        ("v5e:2x2", 0, "with --slices=0"),
    ],
)
def test_topologies_that_are_none(name, slices, message):
    with pytest.raises(ConfigError, match=message):
        find_topology(name, slices)


@pytest.mark.parametrize(("name", "extra"), [("v5e:2x2", "aot"), ("h100:1x1x8", "aot-cuda")])
def test_a_missing_compiler_is_named_with_its_command(name, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"run pip install '\.\[{extra}\]'.* leave --topology out"):
        find_topology(name)
