"""Every recorded set in one table: plain training, the best rival, C3R, and C3R with its best partner.

A page has ``<!-- summary: {...} -->`` and ``<!-- end -->`` around the table, with ``"show": "goals"`` around what it
says of the goals, or with ``"show": "costs"`` and ``"records": [names]`` around what these took. Best rival and best
pair are those of the test itself: the choice favours whoever is chosen from many, which C3R alone is not.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from c3r_jax.metrics.intervals import Difference, t_interval
from c3r_jax.results.markdown import values_at
from c3r_jax.results.record import Record, cost_line

BLOCK = re.compile(r"(<!-- summary: (?P<spec>\{.*?\}) -->\n)(?P<body>.*?)(?=<!-- end -->)", re.DOTALL)
COST = 0.5  # points that C3R may lose in distribution
SHARE = 2 / 3  # of the sets under shift on which it should be above the best rival


class Rows(NamedTuple):
    """How the rows of a record are called.

    Attributes:
      plain, c3r: plain training, and C3R.
      pair: name of a rival with C3R, with {} for the rival's; "": there are none.
      versions: rows that are neither a rival nor a pair.
    """

    plain: str
    c3r: str
    pair: str
    versions: tuple[str, ...] = ()

    def rivals(self, names: Sequence[str]) -> list[str]:
        """The rivals among a table's rows."""
        pairs = {self.pair.format(name) for name in names} if self.pair else set()
        return [name for name in names if name not in {self.plain, self.c3r, *self.versions} | pairs]


class Place(NamedTuple):
    """A set and a score of it; ``column`` may be a list, of which the mean is taken."""

    record: str
    table: str
    column: str | list[str]


class Line(NamedTuple):
    """A line of the summary.

    Attributes:
      shifted: whether its test rows are drawn in another way than the training rows.
      worst: whether the score is that of the worst condition.
      place: where C3R and plain training are.
      rivals: where rivals and pairs are; None: there, too.
    """

    shifted: bool
    worst: bool
    place: Place
    rivals: Place | None = None


MAKERS = ("twitter", "apple", "facebook")
OTHERS, OTHERS_WORST = ([f"{score}, {maker}" for maker in MAKERS] for score in ("accuracy", "worst subset"))
ROWS = {
    "shift": Rows("plain", "c3r", "", ("c3r, strong", "c3r, hinge")),
    "safety": Rows("plain", "c3r", "", ("c3r, strong", "c3r, hinge")),
    "shift_rivals": Rows("plain", "c3r", "{} + c3r"),
    "rivals": Rows("mean", "mean + C3R", "{} + C3R", ("C3R, first version",)),
    "structural": Rows(
        "plain",
        "c3r",
        "c3r+{}",
        ("post hoc", "dropout, post hoc", "c3r (z_c)", "c3r, strong", "c3r, hinge", "c3r, no instrument"),
    ),
    "emoji": Rows("plain", "c3r", "c3r+{}"),
    "watch": Rows("plain", "c3r", "c3r+{}"),
    "uci_views": Rows("plain", "c3r", "c3r+{}"),
    "stamps": Rows("plain", "c3r", "c3r+{}"),
    "emoji_pretrained": Rows("plain", "c3r", "c3r+{}"),
    "stamps_pretrained": Rows("plain", "c3r", "c3r+{}"),
    "emoji_shift": Rows("plain", "c3r", "c3r_{}", ("c3r, first version",)),
    "emoji_shift_pretrained": Rows("plain", "c3r", "c3r_{}", ("c3r, first version",)),
}


def _both(table: str, column: str | list[str]) -> tuple[Place, Place]:
    return Place("shift", table, column), Place("shift_rivals", table, column)


