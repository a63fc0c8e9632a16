"""The model card of an exported model: use, data, scores and limits."""

import json
from collections.abc import Mapping
from typing import Any

from c3r_jax.report.aggregate import Run
from c3r_jax.report.cells import escape_markdown, number
from c3r_jax.report.interpretation import ASSUMPTION, NOT_A_REPRODUCTION, read_risks
from c3r_jax.report.tables import conditions_table, first_stage_table, risks_table

USE = """```python
import runpy

model = runpy.run_path("load.py")["load"](".")  # needs only jax, numpy, safetensors{TOKENIZERS} and flatbuffers
# logits = model.predict([{EXAMPLE}])["representation"]  # (1, {OUTPUTS}); leave out a modality that is missing
```"""


def model_card(signature: Mapping[str, Any], details: Mapping[str, Any], results: Run | None) -> str:
    """The card as Markdown.

    Args:
      signature: the export's task, labels, inputs and outputs.
      details: "dataset", "split_sizes", "sha256", "method", "seed", "step", "selected_by", "difference" (largest, to
        the model's predictions), "rows" (number compared), "config".
      results: content of the run's results.json; None if it was not evaluated.

    Returns:
      Markdown with everything a user needs to know.
    """
    labels = signature["labels"]
    example = ", ".join(f'"{name}": ...' for name in signature["inputs"])
    more = ", tokenizers" if any(spec.get("tokenizer") for spec in signature["inputs"].values()) else ""
    use = USE.replace("{TOKENIZERS}", more).replace("EXAMPLE", example).replace("{OUTPUTS}", str(max(1, len(labels))))
    sizes = ", ".join(f"{count:,} {split}" for split, count in details["split_sizes"].items())
    sha = f", SHA-256 {details['sha256']}" if details["sha256"] else ""
    inputs = "\n".join(
        f"| {escape_markdown(name)} | {spec['kind']} | {spec['dtype']} {tuple(spec['shape'])} | {_values(spec)} |"
        for name, spec in signature["inputs"].items()
    )
    parts = [
        f"# {escape_markdown(details['dataset'])}, {escape_markdown(details['method'])}",
        f"A {signature['task']} model of {' and '.join(map(escape_markdown, signature['inputs']))}, trained by c3r_jax "
        f"(method {details['method']}, seed {details['seed']}, step {details['step']}, "
        f"chosen by {details['selected_by']}).",
        "## Use",
        use,
        "| input | kind | one example | values |\n|---|---|---|---|\n" + inputs,
        f"Outputs: logits by route, {' and '.join(signature['outputs'])}. The first predicts through the fused "
        "representation z, the second through z_c, the part of it that the other modalities predict. "
        f"`model.stablehlo` runs on {', '.join(signature['platforms'])} with any batch size (jax.export, made with jax "
        f"{signature['jax']}); `weights.safetensors` has the weights, `signature.json` inputs and labels. On "
        f"{details['rows']} rows, some with modalities missing, it differs from the model by at most "
        f"{details['difference']:.1e}.",
        "Labels: " + ", ".join(map(escape_markdown, labels)) + "." if labels else "",
        "## Data",
        f"{escape_markdown(details['dataset'])}: {sizes}{sha}.",
        *_scores(results),
        "## Limits",
        f"{ASSUMPTION} {NOT_A_REPRODUCTION} The scores hold for data like the data above; for other "
        "data nothing is known. A prediction is not an explanation: `c3r report explain` shows which modality it uses.",
        "## Settings",
        "<details><summary>configuration</summary>",
        f"```json\n{json.dumps(details['config'], indent=1)}\n```",
        "</details>",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _values(spec: Mapping[str, Any]) -> str:
    """The values that an input may have."""
    values = f"0 to {spec['limit'] - 1}" if spec["limit"] else "any finite number"
    text = {"bytes": "or a str", "": ""}.get(spec["tokens"], f"a str or: {spec['tokens']}")
    columns = f"; {', '.join(map(escape_markdown, spec['columns']))}" if spec.get("columns") else ""
    return values + (f", {text}" if text else "") + columns


def _scores(results: Run | None) -> list[str]:
    if results is None:
        return ["## Scores", "The model was not evaluated before its export: run `c3r eval`, then `c3r export` again."]
    metric = results["metric"]
    summaries = [
        f"{route}: mean {metric} {number(summary[f'mean_{metric}'])}, worst {number(summary[f'worst_{metric}'])} "
        f"({summary['worst_condition']})"
        for route, summary in results["summary"].items()
    ]
    parts = [
        f"## Scores on {results['num_examples']} {results['split']} examples",
        escape_markdown("; ".join(summaries) + "."),
        conditions_table(results).to_markdown(),
        risks_table([results]).to_markdown() if results.get("risk") else "",
        *map(escape_markdown, read_risks(results)),
        first_stage_table(results).to_markdown() if results.get("first_stage") else "",
    ]
    if results.get("warnings"):
        parts.append("Warnings:\n\n" + "\n".join(f"- {escape_markdown(str(text))}" for text in results["warnings"]))
    return parts
