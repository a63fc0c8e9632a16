"""What C3R costs: one training step of the demo model with C3R relative to one without, with the same encoders.

python benchmarks/step.py --json OUT.json

C3R in two forms: "default", C3RConfig(), as the demo is configured; and "expert", the default with experts of each
batch. FLOPs come from the compiled programs (``cost_analysis``), peak memory from their buffers
(``memory_analysis``), times from alternating runs of all in one process: their ratios stay valid if the machine's speed
drifts.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import statistics
import sys
import time

import jax

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax.core.config import C3RConfig
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.step.train_step import step_columns, train_step
from configs.emoji import get_config

FORMS = {"default": C3RConfig(), "expert": C3RConfig(expert=0.5)}


def compile_step(form: str, batch_size: int | None):
    """Returns the compiled single-device step of "plain" or of a form of C3R, its state and a batch."""
    config = get_config()
    config.method, config.modality_dropout.switch = "plain" if form == "plain" else "c3r", "off"
    chosen = FORMS.get(form)
    if chosen is not None:
        config.c3r.update({name: value for name, value in dataclasses.asdict(chosen).items() if name in config.c3r})
    if batch_size:
        config.train.batch_size = batch_size
    if form == "plain":
        config.c3r.instrument = "none"  # no moments either: nothing of C3R is left in the plain step
    experiment = build_experiment(config)
    step = functools.partial(
        train_step,
        model=experiment.model,
        method=experiment.method,
        optimizer=experiment.optimizer,
        moments_decay=config.train.moments_decay,
    )
    batch = next(experiment.train_iterator())
    arrays = jax.device_put(step_columns(batch))
    state = experiment.state_maker()()
    return jax.jit(step).lower(state, arrays).compile(), state, arrays


def measure(compiled, state, batch) -> float:
    """Seconds of one step."""
    begin = time.perf_counter()
    jax.block_until_ready(compiled(state, batch))
    return time.perf_counter() - begin


def flops_of(compiled) -> float:
    """FLOPs of one step; the bodies of loops count once (here: the solver's, 16 x 16 matrices)."""
    return compiled.cost_analysis()["flops"]


def peak_bytes(compiled) -> int:
    """Arguments, outputs and temporaries that live at once, at most."""
    memory = compiled.memory_analysis()
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes


def main() -> None:
    """Measures and writes named figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file to write")
    parser.add_argument("--repeats", type=int, default=40, help="timed steps of each (default 40)")
    parser.add_argument("--batch_size", type=int, default=None, help="examples per step (default: the demo's)")
    arguments = parser.parse_args()
    steps = {name: compile_step(name, arguments.batch_size) for name in ("plain", *FORMS)}
    for step in steps.values():
        for _ in range(3):
            measure(*step)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.repeats):
        for name, step in steps.items():
            times[name].append(measure(*step))
    figures = {
        "device": str(jax.devices()[0].device_kind),
        "batch_size": int(steps["plain"][2]["labels"].shape[0]),
    }
    for name, (compiled, _, _) in steps.items():
        figures |= {
            f"{name}_flops": flops_of(compiled),
            f"{name}_ms": 1e3 * statistics.median(times[name]),
            f"{name}_peak_bytes": peak_bytes(compiled),
        }
    for name in FORMS:
        ratios = [own / plain for own, plain in zip(times[name], times["plain"], strict=True)]
        figures |= {
            f"{name}_flops_ratio": figures[f"{name}_flops"] / figures["plain_flops"],
            f"{name}_time_ratio": statistics.median(ratios),
            f"{name}_time_ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
            f"{name}_memory_ratio": figures[f"{name}_peak_bytes"] / figures["plain_peak_bytes"],
        }
    pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
