"""How C3R's own cost grows: the loss and its gradient on given features, by batch, width, modalities and classes.

python benchmarks/scaling.py --json OUT.json

One quantity is doubled at a time from batch 512, width 32, two modalities, ten classes; times are medians of
alternating runs, and ``exponent`` is log2 of the last doubling: 1 is linear. Operations come from the compiled program.
"""

import argparse
import functools
import json
import math
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax import C3RConfig, c3r_loss

BASE = {"batch": 512, "dim": 32, "modalities": 2, "classes": 10}
SWEEPS = {
    "batch": (256, 512, 1024, 2048, 4096, 8192),
    "dim": (16, 32, 64, 128, 256),
    "modalities": (2, 3, 4, 6, 8),
    "classes": (10, 100, 1000, 4000),
}


def mean_fuse(h, present=None):
    """The modalities' mean; everything is present."""
    return jnp.stack(list(h.values())).mean(0)


def program(batch: int, dim: int, modalities: int, classes: int):
    """The compiled gradient of the loss, its arguments, and that of cross-entropy alone."""
    keys = jax.random.split(jax.random.key(0), modalities + 1)
    shared = jax.random.normal(keys[-1], (batch, dim))
    features = {f"m{i}": shared + jax.random.normal(keys[i], (batch, dim)) for i in range(modalities)}
    head = jax.random.normal(keys[-1], (dim, classes)) / math.sqrt(dim)
    labels = jnp.arange(batch) % classes

    def loss(features, head, regularised):
        if regularised:
            return c3r_loss(lambda z: z @ head, mean_fuse, features, labels, config=C3RConfig.hinge())[0]
        logits = mean_fuse(features) @ head
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()

    made = {}
    for name, regularised in (("plain", False), ("c3r", True)):
        gradient = jax.jit(jax.grad(functools.partial(loss, regularised=regularised), argnums=(0, 1)))
        made[name] = gradient.lower(features, head).compile()
    return made, (features, head)


def seconds(compiled, arguments, repeats: int) -> float:
    """Median time of one call."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def main() -> None:
    """Measures and writes named figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file to write")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each program (default 15)")
    arguments = parser.parse_args()
    figures: dict = {"device": str(jax.devices()[0].device_kind), "base": BASE}
    for name, values in SWEEPS.items():
        rows = []
        for value in values:
            made, inputs = program(**{**BASE, name: value})
            rows.append(
                {
                    name: value,
                    "c3r_ms": 1e3 * seconds(made["c3r"], inputs, arguments.repeats),
                    "plain_ms": 1e3 * seconds(made["plain"], inputs, arguments.repeats),
                    "c3r_mflop": made["c3r"].cost_analysis()["flops"] / 1e6,
                }
            )
        last, before = rows[-1], rows[-2]
        exponent = math.log(last["c3r_ms"] / before["c3r_ms"]) / math.log(last[name] / before[name])
        figures[name] = {"rows": rows, "exponent": exponent}
        for row in rows:
            print({key: round(value, 3) for key, value in row.items()})
        print(f"{name}: exponent of the last step {exponent:.2f}")
    pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
