"""One example in plain words and as HTML: the prediction, what it rests on, what the counterfactual changed.

A record is what ``c3r_jax.evaluation.examples`` makes; "examples" of results.json has some.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from c3r_jax.report.tables import escape_markdown, number

Record = Mapping[str, Any]
READING = (
    "“without” puts a modality's representation at its mean over the training set, “alone” leaves no other: a modality "
    "is necessary if the prediction changes without it, and enough if it gives the same prediction alone. Both are "
    "about this model, not about the world."
)
RISKS = {
    "sufficiency": "Largest sufficiency risk: the causal part alone does not tell the label",
    "necessity": "Largest necessity risk: the label is told although the causal part is gone",
}


def cases(record: Record) -> list[tuple[str, Mapping[str, Any]]]:
    """What was asked of the model, and its answer, in the order in which they are shown."""
    found = [("as it is", record["predictions"]["representation"])]
    for name, one in record["modalities"].items():
        if one["present"]:
            found += [(f"without {name}", one["without"]), (f"{name} alone", one["alone"])]
    found.append(("causal part z_c", record["predictions"]["instrument"]))
    found.append(("hypothetical world", record["predictions"]["counterfactual"]))
    return found


def explain(record: Record) -> list[str]:
    """Plain sentences: prediction, modalities, both worlds.

    Args:
      record: of one example.
    """
    now, label = record["predictions"]["representation"], record["label"]
    right = now["class"] == label
    said = [
        f"Predicted: {_told(now)}, which is right."
        if right
        else f"Predicted: {_told(now)}, which is wrong; the label is {label} ({_label(now)})."
    ]
    said += [_modality(name, one, now["class"]) for name, one in record["modalities"].items()]
    causal, left = record["predictions"]["instrument"], record["predictions"]["counterfactual"]
    sufficiency, necessity = (number(record["risk"][risk], digits=2) for risk in RISKS)
    said.append(
        f"The causal part z_c, which the other modalities explain, gives the label {label} a probability of "
        f"{_label(causal)} and predicts {_told(causal)}: sufficiency risk {sufficiency}."
    )
    after = "stays" if left["class"] == now["class"] else "becomes"
    said.append(
        f"In the hypothetical world, where the causal part no longer favours the label, the probability of {label} "
        f"goes from {_label(now)} to {_label(left)}, and the prediction {after} {_told(left)}: "
        f"necessity risk {necessity}."
    )
    return said


def _told(one: Mapping[str, Any]) -> str:
    return f"{one['class']} ({number(one['probability'], digits=2)})"


def _label(one: Mapping[str, Any]) -> str:
    return number(one["label_probability"], digits=2)


def _modality(name: str, one: Mapping[str, Any], predicted: str) -> str:
    if not one["present"]:
        return f"{name}: this example has none."
    necessary = "necessary" if one["necessary"] else "not necessary"
    joined = "and" if one["necessary"] == one["sufficient"] else "but"
    enough = "enough alone" if one["sufficient"] else "not enough alone"
    without = one["without"]
    changed = "becomes" if one["necessary"] else "stays"
    same = "the same, " if one["alone"]["class"] == predicted else ""
    return (
        f"{name} is {necessary} {joined} {enough}: without it the prediction {changed} {_told(without)}; alone it "
        f"gives {same}{_told(one['alone'])}."
    )


def example_title(record: Record) -> str:
    """Number, text and label of an example."""
    texts = [one["text"] for one in record["inputs"].values() if "text" in one]
    return f"Example {record['index']}" + (f" “{texts[0][:80]}”" if texts else "") + f", label {record['label']}"


def example_html(record: Record) -> str:
    """A card: the inputs, a bar for each case, the sentences. All text is escaped."""
    shown = []
    for name, one in record["inputs"].items():
        if "png" in one:
            shown.append(f'<img class="input" src="data:image/png;base64,{one["png"]}" alt="{escape(name)}">')
        else:
            words = one.get("text") or (f"{one['kind']} {tuple(one['shape'])}" if "shape" in one else one["kind"])
            shown.append(f'<p class="note">{escape(name)}: {escape(words)}</p>')
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(one["class"])}</td><td>{_bar(one["probability"])}</td>'
        f"<td>{_bar(one['label_probability'])}</td></tr>"
        for name, one in cases(record)
    )
    title = escape(example_title(record))
    columns = ("asked", "predicted", "its probability", "probability of the label")
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    return (
        f'<article class="example"><h4>{title}</h4><div class="inputs">{"".join(shown)}</div>'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{title}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in explain(record))}</ul></article>"
    )


def _bar(share: float) -> str:
    width = round(100 * min(max(share, 0.0), 1.0))
    return f'<span class="bar"><span style="width:{width}%"></span></span> {number(share, digits=2)}'


def examples_html(examples: Mapping[str, Sequence[Record]]) -> str:
    """The cards of a run's examples, by risk."""
    return "".join(
        f"<h3>{escape(RISKS.get(risk, risk))}</h3>{''.join(map(example_html, records))}"
        for risk, records in examples.items()
        if records
    )


def examples_markdown(examples: Mapping[str, Sequence[Record]], heading: str) -> list[str]:
    """The same in words: the parts of a Markdown file."""
    parts = []
    for risk, records in examples.items():
        if records:
            parts.append(f"{heading} {RISKS.get(risk, risk)}")
            for record in records:
                parts.append(escape_markdown(f"{example_title(record)}. {' '.join(explain(record))}"))
    return [escape_markdown(READING), *parts] if parts else []
