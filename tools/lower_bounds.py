"""Writes a constraints file with the lower bounds of a requirements file, and prints the setting that makes pip use it.

Run ``python tools/lower_bounds.py requirements.txt``; what it prints, ``PIP_CONSTRAINT=PATH``, is an environment
variable with which pip installs exactly the oldest versions that are promised to work.
"""

import pathlib
import re
import sys


def lower_bounds(requirements: str) -> list[str]:
    r"""Returns the requirements with ``==`` in place of ``>=``; jaxlib is held with jax.

    Example:
      >>> lower_bounds("# needed\\njax>=0.10.0\\nchex>=0.1.91  # tests\\n")
      ['jax==0.10.0', 'jaxlib==0.10.0', 'chex==0.1.91']
    """
    found = re.findall(r"^([\w.\[\]-]+)>=([\w.]+)", requirements, re.MULTILINE)
    lines = [f"{name}=={version}" for name, version in found]
    return [
        one for line in lines for one in ([line, line.replace("jax==", "jaxlib==")] if line[:5] == "jax==" else [line])
    ]


if __name__ == "__main__":
    source = pathlib.Path(sys.argv[1])
    target = pathlib.Path("build/constraints.txt").resolve()
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lower_bounds(source.read_text(encoding="utf-8"))) + "\n", encoding="utf-8")
    print(f"PIP_CONSTRAINT={target}")
