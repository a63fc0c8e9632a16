"""What steps need on TPUs and GPUs, read from programs that the chips' own compilers made; no chip is needed.

python benchmarks/aot.py --json OUT.json --quick
python benchmarks/aot.py --json OUT.json --cases emoji,pretrain_vitb_bertb --topologies v5e:2x2,v5p:4x4x4

Each case is compiled plain and with C3R by ``c3r train --dry_run --topology=...``, in a process of its own: a compiler
keeps its memory. Times and cycles are estimates; nothing is measured. Needs the extra [aot], and [aot-cuda] for GPUs.
What is known is written after every case, and --resume keeps what OUT.json has. A large model takes many minutes.
"""

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

METHODS = {"plain": ("method=plain", "c3r.instrument=none"), "c3r": ("method=c3r",)}  # nothing of C3R in the plain step
BERT_AND_RESNET = ("model.text.pretrained=bert_base", "model.image.pretrained=resnet50", "data.vocab_size=30522")
MESH = ("parallel.strategy=mesh",)
CASES = {  # name: configuration and its changes
    "emoji": ("emoji", ()),
    "emoji_mesh": ("emoji", (*MESH, "parallel.fsdp=2")),
    "pretrain_emoji": ("pretrain_emoji", ()),
    "hateful_memes": ("hateful_memes", MESH),
    "food101": ("food101", (*MESH, *BERT_AND_RESNET)),
    "brats": ("brats", ("eval.batch_size=4", "train.batch_size=4")),
    "pretrain_vitb_bertb": ("pretrain_vitb_bertb", ()),
    "pretrain_vitb_bertb_depth_1": ("pretrain_vitb_bertb", ("model.image.depth=1", "model.text.depth=1")),
}
LOSS = "contrastive_loss"  # alone, with its gradient, of given representations of two modalities over all chips
WIDTH = 512  # of these
RUNS = {"estimator": 1, "sweep": 16}  # runs on arrays in memory, whole training in one program on one chip, by seeds
TOPOLOGIES = ("v5e:2x2", "v5e:16x16", "v5p:4x4x4", "v5p:8x16x16", "v6e:16x16", "h100:1x1x8")
QUICK = {"cases": "emoji,emoji_mesh", "topologies": "v5e:2x2", "batches": "0"}
KEPT = (
    "devices runs steps batch parameters flops needed_flops cycles peak_bytes temporary_bytes state_and_batch_bytes "
    "fits fusions unknown_loops collectives collective_bytes seconds mfu"
).split()


def main() -> None:
    """Compiles what is asked for and writes named figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file to write")
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK['cases']} on {QUICK['topologies']}")
    known = [*CASES, *RUNS, LOSS]
    parser.add_argument("--cases", default=",".join(known), help=f"of {', '.join(known)} (default)")
    parser.add_argument("--topologies", default=",".join(TOPOLOGIES), help=f"default {','.join(TOPOLOGIES)}")
    parser.add_argument("--batches", default="0,4096,32768", help="global batches; 0 is the configuration's own")
    parser.add_argument("--minutes", type=float, default=60, help="longest time of one compilation (default 60)")
    parser.add_argument("--resume", action="store_true", help="keep the figures that OUT.json already has")
    parser.add_argument("--program", choices=METHODS, help=argparse.SUPPRESS)  # of a process of the benchmark's own
    options = parser.parse_args()
    chosen = QUICK if options.quick else {name: getattr(options, name) for name in QUICK}
    names = chosen["cases"].split(",")
    if unknown := sorted(set(names) - {*known}):
        parser.error(f"--cases has {', '.join(unknown)}: expected some of {', '.join(known)}.")
    if options.program:
        figures = (
            loss_alone(options.program, chosen["topologies"], int(chosen["batches"]))
            if names[0] == LOSS
            else whole_runs(names[0], options.program, chosen["topologies"])
        )
        pathlib.Path(options.json).write_text(json.dumps(figures))
        return
    out = pathlib.Path(options.json)
    figures: dict = json.loads(out.read_text()) if options.resume and out.exists() else {}
    for name in names:
        for topology in chosen["topologies"].split(","):
            for batch in [0] if name in RUNS else map(int, chosen["batches"].split(",")):
                for method in METHODS:
                    key = f"{name} {method} {topology} {batch or 'own batch'}"
                    if "cycles" not in figures.get(key, {}):
                        figures[key] = compiled(name, method, topology, batch, options.minutes)
                        print(key, json.dumps(figures[key]), flush=True)
                        out.write_text(json.dumps(figures, indent=1) + "\n")
    figures["ratios"] = ratios(figures)
    out.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures["ratios"], indent=1))


def compiled(name: str, method: str, topology: str, batch: int, minutes: float) -> dict:
    """The figures of one case, or the reason why there are none."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "figures.json"
        if name in RUNS or name == LOSS:
            command = [sys.executable, __file__, f"--cases={name}", f"--topologies={topology}", f"--program={method}"]
            command.append(f"--batches={batch or 4096}")
        else:
            config, changes = CASES[name]
            changes = (*changes, *METHODS[method])
            if batch:
                changes += (f"train.batch_size={batch}", f"eval.batch_size={batch}")
            command = [sys.executable, str(ROOT / "train.py"), f"--config={ROOT}/configs/{config}.py", "--dry_run"]
            command += [f"--topology={topology}", *(f"--config.{change}" for change in changes)]
        command.append(f"--json={file}")
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes, env=environment)
        except subprocess.TimeoutExpired:
            return {"reason": f"not compiled within {minutes:g} minutes"}
        if done.returncode:
            return {"reason": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "ended without a word"}
        found = json.loads(file.read_text())
    return {**{key: found[key] for key in KEPT if key in found}, "wall_seconds": round(time.monotonic() - begin, 1)}


