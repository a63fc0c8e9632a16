"""The notebooks run from their first cell to their last, show what they say, and are stored with what they show."""

import ast
import contextlib
import io
import json
import re

import matplotlib
import pytest

from tests.docs.commands import ROOT
from tests.docs.text import agrees

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
SHOWN = {
    "add_c3r": lambda names: names["scores"]["with C3R"][1] > 0.75 > 0.5 > names["scores"]["plain"][1],
    "diagnostics": lambda names: (
        names["accuracy"]["own cues"][1] > 0.65 > 0.35 > names["accuracy"]["one cue for both"][1]
        and abs(names["models"]["one cue for both"].c3_risk_.total - names["models"]["own cues"].c3_risk_.total) < 0.05
        and _strength(names, "one cue for both") > _strength(names, "own cues") > 10
    ),
}


def _strength(names, model):
    return min(stage["f_median"] for stage in names["models"][model].first_stage_.values())


def shown(source, number, path, names):
    """Runs a cell; returns what it prints and the value of its last expression, as a notebook shows them."""
    tree = ast.parse(source)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    where, printed = f"{path.name}, cell {number}", io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, where, "exec"), names)
        value = None if last is None else eval(compile(last, where, "eval"), names)
    silent = value is None or source.rstrip().endswith(";")
    return printed.getvalue() + ("" if silent else repr(value))


def stored(cell):
    """The text that a notebook has of a cell's outputs; there is no error, and no warning of a library."""
    texts = []
    for output in cell["outputs"]:
        assert output["output_type"] in ("stream", "execute_result", "display_data")
        assert output.get("name", "stdout") == "stdout"
        data = output.get("data", {})
        if "image/png" in data:
            assert len(data["image/png"]) > 2000
        else:
            texts.append("".join(output.get("text", data.get("text/plain", ""))))
    return "".join(texts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_and_show_what_is_stored(path):
    backend = matplotlib.get_backend()
    matplotlib.use("agg")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names = {"__name__": "notebook"}
    order = []
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            order.append(cell["execution_count"])
            assert agrees(shown(source, number, path, names), stored(cell)), (
                f"cell {number} (tools/docs_run_notebooks.py)"
            )
            assert ("plt.subplots" in source) == any("image/png" in one.get("data", {}) for one in cell["outputs"])
        for target in re.findall(r"\]\(([^)#]+)", source) if cell["cell_type"] == "markdown" else ():
            assert (path.parent / target).resolve().exists(), target
    names["plt"].close("all")
    matplotlib.use(backend)
    assert order == list(range(1, len(order) + 1))
    assert SHOWN[path.stem](names)


def test_that_the_comparison_finds_other_words_and_numbers():
    assert agrees("{'plain': [0.93,\n 0.31]}", "{'plain': [0.92, 0.30]}")
    assert not agrees("plain 0.93", "C3R 0.93") and not agrees("plain 0.93", "plain 0.31")
    assert not agrees("plain 0.9", "plain 0.9 0.9")


def test_every_notebook_says_what_it_shows():
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)
