"""The demo's step compiled by the TPU's own compiler, on a machine without a TPU."""

import json
import os
import subprocess
import sys

from tests.conftest import TPU_COMPILER
from tests.processes import REPOSITORY

# Both strategies in one process, which loads the compiler once; figures as JSON on the last line.
SCRIPT = """
import json, sys
from c3r_jax.errors import ConfigError
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.parallel.topology import find_topology
from c3r_jax.training.dry_run import compile_step, measure
from c3r_jax.training.dry_run_text import describe
from tests.conftest import shrunk

config = shrunk(sys.argv[1])
mapped = measure(config, "v5e:2x2")
config.parallel.strategy, config.parallel.fsdp, config.parallel.min_size = "mesh", 2, 1024
split = compile_step(build_experiment(config, devices=find_topology("v5e:2x2").devices))
refused = ""
try:
    find_topology("v5e:3x3")
except ConfigError as error:
    refused = str(error)
split = {"flops": split.flops, "cycles": split.cycles, "collectives": split.collectives, "loops": split.unknown_loops}
print(json.dumps({"mapped": mapped, "split": split, "text": describe(mapped), "refused": refused}))
"""


def test_the_step_compiles_for_tpus_by_both_strategies(small_emoji):
    path = [str(REPOSITORY), str(TPU_COMPILER), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "XLA_FLAGS": ""}
    command = [sys.executable, "-c", SCRIPT, str(small_emoji)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    mapped, split, text = found["mapped"], found["split"], found["text"]
    assert mapped["devices"] == 4 and mapped["fits"] and mapped["unknown_loops"] == split["loops"] == 0
    # What the compiler leaves is what was written: nothing twice, and by either strategy.
    assert mapped["flops"] == split["flops"] and abs(mapped["flops"] / mapped["needed_flops"] - 1) < 0.05
    assert min(mapped["cycles"], split["cycles"]) > 1e5
    # Sums of the first stage and of the gradients, each under the same channel, and no more than a dozen.
    assert 5 <= mapped["collectives"]["all-reduce"]["count"] <= 12
    assert split["collectives"]["all-gather"][0] >= 1 and split["collectives"]["all-reduce"][0] >= 5
    gradient = 4 * sum(mapped["parameters"].values())
    assert gradient < mapped["collective_bytes"] < 1.6 * gradient
    assert "4 devices of TPU v5e, v5e:2x2" in text and "none of it measured" in text and "cycles" in text
    assert "refuses" in found["refused"] and "v5e:2x2" in found["refused"]
