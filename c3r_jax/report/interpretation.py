"""Interpretation of results in plain sentences, with their limits."""

import functools
import math
from collections.abc import Sequence
from typing import Any

from c3r_jax.metrics.intervals import Difference
from c3r_jax.metrics.scores import score_of
from c3r_jax.report.aggregate import Aggregate, Run, compare, ranking
from c3r_jax.report.cells import ROUTE_NAMES, metric_stat, metric_value, number, span
from c3r_jax.tasks.classification import CLASSIFICATION
from c3r_jax.tasks.registry import TASKS

ASSUMPTION = (
    "The instrument is a modelling assumption: what is specific to one modality is taken to be independent of what is "
    "specific to the others. The diagnostics below can speak against it; none of them can prove it."
)
NOT_A_REPRODUCTION = (
    "This is not a reproduction of the paper that C3R comes from: no result table of it was available to compare with."
)


def what_it_means(aggregated: Aggregate, *, baseline: str | None = None, route: str = "representation") -> list[str]:
    """Paragraphs about the best methods on average and in the worst condition: gain, cost on clean data, certainty.

    Args:
      aggregated: result of :func:`c3r_jax.report.aggregate`.
      baseline: method that gains and clean costs are computed against; the first method if not given.
      route: prediction route to interpret.
    """
    measured = [m for m in aggregated.methods if aggregated.stat(m, "mean", route=route)]
    if not measured:
        return [f"No run has finite values for the route {ROUTE_NAMES[route]}."]
    if baseline is not None and baseline not in aggregated.methods:
        raise ValueError(f"baseline is {baseline!r}: expected one of {', '.join(aggregated.methods)}.")
    baseline = baseline if baseline in measured else measured[0]
    conditions = sum(c.group != "summary" for c in aggregated.columns)
    if len(measured) == 1:
        only = measured[0]
        return [
            f"Only one method was run, {only}: mean over {conditions} conditions "
            f"{score_text(aggregated, only, 'mean', route)}, worst condition "
            f"{score_text(aggregated, only, 'worst', route)}. "
            "Nothing here compares it with another method.",
            _caveats(aggregated, measured, route),
        ]
    best = ranking(aggregated, "mean", route=route)[0]
    paragraphs = [
        _lead(aggregated, "mean", f"Averaged over {conditions} conditions", route),
        _lead(aggregated, "worst", "In its worst condition", route),
    ]
    if best != baseline:
        parts = []
        for column, place in (("mean", "on the mean"), ("worst", "in the worst condition")):
            gap = compare(aggregated, best, baseline, column=column, route=route)
            if gap is not None:
                parts.append(f"{place} {_gap(aggregated, gap)}")
        if parts and baseline != ranking(aggregated, "mean", route=route)[1]:
            paragraphs.append(f"{best} against the baseline {baseline}: {'; '.join(parts)}.")
        paragraphs.append(_clean_cost(aggregated, best, baseline, route))
    paragraphs.append(_caveats(aggregated, measured, route))
    return [p for p in paragraphs if p]


def read_risks(run: Run) -> list[str]:
    """Sentences about the risks of one run."""
    risk = run.get("risk") or {}
    if not risk:
        return []
    chance, necessity, sufficiency = (_finite(risk.get(k)) for k in ("chance", "necessity", "sufficiency"))
    probe, label = _finite(risk.get("probe_accuracy")), _finite(risk.get("label_probability"))
    task = TASKS.get(str(run.get("task")), CLASSIFICATION)  # results of before there were tasks are of classes
    said = [
        f"Sufficiency risk {_with_interval(risk, 'sufficiency')}: the share of {task.unit} that the causal part "
        f"alone gets wrong{task.wrong_means}. Necessity risk {_with_interval(risk, 'necessity')}: the share whose "
        f"label is still predicted after the causal part is removed"
        + (f"; guessing predicts {number(chance)}." if chance is not None else ".")
    ]
    if sufficiency is not None and necessity is not None:
        lower, upper = number(risk.get("lower")), number(risk.get("upper"))
        place = f"{'is' if lower == upper else 'lies between'} {span(lower, upper, joined='and')}"
        bounds = f"The probability that the causal part is necessary and sufficient {place}"
        joint = (
            f"; for this predictor, counted directly, it is {number(risk['joint'])}"
            if _finite(risk.get("joint")) is not None
            else ""
        )
        over = (
            " The two risks add up to more than 1, so the lower bound says nothing."
            if sufficiency + necessity > 1
            else ""
        )
        said.append(f"{bounds}{joint}.{over}")
    if chance is not None and probe is not None:
        if probe > 1.25 * chance:
            code = (
                " although the model's own head gives it a low probability"
                if label is not None and label < chance
                else ""
            )
            said.append(
                f"A fresh linear probe still reads the label from the rest with accuracy {number(probe)} (chance "
                f"{number(chance)}){code}: a small necessity risk does not mean here that the rest is uninformative."
            )
        else:
            said.append(
                f"A fresh linear probe reads the label from the rest with accuracy {number(probe)}, close to or "
                f"below chance ({number(chance)}); a stronger probe might find more."
            )
    return said


