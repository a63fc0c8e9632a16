"""Evaluates one run: python eval.py --workdir=DIR writes results.json, results.md, report.html and figures there."""

import shlex
import sys

from absl import app, flags, logging

from c3r_jax.errors import C3RError
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.evaluation.pretrained import pretrained_table
from c3r_jax.evaluation.robustness import results_folder
from c3r_jax.report.tables import number, robustness_table
from c3r_jax.report.write import write_report
from c3r_jax.training.workdir import read_history, write_text

WORKDIR = flags.DEFINE_string("workdir", None, "Directory of a run made by train.py.")
SPLIT = flags.DEFINE_string("split", None, "Another split than config.eval.split; written to DIR/SPLIT.")
PROTOCOL = flags.DEFINE_multi_string(
    "protocol", None, "Evaluate exactly these (commas or repeated); written to DIR/protocols/NAME+NAME."
)
BASELINE = flags.DEFINE_string("baseline", None, "Workdir evaluated in the same way, for effective robustness.")
flags.mark_flags_as_required(["workdir"])


def main(argv: list[str]) -> None:
    """Evaluates the best checkpoint and writes the report, or says in one sentence why it cannot."""
    if len(argv) > 1:
        sys.exit(f"eval.py: argument {argv[1]!r} is unknown: only --workdir=DIR is needed.")
    logging.set_verbosity(logging.WARNING)
    workdir = str(WORKDIR.value)
    command = "python " + " ".join(shlex.quote(word) for word in sys.argv)
    protocols = list(dict.fromkeys(name for names in PROTOCOL.value or () for name in names.split(","))) or None
    try:
        results = evaluate(workdir, command=command, split=SPLIT.value, protocols=protocols, baseline=BASELINE.value)
        history = read_history(workdir)
    except C3RError as error:
        sys.exit(f"eval.py: {error}")
    out = results_folder(workdir, SPLIT.value, protocols)
    if "retrieval" in results:  # of contrastive pretraining: no classes were trained
        table = pretrained_table(results)
        path = out / "results.md"
        write_text(path, table)
        print(f"{table}\nwrote {path}")
        return
    written = write_report([results], out, histories={results["method"]: [history]}, command=command)
    metric = results["metric"]
    for route, summary in results["summary"].items():
        print(
            f"{route}: mean {metric} {number(summary[f'mean_{metric}'])}, worst {number(summary[f'worst_{metric}'])} "
            f"({summary['worst_condition']})"
        )
    if protocols:
        print(robustness_table(results).to_markdown())
    print("wrote " + ", ".join(str(path) for path in written.values()))


if __name__ == "__main__":
    app.run(main)
