"""Compares runs: c3r report compare --runs DIR... [--torch FILE...] [--published FILE] --out DIR."""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Sequence

from absl import logging

from c3r_jax.errors import C3RError
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.report.comparison import PUBLISHED, compare_results, comparison_tables, read_published, write_comparison
from c3r_jax.report.examples import example_title, explain
from c3r_jax.report.tidy import names_in_several_ways, read_export, read_runs


def parser(program: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Compares runs, or explains one prediction.",
        epilog=f"example: {program} compare --runs runs/demo --out runs/compared",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser(
        "compare",
        help="runs of this package, runs of PyTorch and published figures in one table per data set",
        epilog=f"example: {program} compare --runs runs/demo --torch 'acc.csv?dataset=emoji_styles&method=plain"
        "&metric=accuracy' --out runs/comparison",
    )
    # "extend": what is given twice is taken together.
    compare.add_argument(
        "--runs", nargs="*", action="extend", default=[], type=pathlib.Path, help="directories of runs or studies"
    )
    compare.add_argument(
        "--torch",
        nargs="*",
        action="extend",
        default=[],
        help="results.json, tidy CSV or JSON, or a W&B or TensorBoard CSV, with missing fields after '?'",
    )
    compare.add_argument("--published", default=PUBLISHED, type=pathlib.Path, help="quoted figures (default: ours)")
    compare.add_argument("--route", default=ROUTES[0], choices=ROUTES, help="prediction route of the runs")
    compare.add_argument("--metric", nargs="*", action="extend", default=[], help="only these metrics (default: all)")
    compare.add_argument("--out", required=True, type=pathlib.Path, help="directory for comparison.md, csv, tex, html")
    example = commands.add_parser(
        "explain",
        help="which modality a prediction needs, which is enough, and what the counterfactual changed",
        epilog=f"example: {program} explain --workdir runs/emoji --example 1405",
    )
    example.add_argument("--workdir", required=True, type=pathlib.Path, help="directory of a trained run")
    example.add_argument("--example", required=True, type=int, help="number of the example, as reports name it")
    example.add_argument("--split", help="another split than config.eval.split")
    example.add_argument("--out", type=pathlib.Path, help="folder for example_N.html, png and json (default: "
                         "WORKDIR/explained)")  # fmt: skip
    return parser


def main(arguments: Sequence[str], program: str) -> None:
    """Compares or explains, or says in one sentence why it cannot."""
    parsed = parser(program).parse_args(arguments)
    if parsed.command == "explain":
        _explain(parsed, f"{program} {shlex.join(arguments)}", program)
    else:
        _compare(parsed, f"{program} {shlex.join(arguments)}")


def _explain(parsed: argparse.Namespace, command: str, program: str) -> None:
    # Imported here, because comparing needs neither JAX nor a model.
    from c3r_jax.evaluation.examples import explain_example
    from c3r_jax.report.write import write_example

    logging.set_verbosity(logging.WARNING)
    try:
        record = explain_example(parsed.workdir, parsed.example, split=parsed.split)
        written = write_example(record, parsed.out or parsed.workdir / "explained", command=command)
    except (C3RError, OSError) as error:
        sys.exit(f"{program}: {error}")
    print("\n".join([example_title(record), *explain(record)]))
    print("wrote " + ", ".join(map(str, written)))


def _compare(parsed: argparse.Namespace, command: str) -> None:
    try:
        ours, published = read_runs(parsed.runs, route=parsed.route), read_published(parsed.published)
        torch = [row for source in parsed.torch for row in read_export(source)]
    except C3RError as error:
        sys.exit(f"report: {error}")
    keys = [*(row[:4] for row in (*ours, *torch)), *(figure.key for figure in published)]
    for warning in names_in_several_ways(keys):
        logging.warning("%s", warning)
    rows = compare_results(ours, torch, published)
    if parsed.metric:
        known = sorted({row.key[3] for row in rows})
        unknown = [name for name in parsed.metric if name not in known]
        if unknown and known:
            names = ", ".join(known)
            sys.exit(f"report: --metric {unknown[0]} is not among what is compared: expected some of {names}.")
        rows = [row for row in rows if row.key[3] in parsed.metric]
    if not rows:
        sys.exit("report: there is nothing to compare: give --runs, or other --metric names.")
    try:
        written = write_comparison(rows, parsed.out, command)
    except OSError as error:
        sys.exit(f"report: {parsed.out} cannot be written ({error.strerror}): name another folder with --out.")
    for dataset, table in comparison_tables(rows).items():
        print(f"{dataset}\n\n{table.to_markdown()}\n")
    print("wrote " + ", ".join(str(path) for path in written.values()))
