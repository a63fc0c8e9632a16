"""Exports a run: StableHLO for CPU, CUDA and TPU, weights, label names and a model card."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from absl import logging

from c3r_jax.errors import C3RError
from c3r_jax.export.run import FILES, export_run


def parser(program: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Exports the best checkpoint of a run: model.stablehlo (any batch size; CPU, CUDA and TPU), "
        "weights.safetensors, signature.json with the label names, load.py, which does not need c3r_jax, and "
        "README.md, a model card.",
        epilog=f"example: {program} --workdir runs/emoji --out exported",
    )
    parser.add_argument("--workdir", required=True, help="directory of a trained run")
    parser.add_argument("--out", required=True, help="folder to write to")
    return parser


def main(arguments: Sequence[str], program: str) -> None:
    """Exports, or says in one sentence why it cannot."""
    options = parser(program).parse_args(arguments)
    logging.set_verbosity(logging.WARNING)
    try:
        difference = export_run(options.workdir, options.out)
    except C3RError as error:
        sys.exit(f"{program}: {error}")
    files = ", ".join(name for name in FILES if (pathlib.Path(options.out) / name).exists())
    print(f"wrote {files} to {options.out}; largest difference to the model {difference:.1e}")
