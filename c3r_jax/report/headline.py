"""The first thing that a report says: who is ahead, by how much, on the mean and in the worst condition."""

from c3r_jax.metrics.scores import score_of
from c3r_jax.report.aggregate import SUMMARY_COLUMNS, Aggregate, compare, ranking
from c3r_jax.report.cells import ROUTE_NAMES
from c3r_jax.report.interpretation import score_text, signed_text

PLACES = {"mean": "on the mean", "worst": "in the worst condition"}


def headline(aggregated: Aggregate, *, route: str = "representation") -> str:
    """What was compared, who is ahead and by how much, on the mean over conditions and in the worst one.

    A lead is called one only where its paired t interval over at least three shared seeds excludes 0.

    Args:
      aggregated: result of :func:`c3r_jax.report.aggregate`.
      route: prediction route of the scores.
    """
    measured = measured_methods(aggregated, route)
    name, conditions = score_of(aggregated.metric).name, num_conditions(aggregated)
    over = f"{conditions} conditions" if conditions > 1 else "one condition"
    where = f"{aggregated.num_examples} {aggregated.split} examples of {aggregated.dataset}"
    if not measured:
        return f"No run has a finite {name} through the {ROUTE_NAMES[route]} on {where}."
    if len(measured) == 1:
        only = measured[0]
        values = [f"{score_text(aggregated, only, column, route)} {place}" for column, place in PLACES.items()]
        return f"{only} on {where}, {over}: {name} {' and '.join(values)}. It is compared with no other method."
    if len({_conditions_of(aggregated, method, route) for method in measured}) > 1:
        return (
            f"{len(measured)} methods on {where}, which were not evaluated under the same conditions: means and worst "
            "conditions do not compare them. Evaluate all in the same way, or compare column by column below."
        )
    leads = [f"{_lead(aggregated, column, route)}." for column in PLACES]
    return f"{len(measured)} methods on {where}, {over}. {' '.join(leads)}"


def _conditions_of(aggregated: Aggregate, method: str, route: str) -> frozenset[str]:
    """The conditions in which a method was evaluated."""
    return frozenset(aggregated.values.get((method, route), {})) - set(SUMMARY_COLUMNS)


def _lead(aggregated: Aggregate, column: str, route: str) -> str:
    """The best method of a summary column, and its difference to the next."""
    first, second = ranking(aggregated, column, route=route)[:2]
    name, value = score_of(aggregated.metric).name, score_text(aggregated, first, column, route)
    gap = compare(aggregated, first, second, column=column, route=route)
    place = PLACES[column][0].upper() + PLACES[column][1:]
    if gap is None:
        return f"{place}, {first} has the best {name}, {value}; it shares no seed with the next, {second}"
    points = " points" if score_of(aggregated.metric).percent else ""
    by = f"{signed_text(gap.mean, aggregated.metric)}{points}"
    if gap.decided and aggregated.sign * gap.mean > 0:
        return f"{place}, {first} is ahead: {name} {value}, {by} against the next, {second}"
    if aggregated.sign * gap.mean < 0:  # the means are over different seeds
        return (
            f"{place}, {first} has the best {name} over its own seeds, {value}; on the seeds that it shares with "
            f"{second} the order is the other way ({by})"
        )
    undecided = f"these seeds do not decide between it and {second} ({by})"
    return f"{place}, {first} has the best {name}, {value}; {undecided}"


def measured_methods(aggregated: Aggregate, route: str) -> list[str]:
    """The methods with a finite score on a route, in order of first appearance."""
    return [method for method in aggregated.methods if aggregated.stat(method, "mean", route=route)]


def num_conditions(aggregated: Aggregate) -> int:
    """How many conditions the mean and the worst are over."""
    return sum(column.group != "summary" for column in aggregated.columns)
