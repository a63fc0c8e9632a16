"""``python -m c3r_jax.report``: the same command as ``c3r report``."""

import sys

from c3r_jax.commands.main import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