def read_first_stage(run: Run) -> list[str]:
    """Sentences about the first-stage diagnostics of one run: strength, the J test, and shared errors."""
    said = []
    for name, v in (run.get("first_stage") or {}).items():
        f = _finite(v.get("f_median"))
        which = "rows, leave-one-out," if v.get("leave_one_out") else "held-out rows"
        rows = f"{which} {number(v.get('n'), digits=0)}, instruments {number(v.get('p'), digits=0)}"
        if f is None:
            strength = "its F statistic could not be computed, so its strength is unknown"
        elif v.get("weak", f < 10):
            strength = (
                f"median F {number(f, digits=1)} is below 10, a weak instrument: the fitted part is largely noise"
            )
        else:
            strength = f"median F {number(f, digits=1)} is not below 10, so the instrument does not count as weak"
        said.append(f"{name}: the other modalities explain R² {number(v.get('r2_mean'))} of it ({rows}); {strength}.")
        over = v.get("over_identification")
        p_value = _finite(over.get("p_value")) if over else None
        if p_value is None:
            said[-1] += " No over-identification test could be made."
        elif p_value < 0.05:
            said[-1] += (
                f" The J test (p {number(p_value)}) speaks against the assumption that the other modalities act on the "
                f"label only through {name}. That is expected wherever they carry causes of their own."
            )
        else:
            said[-1] += (
                f" The J test (p {number(p_value)}) finds nothing against the assumption; that is no proof of it."
            )
        said[-1] += _shared_errors(name, v.get("exclusion"))
    return said


def _shared_errors(name: str, shared: Any) -> str:
    """A sentence about the exclusion test; "" where there is none, as in older results."""
    rho, low, high = (_finite((shared or {}).get(key)) for key in ("rho", "low", "high"))
    if rho is None or low is None or high is None:
        return ""
    if low <= 0 <= high:
        meaning = "nothing shows that they do, as the instrument assumes"
    elif rho > 0:
        meaning = "the larger it is, the more a cue or a difficulty that they share misleads them together"
    else:
        meaning = "where one is misled, the others are less so"
    return (
        f" Whether {name} and the other modalities err on the same examples of a class: ρ {number(rho)} "
        f"({span(number(low), number(high))}); {meaning}. This is evidence, and no proof."
    )


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(float(value)) else None


def _with_interval(risk: Any, key: str) -> str:
    interval = (risk.get("intervals") or {}).get(key)
    return number(risk.get(key)) + (f" (interval {span(*map(number, interval))})" if interval else "")


def _unit(aggregated: Aggregate) -> str:
    return " %" if score_of(aggregated.metric).percent else ""


def score_text(aggregated: Aggregate, method: str, column: str, route: str) -> str:
    """A method's score in one column with its unit: "81.3 ± 0.6 %"."""
    return metric_stat(aggregated.stat(method, column, route=route), aggregated.metric) + _unit(aggregated)


def signed_text(value: float, metric: str) -> str:
    """A difference of scores with its sign: "+2.2"."""
    shown = metric_value(value, metric)
    return f"+{shown}" if math.isfinite(value) and float(shown) > 0 else shown


def _gap(aggregated: Aggregate, gap: Difference) -> str:
    points = " points" if score_of(aggregated.metric).percent else ""
    signed = functools.partial(signed_text, metric=aggregated.metric)
    if gap.n < 2:
        return f"{signed(gap.mean)}{points} (one shared seed: no interval)"
    interval = span(signed(gap.lower), signed(gap.upper))
    shown = f"{signed(gap.mean)}{points} (95 % interval {interval}, {gap.n} shared seeds)"
    return shown + (", which includes 0" if gap.lower <= 0 <= gap.upper else "")


def _lead(aggregated: Aggregate, column: str, opening: str, route: str) -> str:
    """The best method of a column, and whether its difference to the second is significant."""
    order = ranking(aggregated, column, route=route)
    first, second = order[0], order[1]
    score = f"{score_of(aggregated.metric).name} {score_text(aggregated, first, column, route)}"
    text = f"{opening}, {first} comes first ({score}), then {second} ({score_text(aggregated, second, column, route)})."
    gap = compare(aggregated, first, second, column=column, route=route)
    if gap is None:
        return f"{text} They share no seed, so the difference has no paired interval."
    text += f" Paired difference {_gap(aggregated, gap)}."
    if gap.n < 2:
        return f"{text} Take this as one observation, not as a finding."
    if gap.lower <= 0 <= gap.upper:
        return f"{text} These seeds do not distinguish the two."
    return text if gap.n >= 3 else f"{text} Two seeds are too few to rely on."


def _clean_cost(aggregated: Aggregate, best: str, baseline: str, route: str) -> str:
    clean = next((c.name for c in aggregated.columns if c.group == "clean"), None)
    gap = compare(aggregated, best, baseline, column=clean, route=route) if clean else None
    if gap is None:
        return ""
    opening = f"On clean data with all modalities, {best} against {baseline}: {_gap(aggregated, gap)}"
    if gap.n >= 2 and gap.lower <= 0 <= gap.upper:
        return f"{opening}: neither a cost nor a gain is shown."
    return f"{opening}. That is {'a gain' if aggregated.sign * gap.mean > 0 else 'what it costs'} on these seeds."


def _caveats(aggregated: Aggregate, measured: Sequence[str], route: str) -> str:
    counts = [s.n for m in measured if (s := aggregated.stat(m, "mean", route=route))]
    seeds = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    said = [f"Read with care: {seeds} seed{'' if seeds == '1' else 's'} per method"]
    said[0] += ", too few for a firm conclusion." if min(counts) < 5 else "."
    if max(counts) > 1:
        said.append(
            f"The intervals cover the randomness of training only, on one fixed set of {aggregated.num_examples} "
            "examples, and are not corrected for looking at several conditions."
        )
    said.append(f"This is one data set ({aggregated.dataset}); other data may order the methods differently.")
    said.append(NOT_A_REPRODUCTION)
    return " ".join(said)
