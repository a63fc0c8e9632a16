"""Evaluates the best checkpoint of a run; writes results.json, results.md, report.html and figures.

c3r eval --workdir=runs/emoji
c3r eval --workdir=runs/emoji --split=validation
c3r eval --workdir=runs/plain --route=instrument  # post hoc: the instrument on a run trained without C3R
c3r eval --workdir=runs/emoji --protocol=qmf,missing --baseline=runs/plain
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags, logging

from c3r_jax.caches import stop_keeping
from c3r_jax.commands.flags import run_with_flags
from c3r_jax.errors import C3RError, ConfigError
from c3r_jax.evaluation.contrastive_scores import pretrained_table
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.evaluation.robustness import results_folder
from c3r_jax.experiments.metric_writers import write_figures
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.experiments.settings import Settings, read_settings
from c3r_jax.experiments.workdir import read_config
from c3r_jax.files.atomic import write_text
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.report.cells import number
from c3r_jax.report.tables import robustness_table
from c3r_jax.report.write import write_report
from c3r_jax.tasks.registry import named


def define(values: flags.FlagValues) -> None:
    """Adds the flags."""
    flags.DEFINE_string("workdir", None, "Directory of a trained run.", flag_values=values)
    flags.DEFINE_string(
        "split", None, "Another split than config.eval.split; written to DIR/SPLIT.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "protocol",
        None,
        "Evaluate only these protocols (comma-separated or repeated); written to DIR/protocols/NAME+NAME.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "baseline",
        None,
        "Workdir of a baseline, evaluated in the same way, for effective robustness.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "route",
        ROUTES[0],
        ROUTES,
        "Prediction route of the report: through z, or through the instrument's z_c. Both are evaluated.",
        flag_values=values,
    )
    flags.mark_flags_as_required(["workdir"], flag_values=values)


def run(arguments: Sequence[str], program: str) -> None:
    """The command, e.g. as "c3r eval" or "eval.py"."""
    run_with_flags(main, define, about=__doc__, arguments=arguments, program=program)


def check_route(settings: Settings, route: str) -> None:
    """Refuses the instrument's route for runs without an instrument.

    Raises:
      ConfigError: the run has no instrument; the message names the leaf.
    """
    if route == "instrument" and (settings.c3r.instrument == "none" or named(settings.task).contrastive):
        without = f"config.c3r.instrument is {settings.c3r.instrument!r} and config.task {settings.task!r}"
        raise ConfigError(f"--route is {route!r}, but in this run {without}: only --route={ROUTES[0]} is available.")


def main(program: str, command: str) -> None:
    """Evaluates the best checkpoint and writes the report, or says in one sentence why it cannot."""
    logging.set_verbosity(logging.WARNING)
    options = flags.FLAGS
    workdir, split = options.workdir, options.split
    protocols = list(dict.fromkeys(name for names in options.protocol or () for name in names.split(","))) or None
    try:
        settings = read_settings(read_config(workdir))
        if not settings.train.keep_programs:
            stop_keeping()
        check_route(settings, options.route)
        results = evaluate(workdir, command=command, split=split, protocols=protocols, baseline=options.baseline)
        history = read_history(workdir)
    except C3RError as error:
        sys.exit(f"{program}: {error}")
    out = results_folder(workdir, split, protocols)
    if "retrieval" in results:  # of contrastive pretraining: no classes were trained
        table = pretrained_table(results)
        path = out / "results.md"
        write_text(path, table)
        print(f"{table}\nwrote {path}")
        return
    written = write_report(
        [results], out, histories={results["method"]: [history]}, route=options.route, command=command
    )
    prefix = ("figures", *out.relative_to(workdir).parts)
    figures = {"/".join((*prefix, name)): path for name, path in written.items() if path.suffix == ".png"}
    writers = results["config"]["train"]["writers"]
    write_figures(writers, pathlib.Path(workdir), figures, results["checkpoint"]["step"])
    metric = results["metric"]
    for route, summary in sorted(results["summary"].items(), key=lambda item: item[0] != options.route):
        print(
            f"{route}: mean {metric} {number(summary[f'mean_{metric}'])}, worst {number(summary[f'worst_{metric}'])} "
            f"({summary['worst_condition']})"
        )
    environments = results.get("environments")
    if environments is not None:
        for route, found in environments["routes"].items():
            worst = found["worst"].get(metric)
            if worst is not None:
                print(f"{route}: worst {environments['column']} {worst['name']}, {metric} {number(worst['value'])}")
    if protocols:
        print(robustness_table(results).to_markdown())
    print("wrote " + ", ".join(str(path) for path in written.values()))
