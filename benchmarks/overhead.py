"""C3R and plain pretraining at full size, read from compiled programs: ViT-B/16 and BERT-base on eight devices.

python benchmarks/overhead.py --json OUT.json

Nothing is run: operations, memory and communication of one contrastive step, batch 1,024, with and without C3R.
How long C3R takes is measured where a step fits this machine: benchmarks/step.py.
"""

import argparse
import json
import os
import pathlib
import sys

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax

from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.training.dry_run import compile_step
from configs.pretrain_vitb_bertb import get_config


def main() -> None:
    """Compiles both steps and writes named figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file to write")
    parser.add_argument("--batch_size", type=int, default=1024, help="over eight devices (default 1024)")
    arguments = parser.parse_args()
    found = {}
    for method in ("plain", "c3r"):
        config = get_config()
        config.method, config.train.batch_size, config.eval.batch_size = method, arguments.batch_size, 64
        config.train.accumulation = 1  # each encoder runs once, and so the shares of C3R are those of its own work
        if method == "plain":
            config.c3r.instrument = "none"  # no moments either: nothing of C3R is left in the plain step
        program = compile_step(build_experiment(config))
        found[method] = {
            "flops": program.flops,
            "peak_bytes": program.peak_bytes,
            "collective_bytes": program.sent.bytes,
            "collectives": program.sent.count,
        }
    figures = {
        "devices": jax.device_count(),
        "batch_size": arguments.batch_size,
        **{f"{method}_{name}": value for method, own in found.items() for name, value in own.items()},
        **{f"{name}_ratio": found["c3r"][name] / found["plain"][name] for name in found["plain"]},
    }
    pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
