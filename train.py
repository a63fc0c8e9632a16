"""Trains one run: python train.py --config=configs/emoji.py --workdir=DIR [--config.any.leaf=value]."""

import sys

from c3r_jax.commands.main import run

if __name__ == "__main__":
    run("train", sys.argv[1:], "train.py")
