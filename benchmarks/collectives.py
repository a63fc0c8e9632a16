"""What the devices send each other in one training step, read from the compiled program.

python benchmarks/collectives.py --json OUT.json

Eight fake devices; M feature modalities of width d. Beyond the gradients' sum, C3R should send its moments, (M d)^2
numbers, and scalars: nothing that grows with the batch, in a number of collectives that does not grow with M.
"""

import argparse
import functools
import json
import os
import pathlib
import sys

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import flax.linen as nn
import jax
import numpy as np
import optax

from c3r_jax.core.config import C3RConfig
from c3r_jax.methods.method import Method
from c3r_jax.models.encoders.features import FeatureEncoder
from c3r_jax.models.fusion.representations import MaskedMean
from c3r_jax.models.twin import TwinNetwork
from c3r_jax.parallel.program import Program, inspect
from c3r_jax.parallel.replicated import Replicated
from c3r_jax.parallel.sharded import Sharded
from c3r_jax.step.state import init_state
from c3r_jax.step.train_step import train_step

DIM, FEATURES, CLASSES = 16, 24, 10
STRATEGIES = {"pmap": Replicated, "mesh": lambda: Sharded(2, 1, 0)}


def program(strategy: str, method: str, modalities: int, batch_size: int) -> tuple[Program, int]:
    """The compiled step of a method, and its number of parameters."""
    regularised = method == "c3r"
    config = C3RConfig.hinge(instrument="two_stage" if regularised else "none")
    names = [f"m{i}" for i in range(modalities)]
    encoders = {name: FeatureEncoder(DIM, (64,)) for name in names}
    model = TwinNetwork(encoders, MaskedMean(), nn.Dense(CLASSES), config, DIM)
    optimizer = optax.adamw(1e-3)
    devices = STRATEGIES[strategy]()
    batch = {
        "inputs": {name: np.zeros((batch_size, FEATURES), np.float32) for name in names},
        "present": np.ones((batch_size, modalities), bool),
        "labels": np.zeros(batch_size, np.int32),
        "where": np.ones(batch_size, bool),
    }
    state = devices.init(lambda: init_state(model, optimizer, batch, 0))
    step = functools.partial(
        train_step,
        model=model,
        method=Method(method, regularised, config, 0.0),
        optimizer=optimizer,
        moments_decay=0.9,
        axis_name=devices.axis_name,
    )
    compiled = devices.compile_step(step).lower(state, devices.split(batch)).compile()
    parameters = sum(x.size for x in jax.tree.leaves(devices.host(state.params)))
    return inspect(compiled), parameters


def main() -> None:
    """Measures and writes named figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file to write")
    arguments = parser.parse_args()
    rows = []
    for strategy in STRATEGIES:
        for modalities in (2, 3, 4):
            for batch_size in (512, 2048):
                plain, parameters = program(strategy, "plain", modalities, batch_size)
                c3r, _ = program(strategy, "c3r", modalities, batch_size)
                total = {
                    name: {
                        **made.sent._asdict(),
                        "kinds": {kind: value._asdict() for kind, value in made.collectives.items()},
                    }
                    for name, made in (("plain", plain), ("c3r", c3r))
                }
                rows.append(
                    {
                        "strategy": strategy,
                        "modalities": modalities,
                        "batch_size": batch_size,
                        "gradient_bytes": 4 * parameters,
                        "moments_bytes": 4 * (modalities * DIM) ** 2,
                        **total,
                        "extra_bytes": total["c3r"]["bytes"] - total["plain"]["bytes"],
                    }
                )
    figures = {"dim": DIM, "devices": jax.device_count(), "rows": rows}
    pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    for row in rows:
        print({key: value for key, value in row.items() if key not in ("plain", "c3r")})
        print("  plain", row["plain"]["count"], row["plain"]["kinds"], " c3r", row["c3r"]["count"], row["c3r"]["kinds"])


if __name__ == "__main__":
    main()
