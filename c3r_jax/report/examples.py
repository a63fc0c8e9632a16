"""Explanations of single examples, as sentences and HTML: prediction, effect of each modality, counterfactual.

A record is a result of ``c3r_jax.evaluation.examples``; "examples" of results.json has some.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from c3r_jax.report.cells import escape_markdown, number, span

Record = Mapping[str, Any]
READING = (
    "“without” replaces a modality's representation by its mean over the training set, “alone” does so for all others. "
    "A modality is necessary if the prediction changes without it, and enough if it gives the same prediction alone. "
    "Both are statements about this model, not about the world."
)
RISKS = {
    "sufficiency": "Largest sufficiency risk: the causal part alone does not predict the label",
    "necessity": "Largest necessity risk: the label is still predicted without the causal part",
}


def cases(record: Record) -> list[tuple[str, Mapping[str, Any]]]:
    """The cases of an example and the model's predictions, in the order of display."""
    predictions = [("as it is", record["predictions"]["representation"])]
    for name, modality in record["modalities"].items():
        if modality["present"]:
            predictions += [(f"without {name}", modality["without"]), (f"{name} alone", modality["alone"])]
    predictions.append(("causal part z_c", record["predictions"]["instrument"]))
    predictions.append(("hypothetical world", record["predictions"]["counterfactual"]))
    return predictions


def explain(record: Record) -> list[str]:
    """Sentences about the prediction, the modalities and both worlds.

    Args:
      record: record of one example.
    """
    now, label = record["predictions"]["representation"], record["label"]
    correct = now["class"] == label
    sentences = [
        f"Predicted: {_prediction(now)}, which is correct."
        if correct
        else f"Predicted: {_prediction(now)}, which is incorrect; the label is {label} ({_label(now)})."
    ]
    sentences += [_modality(name, modality, now["class"]) for name, modality in record["modalities"].items()]
    causal, hypothetical = record["predictions"]["instrument"], record["predictions"]["counterfactual"]
    sufficiency, necessity = (number(record["risk"][risk], digits=2) for risk in RISKS)
    sentences.append(
        f"The causal part z_c, which the other modalities predict, gives the label {label} a probability of "
        f"{_label(causal)} and predicts {_prediction(causal)}: sufficiency risk {sufficiency}."
    )
    verb = "stays" if hypothetical["class"] == now["class"] else "becomes"
    before, after = _label(now), _label(hypothetical)
    moved = f"stays {span(before, after)}" if before == after else f"goes from {before} to {after}"
    sentences.append(
        f"In the hypothetical world, without what the causal part says of the label, the probability of {label} "
        f"{moved}, and the prediction {verb} {_prediction(hypothetical)}: necessity risk {necessity}."
    )
    return sentences


def _prediction(case: Mapping[str, Any]) -> str:
    return f"{case['class']} ({number(case['probability'], digits=2)})"


def _label(case: Mapping[str, Any]) -> str:
    return number(case["label_probability"], digits=2)


def _modality(name: str, modality: Mapping[str, Any], predicted: str) -> str:
    if not modality["present"]:
        return f"{name}: this example has none."
    necessary = "necessary" if modality["necessary"] else "not necessary"
    joined = "and" if modality["necessary"] == modality["sufficient"] else "but"
    enough = "enough alone" if modality["sufficient"] else "not enough alone"
    without, alone = modality["without"], modality["alone"]
    verb = "becomes" if modality["necessary"] else "stays"
    same = "the same, " if alone["class"] == predicted else ""
    return (
        f"{name} is {necessary} {joined} {enough}: without it the prediction {verb} {_prediction(without)}; alone it "
        f"gives {same}{_prediction(alone)}."
    )


def example_title(record: Record) -> str:
    """Number, text and label of an example."""
    texts = [value["text"] for value in record["inputs"].values() if "text" in value]
    return f"Example {record['index']}" + (f" “{texts[0][:80]}”" if texts else "") + f", label {record['label']}"


def example_html(record: Record) -> str:
    """One example as HTML: the inputs, bars for each case, and the sentences. All text is escaped."""
    shown = []
    for name, value in record["inputs"].items():
        if "png" in value:
            shown.append(f'<img class="input" src="data:image/png;base64,{value["png"]}" alt="{escape(name)}">')
        else:
            shape = f" {tuple(value['shape'])}" if "shape" in value else ""
            shown.append(f'<p class="note">{escape(name)}: {escape(value.get("text") or value["kind"] + shape)}</p>')
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(case["class"])}</td><td>{_bar(case["probability"])}</td>'
        f"<td>{_bar(case['label_probability'])}</td></tr>"
        for name, case in cases(record)
    )
    title = escape(example_title(record))
    columns = ("case", "predicted", "its probability", "probability of the label")
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
    """The examples of a run as HTML, by risk."""
    return "".join(
        f"<h3>{escape(RISKS.get(risk, risk))}</h3>{''.join(map(example_html, records))}"
        for risk, records in examples.items()
        if records
    )


def examples_markdown(examples: Mapping[str, Sequence[Record]], heading: str) -> list[str]:
    """The examples of a run as parts of a Markdown file, by risk."""
    parts = []
    for risk, records in examples.items():
        if records:
            parts.append(f"{heading} {RISKS.get(risk, risk)}")
            for record in records:
                parts.append(escape_markdown(f"{example_title(record)}. {' '.join(explain(record))}"))
    return [escape_markdown(READING), *parts] if parts else []