def loss_alone(method: str, topology: str, batch: int) -> dict:
    """Compiles the contrastive loss, with its gradient, for representations that are split over all chips."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import PartitionSpec

    from c3r_jax.core.config import C3RConfig
    from c3r_jax.core.contrastive import contrastive_c3r_loss
    from c3r_jax.parallel.topology import find_topology

    place = find_topology(topology)
    mesh = jax.sharding.Mesh(np.array(place.devices), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, copied = PartitionSpec("rows"), PartitionSpec()

    def loss(scale: jax.Array, h: dict) -> jax.Array:
        settings = {"config": C3RConfig(), "regularised": method == "c3r", "axis_name": "rows"}
        return contrastive_c3r_loss(lambda queries, keys: scale * queries @ keys.T, h, **settings)[0]

    def run(scale: jax.Array, h: dict) -> tuple:
        split = jax.shard_map(loss, mesh=mesh, in_specs=(copied, rows), out_specs=copied, check_vma=False)
        return jax.value_and_grad(split, argnums=(0, 1))(scale, h)

    def shape(sizes: tuple[int, ...], spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=jax.sharding.NamedSharding(mesh, spec))

    h = dict.fromkeys(("image", "text"), shape((batch, WIDTH), rows))
    return program_figures(jax.jit(run).lower(shape((), copied), h).compile(), place, len(place.devices), batch=batch)


def program_figures(compiled: Any, place: Any, devices: int, **given: Any) -> dict:
    """The figures of a compiled program, those in :data:`KEPT` that it has."""
    from c3r_jax.parallel.estimate import times
    from c3r_jax.parallel.program import inspect

    program = inspect(compiled)
    return {
        "devices": devices,
        **given,
        "flops": program.flops,
        "cycles": program.cycles,
        "peak_bytes": program.peak_bytes,
        "temporary_bytes": program.temporary_bytes,
        "fusions": program.fusions,
        "unknown_loops": program.unknown_loops,
        "collectives": {kind: total._asdict() for kind, total in program.collectives.items()},
        "collective_bytes": program.sent.bytes,
        "seconds": times(program, place.chip, [0] * devices)._asdict(),
    }


def whole_runs(name: str, method: str, topology: str) -> dict:
    """Compiles whole runs of the structural benchmark, as the estimator and ablation studies train them."""
    import jax
    import numpy as np
    from ml_collections import ConfigDict

    from c3r_jax.parallel.topology import find_topology
    from c3r_jax.step.in_memory import train_run
    from c3r_jax.sweep.engine import make_data
    from c3r_jax.sweep.grid import SweepRun, read_cells, run_structure, run_weights
    from c3r_jax.sweep.settings import read_sweep
    from configs.sweeps.base import get_config

    place = find_topology(topology)
    config = get_config()
    config.cells = ConfigDict({"c3r": {}})
    settings = read_sweep(config)
    cell = read_cells(settings)[0]
    run = SweepRun("confounded", cell.name, (), 0)
    data, structure = make_data(settings, run), run_structure(settings, cell, run)._replace(regularised=method == "c3r")
    mesh = jax.sharding.Mesh(np.array(place.devices[:1]), ("chip",))
    one_chip = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    rates = np.float32(settings.train.learning_rate), np.float32(settings.train.weight_decay)
    values = (data.train, data.plan, np.zeros(RUNS[name], np.uint32), run_weights(cell, run), *rates)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=one_chip), values)
    runs = jax.vmap(functools.partial(train_run, structure), in_axes=(None, None, 0, None, None, None))
    steps, batch = data.plan.shape
    compiled_runs = jax.jit(runs).lower(*shapes).compile()
    return program_figures(compiled_runs, place, 1, runs=RUNS[name], steps=steps, batch=batch)


def ratios(figures: dict) -> dict:
    """C3R in relation to plain, for each case that has both."""
    found = {}
    for key, plain in figures.items():
        c3r = figures.get(key.replace(" plain ", " c3r "), {})
        if " plain " in key and "flops" in plain and "flops" in c3r:
            found[key.replace(" plain ", " ")] = {
                what: c3r[what] / plain[what]
                for what in ("flops", "cycles", "peak_bytes", "collective_bytes")
                if plain[what] and c3r[what]
            }
    return found


if __name__ == "__main__":
    main()
