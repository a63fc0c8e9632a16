"""``python -m c3r_jax.data.prepare``: the same command as ``c3r prepare``."""

import sys

from c3r_jax.commands.main import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
