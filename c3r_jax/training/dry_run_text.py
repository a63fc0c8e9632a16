"""The figures of a dry run in words: what was counted, what is estimated, and what cannot be known on paper."""

from typing import Any

from c3r_jax.parallel.estimate import UTILISATION

SPARE = 0.1  # of a chip's memory: for what its runtime and the next batches take


def describe(figures: dict[str, Any]) -> str:
    """The figures of ``measure`` as text.

    Args:
      figures: as :func:`c3r_jax.training.dry_run.measure` returns them.
    """
    parameters, topology = figures["parameters"], figures["topology"]
    by_part = ", ".join(f"{name} {size / 1e6:.2f} M" for name, size in parameters.items())
    where = f" of {_where(figures)}" if topology else ""
    lines = [
        f"method {figures['method']}, task {figures['task']}, batch {figures['batch']}, {figures['devices']} devices"
        f"{where}",
        f"parameters: {sum(parameters.values()) / 1e6:.2f} M ({by_part})",
    ]
    if figures["data_stand_in"]:
        lines.append(
            f"data set {figures['data_stand_in']!r} is not prepared: its shapes and classes are those of its layout, "
            "its vocabulary that of the settings"
        )
    lines.append(
        f"a step, per device: {figures['flops'] / 1e9:.2f} GFLOP in matrix products and convolutions "
        f"({figures['needed_flops'] / 1e9:.2f} without computing anything again)"
    )
    lines += [*_memory(figures), *_collectives(figures)]
    if figures["unknown_loops"]:
        lines.append(f"loops of unknown length, counted once: {figures['unknown_loops']}")
    return "\n".join([*lines, *(_on_topology(figures) if topology else _on_any_chip(figures))])


def _where(figures: dict[str, Any]) -> str:
    slices = figures["slices"]
    return f"{figures['chip']}, {figures['topology']}" + (f" x {slices} slices" if slices > 1 else "")


def _memory(figures: dict[str, Any]) -> list[str]:
    parts = (
        f"{figures['state_and_batch_bytes'] / 1e6:.1f} MB of state and batch, "
        f"{figures['temporary_bytes'] / 1e6:.1f} MB of activations and other temporaries"
    )
    if not figures["topology"]:
        return [f"memory, per device: {parts}"]
    peak, memory = figures["peak_bytes"], figures["memory_bytes"]
    fits = f"{peak / memory:.0%} of" if figures["fits"] else "more than"
    line = f"memory, per device: {peak / 1e9:.2f} GB, {fits} the chip's {memory / 1e9:.1f} GB: {parts}"
    return [line, *unused_memory(figures)]


def unused_memory(figures: dict[str, Any]) -> list[str]:
    """What would be computed less often if more than half of a chip's memory did not lie idle.

    Encoding a batch in 1 chunk instead of k takes at most k + 1 times the temporaries: k times a chunk's activations,
    and beside them what the loss takes, which chunks and loss had one after the other. What keeping the blocks'
    activations takes depends on the encoders, and is only known from compiling again; a chip may compute them a second
    time faster than it writes and reads them.

    Args:
      figures: as :func:`c3r_jax.training.dry_run.measure` returns them, for a topology.

    Examples:
      >>> figures = {"peak_bytes": 3e9, "memory_bytes": 16e9, "temporary_bytes": 2e9, "accumulation": 8, "remat": False}
      >>> print(*unused_memory(figures))
        more than half is left: --config.train.accumulation=2 instead of 8 takes 11.0 GB at most
      >>> unused_memory(figures | {"accumulation": 1})
      []
    """
    peak, memory, chunks = figures["peak_bytes"], figures["memory_bytes"], figures["accumulation"]
    if peak > memory / 2:
        return []
    needs = {k: peak + chunks / k * figures["temporary_bytes"] for k in range(1, chunks) if chunks % k == 0}
    fits = [k for k, need in needs.items() if need <= (1 - SPARE) * memory]
    ways = []
    if fits:
        ways.append(
            f"--config.train.accumulation={fits[0]} instead of {chunks} takes {needs[fits[0]] / 1e9:.1f} GB at most"
        )
    if figures["remat"]:
        ways.append("--config.model.remat=False may fit, and take less time or more: compile with it")
    return [f"  more than half is left: {'; '.join(ways)}"] if ways else []


def _collectives(figures: dict[str, Any]) -> list[str]:
    return [
        f"collectives, per device: {figures['collective_bytes'] / 1e6:.2f} MB of results",
        *(
            f"  {kind}: {total['count']}, {total['bytes'] / 1e6:.2f} MB"
            for kind, total in figures["collectives"].items()
        ),
    ]


def _on_topology(figures: dict[str, Any]) -> list[str]:
    seconds, mfu = figures["seconds"], figures["mfu"]
    if figures["from_cycles"]:
        compute = f"{1e3 * seconds['compute']:.2f} ms ({figures['cycles']:,} cycles by the compiler's own estimate)"
    else:
        compute = f"{1e3 * seconds['compute']:.2f} ms (if {UTILISATION:.0%} of the peak is reached: an assumption)"
    near, far = ("chips of a slice", "slices") if figures["from_cycles"] else ("GPUs of a host", "hosts")
    low, high = seconds["all_overlapped"], seconds["none_overlapped"]
    return [
        f"fusions: {figures['fusions']}",
        "time of a step, all of it estimated, none of it measured:",
        f"  computation: {compute}",
        f"  collectives between {near}: {1e3 * seconds['links']:.2f} ms at the full speed of all links",
        *(
            [f"  collectives between {far}: {1e3 * seconds['network']:.2f} ms at the full speed of the network"]
            if figures["parts"] > 1
            else []
        ),
        f"  together: {1e3 * low:.2f} ms if they overlap as far as they can, {1e3 * high:.2f} ms if nothing does: "
        f"{figures['batch'] / high:,.0f} to {figures['batch'] / low:,.0f} examples/s",
        f"  share of the peak that the needed operations reach (MFU): {mfu['none_overlapped']:.1%} to "
        f"{mfu['all_overlapped']:.1%}",
        "not in it: waiting for data, other hosts or the start of a program; links and clocks slower than published",
    ]


def _on_any_chip(figures: dict[str, Any]) -> list[str]:
    lines = [f"step time to expect (an estimate: {UTILISATION:.0%} of peak, collectives not overlapped):"]
    for found in figures["chips"].values():
        seconds = found["seconds"]["none_overlapped"]
        fits = "" if found["fits"] else f"  (does not fit {found['memory_bytes'] / 1e9:.0f} GB)"
        lines.append(f"  {found['chip']}: {1e3 * seconds:.1f} ms, {figures['batch'] / seconds:,.0f} examples/s{fits}")
    return [
        *lines,
        "compiled for the CPU, which cannot tell what another chip's compiler does: which arrays it never stores, how",
        "it splits and overlaps collectives, how many cycles a step takes, whether it compiles at all. That compiler",
        "can be asked without such a chip: --topology=v5e:2x2 and the like (pip install '.[aot]').",
    ]
