"""``python -m c3r_jax.launch``: the same command as ``c3r launch``."""

import sys

from c3r_jax.commands.main import main

if __name__ == "__main__":
    main(["launch", *sys.argv[1:]])