LINES = {
    "emoji, same maker": Line(False, False, *_both("emoji_styles", "accuracy, same")),
    "emoji, same maker, worst modality": Line(False, True, *_both("emoji_styles", "worst subset, same")),
    "emoji, planted cues": Line(False, False, *_both("planted cues", "accuracy, same")),
    "six views of digits": Line(False, False, *_both("uci_views", "accuracy, same")),
    "six views of digits, worst modality": Line(False, True, *_both("uci_views", "worst subset, same")),
    "clip art by known authors": Line(False, False, *_both("openclipart", "accuracy, same")),
    "clip art by known authors, worst modality": Line(False, True, *_both("openclipart", "worst subset, same")),
    "stamps": Line(False, False, *_both("stamps", "accuracy, same")),
    "stamps, worst modality": Line(False, True, *_both("stamps", "worst subset, same")),
    "emoji from scratch": Line(False, False, Place("emoji", "emoji_styles", "clean")),
    "emoji from scratch, worst condition": Line(False, True, Place("emoji", "emoji_styles", "worst")),
    "emoji from scratch, planted cues": Line(False, False, Place("emoji_shift", "emoji_shift", "test, representation")),
    "emoji, two layers on frozen encoders": Line(False, False, Place("emoji_pretrained", "emoji_pretrained", "clean")),
    "emoji, two layers on frozen encoders, worst condition": Line(
        False, True, Place("emoji_pretrained", "emoji_pretrained", "worst")
    ),
    "six views from scratch": Line(False, False, Place("uci_views", "uci_views", "clean")),
    "six views from scratch, worst subset": Line(False, True, Place("uci_views", "uci_views", "worst")),
    "stamps from scratch": Line(False, False, Place("stamps", "stamps", "clean")),
    "stamps from scratch, worst subset": Line(False, True, Place("stamps", "stamps", "worst")),
    "stamps, two layers on frozen encoders": Line(
        False, False, Place("stamps_pretrained", "stamps_pretrained", "clean")
    ),
    "stamps, two layers on frozen encoders, worst subset": Line(
        False, True, Place("stamps_pretrained", "stamps_pretrained", "worst")
    ),
    "digits in halves": Line(False, False, Place("safety", "digits in halves", "accuracy, same")),
    "digits in quarters": Line(False, False, Place("safety", "digits in quarters", "accuracy, same")),
    "clusters in four modalities": Line(False, False, Place("safety", "clusters, 4 modalities", "accuracy, same")),
    "no cues": Line(False, False, Place("structural", "null", "same")),
    "cues hold, confounded": Line(False, False, Place("rivals", "confounded", "same")),
    "cues hold, anticausal": Line(False, False, Place("rivals", "anticausal", "same")),
    "emoji by other makers": Line(True, False, *_both("emoji_styles", OTHERS)),
    "emoji by other makers, worst modality": Line(True, True, *_both("emoji_styles", OTHERS_WORST)),
    "emoji, cues turned": Line(True, False, *_both("planted cues", "accuracy, shift")),
    "emoji, cues turned, worst modality": Line(True, True, *_both("planted cues", "worst subset, shift")),
    "clip art by unseen authors": Line(True, False, *_both("openclipart", "accuracy, shift")),
    "clip art by unseen authors, worst modality": Line(True, True, *_both("openclipart", "worst subset, shift")),
    "watch, unseen subjects": Line(True, False, *_both("watch", "accuracy, shift")),
    "watch, unseen subjects, worst modality": Line(True, True, *_both("watch", "worst subset, shift")),
    "watch from scratch, two people": Line(True, False, Place("watch", "watch", "clean")),
    "watch from scratch, two people, worst modality": Line(True, True, Place("watch", "watch", "worst")),
    "emoji from scratch, by Twitter": Line(True, False, Place("emoji", "emoji_styles", "twitter")),
    "emoji from scratch, cues turned": Line(True, False, Place("emoji_shift", "emoji_shift", "shift, representation")),
    "emoji, two layers on frozen encoders, cues turned": Line(
        True, False, Place("emoji_shift_pretrained", "emoji_shift_pretrained", "shift, representation")
    ),
    "cues turned, confounded": Line(True, False, Place("rivals", "confounded", "shift")),
    "cues turned, confounded, worst test": Line(True, True, Place("rivals", "confounded", "worst, shift")),
    "cues turned, anticausal": Line(True, False, Place("rivals", "anticausal", "shift")),
    "cues turned, anticausal, worst test": Line(True, True, Place("rivals", "anticausal", "worst, shift")),
}


class Scores(NamedTuple):
    """A line's figures in points; ``rival`` and ``partner`` are (name, mean), differences are C3R's or the pair's."""

    plain: float
    c3r: float
    gain: Difference
    rival: tuple[str, float]
    over_rival: Difference
    partner: tuple[str, float] | None
    partner_over_rival: Difference | None


def scores(line: Line, read: Callable[[str], Record]) -> Scores:
    """The figures of one line."""
    plain, c3r = (_values(line.place, getattr(ROWS[line.place.record], name), read) for name in ("plain", "c3r"))
    place = line.rivals or line.place
    own, rows = ROWS[place.record], _rows(place, read)
    found = {name: _values(place, name, read) for name in own.rivals(rows)}
    best = max(found, key=lambda name: _mean(found[name]))
    joined = {name: _values(place, own.pair.format(name), read) for name in found if own.pair.format(name) in rows}
    partner = max(joined, key=lambda name: _mean(joined[name])) if joined else None
    return Scores(
        _mean(plain),
        _mean(c3r),
        _difference(c3r, plain),
        (best, _mean(found[best])),
        _difference(_values(place, own.c3r, read), found[best]),
        None if partner is None else (partner, _mean(joined[partner])),
        None if partner is None else _difference(joined[partner], found[best]),
    )


