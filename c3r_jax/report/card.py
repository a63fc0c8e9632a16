"""The model card of an exported model: what it is, how it was measured, what it is not for."""

import json
from collections.abc import Mapping
from typing import Any

from c3r_jax.report.stats import Run
from c3r_jax.report.tables import conditions_table, escape_markdown, first_stage_table, number, risks_table
from c3r_jax.report.words import ASSUMPTION, NOT_A_REPRODUCTION, read_risks

USE = """```python
import runpy

model = runpy.run_path("load.py")["load"](".")  # needs jax, numpy, safetensors and flatbuffers alone
# logits = model.predict([{EXAMPLE}])["representation"]  # (1, {OUTPUTS}); leave out a modality that is missing
```"""


def model_card(signature: Mapping[str, Any], facts: Mapping[str, Any], results: Run | None) -> str:
    """The card as Markdown.

    Args:
      signature: of the export: task, labels, inputs, outputs.
      facts: "dataset", "split_sizes", "sha256", "method", "seed", "step", "selected_by", "difference" (to the model's
        own predictions), "rows" (that were compared), "config".
      results: the run's results.json, where it was evaluated.

    Returns:
      Markdown with everything a user needs to know.
    """
    labels = signature["labels"]
    example = ", ".join(f'"{name}": ...' for name in signature["inputs"])
    use = USE.replace("EXAMPLE", example).replace("{OUTPUTS}", str(max(1, len(labels))))
    sizes = ", ".join(f"{count:,} {split}" for split, count in facts["split_sizes"].items())
    sha = f", SHA-256 {facts['sha256']}" if facts["sha256"] else ""
    inputs = "\n".join(
        f"| {escape_markdown(name)} | {one['kind']} | {one['dtype']} {tuple(one['shape'])} | {_values(one)} |"
        for name, one in signature["inputs"].items()
    )
    parts = [
        f"# {escape_markdown(facts['dataset'])}, {escape_markdown(facts['method'])}",
        f"A {signature['task']} model of {' and '.join(map(escape_markdown, signature['inputs']))}, trained by c3r_jax "
        f"(method {facts['method']}, seed {facts['seed']}, step {facts['step']}, chosen by {facts['selected_by']}).",
        "## Use",
        use,
        "| input | kind | one example | values |\n|---|---|---|---|\n" + inputs,
        f"Outputs: logits by route, {' and '.join(signature['outputs'])}. The first predicts through the fused "
        "representation z, the second through z_c, the part of it that the other modalities explain. "
        f"`model.stablehlo` runs on {', '.join(signature['platforms'])} with any batch size (jax.export, made with jax "
        f"{signature['jax']}); `weights.safetensors` has the weights, `signature.json` inputs and labels. On "
        f"{facts['rows']} rows, some with modalities missing, it differs from the model by at most "
        f"{facts['difference']:.1e}.",
        "Labels: " + ", ".join(map(escape_markdown, labels)) + "." if labels else "",
        "## Data",
        f"{escape_markdown(facts['dataset'])}: {sizes}{sha}.",
        *_measured(results),
        "## Limits",
        f"{ASSUMPTION} {NOT_A_REPRODUCTION} Scores hold for data like those it was measured on; nothing is known about "
        "others. A prediction is no reason: `c3r report explain` says which modality it rests on.",
        "## Settings",
        "<details><summary>configuration</summary>",
        f"```json\n{json.dumps(facts['config'], indent=1)}\n```",
        "</details>",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _values(one: Mapping[str, Any]) -> str:
    inside = f"0 to {one['limit'] - 1}" if one["limit"] else "any finite number"
    how = {"bytes": "or a str", "": ""}.get(one["tokens"], one["tokens"])
    return inside + (f", {how}" if how else "")


def _measured(results: Run | None) -> list[str]:
    if results is None:
        return ["## Scores", "It was not evaluated before it was exported: `c3r eval`, then `c3r export` again."]
    metric = results["metric"]
    said = [
        f"{route}: mean {metric} {number(summary[f'mean_{metric}'])}, worst {number(summary[f'worst_{metric}'])} "
        f"({summary['worst_condition']})"
        for route, summary in results["summary"].items()
    ]
    parts = [
        f"## Scores on {results['num_examples']} {results['split']} examples",
        escape_markdown("; ".join(said) + "."),
        conditions_table(results).to_markdown(),
        risks_table([results]).to_markdown() if results.get("risk") else "",
        *map(escape_markdown, read_risks(results)),
        first_stage_table(results).to_markdown() if results.get("first_stage") else "",
    ]
    if results.get("warnings"):
        parts.append("Warnings:\n\n" + "\n".join(f"- {escape_markdown(str(text))}" for text in results["warnings"]))
    return parts
