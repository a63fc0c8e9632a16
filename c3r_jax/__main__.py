"""``python -m c3r_jax`` is the ``c3r`` command."""

from c3r_jax.commands.main import main

if __name__ == "__main__":
    main()
