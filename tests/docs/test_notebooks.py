"""The notebooks run from their first cell to their last, and show what they say; their stored form has no outputs."""

import json
import re

import matplotlib
import pytest

from tests.docs.commands import ROOT

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
SHOWN = {
    "add_c3r": lambda names: names["scores"]["with C3R"][1] > 0.75 > 0.5 > names["scores"]["plain"][1],
    "diagnostics": lambda names: (
        names["accuracy"]["own cues"][1] > 0.65 > 0.35 > names["accuracy"]["one cue for both"][1]
        and names["models"]["one cue for both"].c3_risk_.total < names["models"]["own cues"].c3_risk_.total
        and _strength(names, "one cue for both") > _strength(names, "own cues") > 10
    ),
}


def _strength(names, model):
    return min(stage["f_median"] for stage in names["models"][model].first_stage_.values())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path):
    backend = matplotlib.get_backend()
    matplotlib.use("agg")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names = {"__name__": "notebook"}
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec(compile(source, f"{path.name}, cell {number}", "exec"), names)
        for target in re.findall(r"\]\(([^)#]+)", source) if cell["cell_type"] == "markdown" else ():
            assert (path.parent / target).resolve().exists(), target
    names["plt"].close("all")
    matplotlib.use(backend)
    assert SHOWN[path.stem](names)


def test_every_notebook_says_what_it_shows():
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)
