"""What a program costs before its first number: CPU seconds of tracing, lowering and compiling, plain and with C3R.

python benchmarks/compile.py --json OUT.json

Steps are those of training on arrays in memory, for tiny networks of 2 to 4 modalities: what is counted is the size of
the program, not its work. Then the estimator in this process: its first fit, further folds of other sizes, memory over
many fits. The estimator's figures include whatever it compiles besides the step. No compilation cache is used.
"""

import argparse
import gc
import json
import os
import pathlib
import sys
import time
import warnings

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
import numpy as np
import optax

from c3r_jax import C3RClassifier
from c3r_jax.core.config import C3RConfig
from c3r_jax.methods.build import make_method
from c3r_jax.step.in_memory import Structure, model_of, structure_of
from c3r_jax.step.state import init_state
from c3r_jax.step.train_step import train_step

METHODS = {  # name: (configuration, regularised)
    "plain": (C3RConfig(instrument="none"), False),
    "c3r": (C3RConfig(), True),
    "expert": (C3RConfig(expert=0.5), True),
    "hinge": (C3RConfig.hinge(), True),
}
COMPILED = "/jax/core/compile/backend_compile_duration"


def step_costs(method: str, modalities: int, batch: int = 64) -> dict[str, float]:
    """CPU seconds of each stage of one train step, and how many instructions the compiled program has."""
    config, regularised = METHODS[method]
    names = tuple(f"m{i}" for i in range(modalities))
    structure = Structure(names, 3, (16,), 8, structure_of(config), regularised, 0.0)
    model, optimizer = model_of(structure)[0], optax.adamw(1e-3)
    rng = np.random.default_rng(0)
    rows = {
        "inputs": {name: rng.normal(size=(batch, 6)).astype(np.float32) for name in names},
        "present": np.ones((batch, modalities), bool),
        "labels": np.arange(batch, dtype=np.int32) % 3,
        "where": np.ones(batch, bool),
    }
    made = make_method(config, regularised=regularised)
    state = jax.eval_shape(lambda: init_state(model, optimizer, rows, 0, rival=made.rival))

    def step(state, rows):
        return train_step(state, rows, model=model, method=made, optimizer=optimizer, moments_decay=0.9)

    found, clock = {}, time.process_time()
    traced = jax.jit(step).trace(state, rows)
    found["trace"], clock = time.process_time() - clock, time.process_time()
    lowered = traced.lower()
    found["lower"], clock = time.process_time() - clock, time.process_time()
    compiled = lowered.compile()
    found["compile"] = time.process_time() - clock
    found["total"] = found["trace"] + found["lower"] + found["compile"]
    found["operations"] = sum(" = " in line for line in lowered.as_text().splitlines())  # given to the compiler
    found["instructions"] = sum(
        " = " in line for line in (compiled.as_text() or "").splitlines()
    )  # what it made of them
    return found


def resident_mib() -> float:
    """Memory of this process, MiB; 0 where the system does not report it."""
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def fit_costs(fits: int, rows: int = 400) -> dict[str, float | list[float]]:
    """CPU seconds and compiled programs of the estimator's first fit and of later ones, and memory over many."""
    programs = [0]
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: programs.__setitem__(0, programs[0] + (event == COMPILED))
    )
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 2
    inputs = {name: (labels[:, None] + rng.normal(size=(rows, 8))).astype(np.float32) for name in ("a", "b")}

    def fit(count: int, seed: int) -> tuple[float, int]:
        before, clock = programs[0], time.process_time()
        model = C3RClassifier(seed=seed, steps=50)
        model.fit({name: value[:count] for name, value in inputs.items()}, labels[:count])
        model.predict({name: value[count - 20 :] for name, value in inputs.items()})
        return time.process_time() - clock, programs[0] - before

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, later = fit(rows, 0), [fit(rows - 10 * fold, 0) for fold in range(1, 5)]
        memory = [resident_mib()]
        for seed in range(fits):
            fit(rows - seed % 5, seed)
            if (seed + 1) % max(fits // 4, 1) == 0:
                gc.collect()
                memory.append(resident_mib())
    return {
        "first_fit_seconds": first[0],
        "first_fit_programs": first[1],
        "fold_seconds": [seconds for seconds, _ in later],
        "fold_programs": [count for _, count in later],
        "memory_mib": memory,
    }


def main() -> None:
    """Measures, prints a table and writes named figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file to write")
    parser.add_argument("--modalities", type=int, nargs="+", default=[2, 3, 4], help="numbers of modalities")
    parser.add_argument("--fits", type=int, default=100, help="fits over which memory is followed; 0: no estimator")
    arguments = parser.parse_args()
    step_costs("plain", 2)  # what only the first program of a process costs
    figures: dict[str, object] = {}
    for count in arguments.modalities:
        for method in METHODS:
            found = step_costs(method, count)
            figures[f"{method}_{count}"] = found
            shown = "  ".join(f"{name} {value:8.2f}" for name, value in found.items())
            print(f"{count} modalities, {method:<7}{shown}", flush=True)
        plain, c3r = figures[f"plain_{count}"], figures[f"c3r_{count}"]
        assert isinstance(plain, dict) and isinstance(c3r, dict)
        figures[f"ratio_{count}"] = c3r["compile"] / plain["compile"]
        print(f"{count} modalities: C3R compiles for {figures[f'ratio_{count}']:.2f} times as long")
    if arguments.fits:
        found = fit_costs(arguments.fits)
        print(json.dumps(found), flush=True)
        figures["estimator"] = found
    pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
