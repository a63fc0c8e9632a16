"""What the devices send each other for a contrastive loss and its gradient, read from the compiled program.

XLA_FLAGS=--xla_force_host_platform_device_count=256 python benchmarks/pairs.py --json OUT.json

The loss alone, of given representations of two modalities, over a mesh of all devices (here 256 fake ones), as the mesh
strategy computes it and, for comparison, as one program for the global batch. About five minutes; nothing is run.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.methods.losses import method_loss
from c3r_jax.methods.method import Method
from c3r_jax.models.encoders.features import FeatureEncoder
from c3r_jax.models.fusion.representations import MaskedMean
from c3r_jax.models.pair_head import PairHead
from c3r_jax.models.twin import TwinNetwork
from c3r_jax.parallel.program import Program, inspect
from c3r_jax.parallel.sharded import Sharded

NAMES = ("image", "text")


def program(method: str, batch_size: int, dim: int, *, mapped: bool) -> Program:
    """The compiled loss of a method and its gradient for representations and head."""
    rows = Sharded(1, 1, 0).rows
    copied = NamedSharding(rows.mesh, PartitionSpec())
    model = TwinNetwork({name: FeatureEncoder(dim, ()) for name in NAMES}, MaskedMean(), PairHead(), C3RConfig(), dim)
    chosen = Method(method, method == "c3r", C3RConfig(), 0.0, "softmax")

    def loss(h: dict[str, Any], head: dict[str, Any], where: Any) -> Any:
        present, labels = jnp.ones((batch_size, 2), bool), jnp.zeros(batch_size, jnp.int32)
        batch = EncodedBatch(
            model, {"params": {"head": head}}, h, present, labels, where, None, CLASSIFICATION, 0.0, None
        )
        return method_loss(batch._replace(rows=rows if mapped else None), chosen, jax.random.key(0))[0]

    of_rows = functools.partial(jax.ShapeDtypeStruct, sharding=rows)
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=copied)
    shapes = (
        {name: of_rows((batch_size, dim), jnp.float32) for name in NAMES},
        dict.fromkeys(("log_scale", "offset"), scalar),
    )
    jitted = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), out_shardings=(copied, (rows, copied)))
    return inspect(jitted.lower(*shapes, of_rows((batch_size,), bool)).compile())


def main() -> None:
    """Prints a table of bytes on each device, and writes named figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, required=True, help="file to write")
    parser.add_argument("--dim", type=int, default=512, help="width of the representations")
    parser.add_argument("--batches", type=int, nargs="+", default=(4096, 32_768))
    arguments = parser.parse_args()
    found = []
    for batch_size in arguments.batches:
        for mapped in (True, False):
            for method in ("plain", "c3r"):
                made = program(method, batch_size, arguments.dim, mapped=mapped)
                kinds = {kind: value._asdict() for kind, value in made.collectives.items()}
                found.append(
                    {
                        "batch_size": batch_size,
                        "mapped": mapped,
                        "method": method,
                        **made.sent._asdict(),
                        "kinds": kinds,
                    }
                )
                print(found[-1], flush=True)
    figures = {"devices": jax.device_count(), "dim": arguments.dim, "programs": found}
    arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