def _pairs(read: Callable[[str], Record], lines: Mapping[str, Line]) -> Iterator[tuple[str, str, Difference]]:
    """(set, rival, what C3R adds to it) in the worst condition; of several scores each by itself, not their mean."""
    for label, line in lines.items():
        place = line.rivals or line.place
        own, rows = ROWS[place.record], _rows(place, read)
        named = [(label, place)]
        if isinstance(place.column, list):
            named = [
                (f"{label}, {one.rpartition(', ')[2].title()}", place._replace(column=one)) for one in place.column
            ]
        for name in own.rivals(rows) if line.worst else ():
            pair = own.pair.format(name)
            for title, single in named if pair in rows else ():
                yield title, name, _difference(_values(single, pair, read), _values(single, name, read))


def _rows(place: Place, read: Callable[[str], Record]) -> list[str]:
    return list(read(place.record).tables[place.table])


def _values(place: Place, row: str, read: Callable[[str], Record]) -> list[float | None]:
    found = {"table": place.table, "row": row, "column": place.column}
    return values_at(read(place.record).tables, found, place.record)


def _mean(values: Sequence[float | None]) -> float:
    known = [100 * value for value in values if value is not None]
    return sum(known) / len(known)


def _difference(values: Sequence[float | None], others: Sequence[float | None]) -> Difference:
    pairs = zip(values, others, strict=True)
    return t_interval([100 * (a - b) for a, b in pairs if a is not None and b is not None])


def summary_table(read: Callable[[str], Record], lines: Mapping[str, Line] = LINES) -> str:
    """The table as Markdown."""
    text = [
        "| | plain | C3R | less plain | best rival alone | C3R less it | best pair with C3R | less the rival |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for shifted, title in ((False, "in distribution"), (True, "under shift")):
        text.append(f"| **{title}** | | | | | | | |")
        for label, line in lines.items():
            if line.shifted == shifted:
                found = scores(line, read)
                cells = [f"{found.plain:.1f}", f"{found.c3r:.1f}", _shown(found.gain), _named(found.rival)]
                cells += [_shown(found.over_rival), _named(found.partner), _shown(found.partner_over_rival)]
                text.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(text)


def _named(found: tuple[str, float] | None) -> str:
    return "–" if found is None else f"{found[1]:.1f}, {found[0].replace('_', '-')}"


def _shown(found: Difference | None) -> str:
    return "–" if found is None else f"{found.mean:+.1f} ({found.lower:+.1f} to {found.upper:+.1f})"


def goals(read: Callable[[str], Record], lines: Mapping[str, Line] = LINES) -> str:
    """Whether each of three goals is met, and where not."""
    found = {label: scores(line, read) for label, line in lines.items()}
    costs = [
        f"{label} ({_shown(found[label].gain)})"
        for label, line in lines.items()
        if not line.shifted and found[label].gain.mean < -COST
    ]
    shifted = [label for label, line in lines.items() if line.shifted]
    above = [label for label in shifted if found[label].over_rival.mean > 0]
    enough = len(above) >= SHARE * len(shifted)
    pairs = list(_pairs(read, lines))
    worse = [f"{name} on {label} ({_shown(less)})" for label, name, less in pairs if less.upper < 0]
    undecided = [
        f"{name} on {label} ({_shown(less)})" for label, name, less in pairs if less.mean < -COST <= less.upper
    ]
    return "\n".join(
        [
            _goal(f"In distribution C3R is nowhere more than {COST} points below plain training", not costs, costs),
            _goal(
                f"Under shift C3R alone is above the best rival alone on two thirds of the lines: {len(above)} of "
                f"{len(shifted)}",
                enough,
                [f"{label} ({_shown(found[label].over_rival)})" for label in shifted if label not in above],
            ),
            _goal(
                f"In the worst condition or modality no rival is worse with C3R than alone, by an interval below 0, of "
                f"{len(pairs)} pairs",
                not worse,
                worse,
            )
            + (f" Lower in the mean, without its interval showing it: {'; '.join(undecided)}." if undecided else ""),
        ]
    )


def _goal(text: str, met: bool, exceptions: Sequence[str]) -> str:
    lacking = f" Not on: {'; '.join(exceptions)}." if exceptions else ""
    return f"- {text}: **{'met' if met else 'missed'}**.{lacking}".replace("_", "-")


def costs(read: Callable[[str], Record], names: Sequence[str]) -> str:
    """What each record took, one line each, as Markdown."""
    lines = ["| record | measured on | what it took |", "|---|---|---|"]
    for name in names:
        found = read(name)
        lines.append(f"| `{name}` | {found.date}, {found.machine.get('processor', '?')} | {cost_line(found)} |")
    return "\n".join(lines)


def fill_summary(text: str, read: Callable[[str], Record]) -> str:
    """The page with the summary's blocks written from the records."""

    def written(match: re.Match[str]) -> str:
        spec: dict[str, Any] = json.loads(match["spec"])
        shown = {"goals": goals, "costs": lambda read: costs(read, spec["records"])}
        made = shown.get(spec.get("show", ""), summary_table)(read)
        return match[1] + "\n" + made + "\n\n"

    return BLOCK.sub(written, text)
