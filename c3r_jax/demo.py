"""``python -m c3r_jax.demo``: the same command as ``c3r demo``."""

import sys

from c3r_jax.commands.main import main

if __name__ == "__main__":
    main(["demo", *sys.argv[1:]])
