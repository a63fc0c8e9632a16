"""``python -m c3r_jax.sweep``: the same command as ``c3r sweep``."""

import sys

from c3r_jax.commands.main import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
