"""Evaluates one run: python eval.py --workdir=DIR writes results.json, results.md, report.html and figures there."""

import sys

from c3r_jax.commands.main import run

if __name__ == "__main__":
    run("eval", sys.argv[1:], "eval.py")
