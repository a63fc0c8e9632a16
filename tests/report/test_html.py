import html
import json
import re
from html.parser import HTMLParser

from c3r_jax.report import (
    Table,
    aggregate,
    assemble,
    html_table,
    report_html,
    results_markdown,
    results_table,
    run_markdown,
    write_report,
)
from c3r_jax.report.cells import escape_markdown
from c3r_jax.report.html import MANY, WIDE, summary_columns
from tests.report.conftest import PNG

VOID = {"meta", "img", "br"}


class _Balanced(HTMLParser):
    """Fails on a tag that is closed out of order; collects tag names and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _parse(page: str) -> _Balanced:
    parser = _Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_report_is_one_file_with_everything(runs, histories, tmp_path):
    paths = write_report(runs, tmp_path / "demo run", histories=histories, baseline="plain", command="make demo")
    figures = {"headline", "robustness", "modalities", "subsets", "risks", "reliability", "training"}
    assert set(paths) == {"html", "markdown", "json"} | figures
    page = paths["html"].read_text(encoding="utf-8")
    parser = _parse(page)
    images = [a for tag, a in parser.seen if tag == "img"]
    assert len(images) == len(figures) + 3  # and the pictures of three examples
    assert all((a["src"] or "").startswith("data:image/png;base64,") and a["alt"] for a in images)
    sizes = [(int(a["width"] or 0), a.get("class")) for a in images if "width" in a]
    assert len(sizes) == len(figures) and all((width > WIDE) == (kind == "wide") for width, kind in sizes)
    assert {kind for _, kind in sizes} == {"wide", None}  # panels side by side, and one alone
    many = re.findall(r'<table class="many"><thead>(.*?)</thead>', page)
    assert many and all(head.count("<th") > MANY for head in many)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in parser.seen}
    assert not re.search(r"https?://|url\(", page)
    for heading in ("What was run", "Results", "What it means", "Risks", "First stage", "Warnings", "Configuration"):
        assert f"<h2>{heading}</h2>" in page
    assert "c3r+dropout, seed 0" in page and "modelling assumption" in page
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    assert "<strong>" in page and "lambda_n" in page and "@media print" in page
    assert "python 3.11.7, jax 0.10.2" in page and "make demo" in page and "c3r+dropout: 0, 1, 2" in page


def test_it_begins_with_who_is_ahead(runs, histories, tmp_path):
    """A sentence and one figure, then mean and worst in a narrow table, and the conditions folded below it."""
    paths = write_report(runs, tmp_path, histories=histories, baseline="plain")
    page = paths["html"].read_text(encoding="utf-8")
    body = page[page.index("</h1>") :]
    sentence = json.loads(paths["json"].read_text(encoding="utf-8"))["headline"]
    assert body.startswith(f'</h1><p class="headline">{html.escape(sentence)}</p><figure><img width="672"')
    assert "3 methods on 381 test examples of emoji, 7 conditions." in sentence
    assert "On the mean, c3r+dropout is ahead: accuracy " in sentence
    assert "In the worst condition, c3r+dropout is ahead: " in sentence
    assert re.findall(r"\+\d+\.\d points against the next, dropout\.", sentence)[1:]
    assert escape_markdown(sentence) in paths["markdown"].read_text(encoding="utf-8").splitlines()[2]
    for heading, names in (("Results", ["method", "seeds"]), ("Both prediction routes", ["method", "route"])):
        section = body[body.index(f"<h2>{heading}</h2>") :]
        short, details = section.split("<details>", 1)
        assert re.findall(r'<th scope="col">(.*?)</th>', short) == [*names, "mean", "worst"]
        assert '<table class="short">' in short and details.startswith("<summary>7 conditions, one by one</summary>")
        folded = details[: details.index("</details>")]
        assert all(f'<th scope="col">{name}</th>' in folded for name in ("clean", "image only", "Gaussian 5", "worst"))
    assert body.index("<h2>Results</h2>") < body.index("<h2>What it means</h2>") < body.index("<h2>What was run</h2>")


def test_the_short_table_keeps_rows_bold_and_notes(runs):
    whole = results_table(aggregate(runs))
    short = summary_columns(whole)
    assert short.header == ("method", "seeds", "mean", "worst") and short.notes == whole.notes
    for row, full in zip(short.rows, whole.rows, strict=True):
        assert row == (*full[:2], *full[-2:])
    first = [row[0] for row in whole.rows].index("c3r+dropout")
    assert {(first, 2), (first, 3)} == short.bold and len(whole.bold) > 2


def test_examples_are_shown_with_what_the_counterfactual_changed(run, tmp_path):
    paths = write_report([run], tmp_path)
    page = paths["html"].read_text(encoding="utf-8")
    cards = re.findall(r'<article class="example">.*?</article>', page, flags=re.DOTALL)
    assert [re.search(r"Example (\d+)", card)[1] for card in cards] == ["7", "9", "11"]
    for card in cards:
        assert f'src="data:image/png;base64,{PNG}"' in card and "red &lt;apple&gt; $5 | $6" in card
        for words in ("as it is", "without image", "text alone", "causal part z_c", "hypothetical world"):
            assert f'<th scope="row">{words}</th>' in card
        assert "the prediction becomes flags (0.40): necessity risk 0.20." in card
    assert "Largest sufficiency risk" in page and "Largest necessity risk" in page


def test_markdown_and_json_have_the_same_content(runs, histories, tmp_path):
    paths = write_report(runs, tmp_path, histories=histories, command="make demo")
    data = json.loads(paths["json"].read_text(encoding="utf-8"))
    markdown, page = (paths[kind].read_text(encoding="utf-8") for kind in ("markdown", "html"))
    shown = html.unescape(re.sub(r"<[^>]+>", "", page))
    plain = re.sub(r"\\([|*`<\[])", r"\1", markdown)
    sentences = [*data["what it means"], *data["risks"], *data["first stage"], *data["warnings"], "make demo"]
    sentences += [words for records in data["examples"].values() for record in records for words in record["words"]]
    sentences += data["what was run"].values()
    for table in data["tables"].values():
        sentences += [*table["header"], *table["notes"], *(cell for row in table["rows"] for cell in row)]
    for text in filter(None, sentences):
        assert text in shown, text
        assert text in plain, text
    assert set(data["figures"]) == set(paths) - {"html", "markdown", "json"}
    assert data["histories"].keys() == histories.keys() and data["configuration"]["c3r"]["lambda_n"] == 3.0
    assert "c3r.lambda_n = 3.0" in markdown


def test_everything_is_escaped(runs, tmp_path):
    evil = "<script>alert('x')</script>&\"|"
    for run in runs:
        run["method"] += evil
        run["dataset"] = evil
        run["warnings"] = [evil]
        run["class_names"] = [evil]
        run["per_class"]["representation"] = {evil: {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}}
        run["first_stage"] = {evil: run["first_stage"]["image"]}
        run["config"] = {evil: evil}
        run["versions"] = {evil: evil}
        run["conditions"][1]["modalities"] = [evil]
    page = write_report(runs, tmp_path, command=evil, title=evil)["html"].read_text(encoding="utf-8")
    assert "<script" not in page
    assert "alert(&#x27;x&#x27;)" in page
    assert "script" not in {tag for tag, _ in _parse(page).seen}


def test_one_method_one_seed_without_optional_parts(run, tmp_path):
    for key in (
        "examples",
        "risk",
        "first_stage",
        "per_class",
        "worst_class",
        "reliability",
        "warnings",
        "versions",
        "config",
    ):
        del run[key]
    for condition in run["conditions"]:
        del condition["routes"]["instrument"]
    page = write_report([run], tmp_path)["html"].read_text(encoding="utf-8")
    _parse(page)
    assert "python eval.py --workdir runs/x" in page
    assert "<h2>Risks</h2>" not in page and "<h2>Both prediction routes</h2>" not in page


def test_nan_is_shown_as_n_a(run):
    run["risk"] = dict.fromkeys(run["risk"], float("nan")) | {"intervals": {}, "chance": 0.3}
    run["first_stage"]["image"]["f_median"] = None
    page = report_html(assemble([run]))
    markdown = run_markdown(run)
    for text in (page, markdown):
        assert "n/a" in text and not re.search(r"\bnan\b|None<", text)


def test_table_scrolls_and_keeps_its_notes():
    text = html_table(Table(("a", "b"), (("x", "1"),), frozenset({(0, 1)}), ("a note & more",)), "a <label>")
    assert '<div class="scroll" role="region" tabindex="0" aria-label="a &lt;label&gt;">' in text
    assert "<td><strong>1</strong></td>" in text and "a note &amp; more" in text


def test_markdown_has_the_risks_of_several_runs_of_one_method(runs):
    own = [run for run in runs if run["method"] == "dropout"]
    text, single = (results_markdown(assemble(found)) for found in (own, own[:1]))
    assert "\n## Risks\n" in text and "| sufficiency risk R_S | 0.190 ± 0.010 |" in text
    assert "\n## Risks\n" not in single and "\n### Risks\n" in single


def test_run_markdown_reads_alone(run):
    text = run_markdown(run)
    assert text.startswith("# One run: c3r+dropout, seed 0\n")
    assert "| sufficiency risk R_S | 0.180 \\[0.140, 0.220] |" in text
    assert "weak instrument" in text and "modelling assumption" in text
    assert "- first stage of text is weak (F 3.2 \\< 10)" in text
