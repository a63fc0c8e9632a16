"""The figures of README and docs are drawn from what was measured, the same each time, and are what they say."""

import json

import jax
import numpy as np
import pytest
from scipy.stats import pearsonr

from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.data.sets.structural import StructuralModel
from tests.docs.commands import PAGES, ROOT
from tools.lower_bounds import lower_bounds
from tools.mechanism import train, weight_share, world_of
from tools.method_drawings import draw_all, floors_text
from tools.method_figures import repeated, specific

FIGURES = ROOT / "docs/figures"


@pytest.fixture(scope="module")
def measured():
    return json.loads((FIGURES / "measured.json").read_text(encoding="utf-8"))


def test_the_same_numbers_give_the_same_pictures(measured, tmp_path):
    first = [path.read_bytes() for path in draw_all(measured, tmp_path)]
    paths = draw_all(measured, tmp_path)
    assert first == [path.read_bytes() for path in paths]
    drawn_elsewhere = {"summary.svg"}  # from results/, by tools/summary_figure.py
    assert {path.name for path in paths} == {path.name for path in FIGURES.glob("*.svg")} - drawn_elsewhere
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert all(f"figures/{path.name}" in shown for path in paths)


def test_the_picture_of_the_floors_is_current():
    """Otherwise: python tools/method_figures.py --draw."""
    assert floors_text() in (FIGURES / "floors.svg").read_text(encoding="utf-8")


def test_the_page_has_the_measured_numbers(measured):
    text = " ".join((ROOT / "docs/method.md").read_text(encoding="utf-8").split())

    def cell(question, case, method, regime):
        values = 100 * np.array(measured[question][case][method][regime])
        return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"

    for share in ("0.0", "0.5", "0.75", "1.0"):
        assert cell("invalid", share, "C3R", "shift") in text
        assert cell("invalid", share, "plain", "shift").split(" ")[0] in text
    for strength in ("1.5", "2.25", "3.0"):
        for method in ("plain", "C3R"):
            assert cell("specific", strength, method, "same").split(" ")[0] in text


def test_the_page_has_the_numbers_of_the_mechanism(measured):
    text = " ".join((ROOT / "docs/method.md").read_text(encoding="utf-8").split())
    found = {
        world: {name: np.mean(x, axis=0) for name, x in one.items()} for world, one in measured["mechanism"].items()
    }
    cued = [100 * x for world in ("confounded", "anticausal") for x in found[world]["expert"]]
    null, anticausal, own = 100 * found["null"]["expert"], found["anticausal"], found["complementary"]
    weight = {name: 100 * anticausal[name] for name in ("plain training", "plain term", "beyond the experts")}
    for sentence in (
        f"in {min(cued):.1f} to {max(cued):.1f} % of the rows, by the cue",
        f"in {min(null):.1f} to {max(null):.1f} %, and where",
        f"complementary in {100 * own['expert'].mean():.1f} % (the",
        f"(the commonest label alone: {100 * own['commonest']:.1f})",
        f"in {100 * anticausal['wrong']:.1f} % of the rows",
        f"They have {weight['plain term'][1]:.1f} %",
        f"but {weight['beyond the experts'][1]:.1f} % beyond the experts",
        f"before training {weight['plain term'][0]:.1f} and {weight['beyond the experts'][0]:.1f}",
        f"ends at {weight['plain training'][1]:.1f}:",
        f"is {anticausal['others'][-1] / anticausal['task'][-1]:.1f} times as long",
        f"and {own['others'][-1] / own['task'][-1]:.1f} times (complementary)",
        f'is at {anticausal["gate"][-1]:.2f} in "anticausal" and {found["confounded"]["gate"][-1]:.2f} in'.replace(
            "0.", "."
        ),
        f"is {own['gate'][0]:.2f} at first and {own['gate'][-1]:.2f} at last".replace("0.", "."),
    ):
        assert sentence in text, sentence


def test_the_mechanism_is_that_of_the_objective():
    """The cap and the gate are the objective's, and a row's weight is the derivative of its loss."""
    rows, wrong = world_of("anticausal", 0, 512)
    evidence = np.random.default_rng(0).standard_normal((2, 512, 2)).astype(np.float32)
    rows = rows._replace(evidence={"m1": evidence[0], "m2": evidence[1]})
    run = train(rows, regularised=True, steps=4, seed=1)
    assert run.losses.shape == (4,) and np.isfinite(run.losses).all() and (run.start != run.end).any()
    task, others, capped, gate = run.pull.T
    np.testing.assert_allclose(capped, np.minimum(gate * task, others), rtol=1e-5)
    assert ((gate >= 0) & (gate <= 1)).all() and wrong is not None and 0.2 < wrong.mean() < 0.4
    outputs = run.end + evidence.sum(0)
    pulls = np.abs(jax.grad(lambda x: CLASSIFICATION.loss(x, rows.labels).sum())(outputs))[np.arange(512), rows.labels]
    assert abs(weight_share(outputs, rows.labels, wrong) - pulls[wrong].sum() / pulls.sum()) < 1e-4


def test_cues_are_repeated_by_the_share():
    world = repeated(StructuralModel("confounded"), 0.5)
    before, after = (world(2000, regime, 3) for regime in ("same", "shift"))
    one, two = (before.factors[name] for name in ("u_m1", "u_m2"))
    assert abs(np.mean(one == two) - 0.75) < 0.04
    np.testing.assert_array_equal(two, after.factors["u_m2"])
    for sample, sign in ((before, 1), (after, -1)):
        assert sign * pearsonr(sample.labels, one).statistic > 0.2


def test_a_specific_cause_acts_by_its_strength():
    model = StructuralModel("confounded")
    without, strong = (specific(model, g)(4000, "same", 3) for g in (0.0, 3.0))
    assert abs(pearsonr(without.labels, without.factors["u_m1"]).statistic) < 0.05
    assert pearsonr(strong.labels, strong.factors["u_m1"]).statistic > 0.5
    np.testing.assert_array_equal(without.inputs["m1"], strong.inputs["m1"])


def test_lower_bounds_are_those_of_the_requirements():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    found = lower_bounds(text)
    assert len(found) == 1 + sum(not line.startswith("#") for line in text.splitlines() if line)
    assert all("==" in line for line in found) and any(line.startswith("jaxlib==") for line in found)
