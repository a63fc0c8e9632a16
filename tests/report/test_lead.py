"""What a report begins with: its numbers, and that page and Markdown show them."""

import re

import numpy as np
import pytest

from c3r_jax.report.lead import lead_html, lead_markdown, lead_of

SHARES = {
    "plain": {"shift": [0.5, 0.54, 0.55], "same": [0.9, 0.9, 0.9]},
    "c3r": {"shift": [0.6, 0.66, 0.63], "same": [0.89, 0.9, 0.91]},
}


@pytest.fixture
def lead(tmp_path):
    path = tmp_path / "figures" / "shift.png"
    return lead_of(
        "Where <data> shifts", "What was measured.", SHARES, {"accuracy": ("shift", "same")}, path, baseline="plain"
    )


def test_means_and_the_paired_difference_are_those_of_the_seeds(lead):
    assert lead.table.rows == (("plain", "53.0 ± 2.6", "90.0 ± 0.0"), ("c3r", "63.0 ± 3.0", "90.0 ± 1.0"))
    difference = 100 * (np.array(SHARES["c3r"]["shift"]) - SHARES["plain"]["shift"])
    half = 4.302653 * difference.std(ddof=1) / np.sqrt(3)  # t with two degrees of freedom, 97.5 %
    expected = (difference.mean(), difference.mean() - half, difference.mean() + half)
    found = [float(x) for x in re.findall(r"[+-]\d+\.\d", lead.sentences[1])]
    np.testing.assert_allclose(found, expected, atol=0.051)
    assert lead.sentences[1].startswith("shift: c3r 63.0, plain 53.0")


def test_one_seed_has_no_interval(tmp_path):
    shares = {method: {name: values[:1] for name, values in row.items()} for method, row in SHARES.items()}
    found = lead_of("Title", "What.", shares, {"accuracy": ("shift",)}, tmp_path / "a.png", baseline="plain")
    assert found.sentences == ("What.", "shift: c3r 60.0, plain 50.0 (+10.0).")
    assert found.table.rows[0] == ("plain", "50.0")


def test_page_and_markdown_show_picture_and_numbers(lead):
    page, text = lead_html(lead), lead_markdown(lead)
    assert lead.figure.path.read_bytes().startswith(b"\x89PNG")
    assert "Where &lt;data&gt; shifts" in page and "data:image/png" in page and "63.0 ± 3.0" in page
    assert text.startswith("## Where") and "| c3r | 63.0 ± 3.0 | 90.0 ± 1.0 |" in text
