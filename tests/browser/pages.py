"""The pages that are opened: reports of a tiny run and of a study, a comparison, an explained prediction."""

import contextlib
import io
import pathlib

from c3r_jax.commands.report import main as report
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.report import write_report
from c3r_jax.training.loop import fit
from tests.chaos.runs import Place
from tests.report.conftest import make_history, make_run

BROKEN = {  # what each page is for: a check that finds nothing here finds nothing anywhere
    "undefined_name": "<script>undefined_name</script>",
    "asked for": '<p>x</p><img src="https://example.org/a.png" alt="far away">',
    "px wide": '<p style="width: 900px">wide</p>',
    "contrast": '<p style="color: #777; background: #888">grey on grey</p>',
    "paper": "<p>A page that knows no dark mode.</p>",
    "not decoded": '<img src="data:image/png;base64,AAAA" alt="damaged">',
    "cut off": '<div style="overflow: hidden; width: 90px"><div style="width: 2000px">cut</div></div>',
    "closed in print": "<details><summary>more</summary><p>hidden</p></details>",
    "mean and worst": '<div style="overflow-x: auto"><table class="short"><tr><td><div style="width: 2000px">wide</div>'
    "</td></tr></table></div>",
    "no text": "",
}


def make_pages(folder: pathlib.Path) -> list[pathlib.Path]:
    """Trains, evaluates, compares and explains as the commands do."""
    run = folder / "run"
    fit(Place(folder / "data").config(train__steps=8, train__eval_every=4), run)
    results = evaluate(run)
    method, command = results["method"], "c3r eval --workdir=runs/emoji"
    single = write_report([results], run, histories={method: [read_history(run)]}, command=command)
    compared, explained = folder / "compared", folder / "explained"
    with contextlib.redirect_stdout(io.StringIO()):
        report(["compare", "--runs", str(run), "--out", str(compared)], "c3r report")
        shown = results["examples"]["necessity"][0]["index"]
        report(["explain", f"--workdir={run}", f"--example={shown}", f"--out={explained}"], "c3r report")
    study = make_study(folder / "study")
    return [single["html"], study, compared / "comparison.html", explained / f"example_{shown}.html"]


def make_study(folder: pathlib.Path) -> pathlib.Path:
    """The report of three methods, three seeds and made-up numbers."""
    accuracies = {"plain": 0.87, "modality_dropout": 0.86, "c3r": 0.85}
    runs = [make_run(method, seed, value + 0.01 * seed) for method, value in accuracies.items() for seed in range(3)]
    histories = {method: [make_history(seed) for seed in range(3)] for method in accuracies}
    return write_report(runs, folder, histories=histories, command="c3r demo")["html"]


def make_broken(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Pages with one defect each, by the words that have to be said of it."""
    folder.mkdir()
    made = {}
    for number, (words, body) in enumerate(BROKEN.items()):
        made[words] = folder / f"broken_{number}.html"
        text = f'<!DOCTYPE html><meta name="viewport" content="width=device-width"><title>x</title><body>{body}</body>'
        made[words].write_text(text, encoding="utf-8")
    return made
