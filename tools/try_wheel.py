"""Tests the built wheel as a user would install it: in a separate environment, from another directory.

Run ``python tools/try_wheel.py dist`` after the wheel is built. The environment sees the libraries installed for
this Python, but not this repository; what is imported must come from the wheel.
"""

import pathlib
import subprocess
import sys
import tempfile
import venv

TRIAL = """
import pathlib, sys
import c3r_jax
from c3r_jax import C3RClassifier
from c3r_jax.data.sets.emoji import load_emoji
from c3r_jax.data.sets.structural import StructuralModel

place = pathlib.Path(c3r_jax.__file__)
assert place.is_relative_to(sys.prefix), f"c3r_jax comes from {place}, not from the wheel in {sys.prefix}"
assert (place.parent / "py.typed").is_file()
emoji = load_emoji("test", image_size=16)
train = StructuralModel("anticausal").sample(600, seed=0)
model = C3RClassifier(steps=60, hidden=(16,), dim=4).fit(train.inputs, train.labels)
print(f"c3r_jax {c3r_jax.__version__}: {len(emoji)} emoji, accuracy {model.score(train.inputs, train.labels):.2f}")
assert model.score(train.inputs, train.labels) > 0.6
"""


def main(directory: str) -> None:
    """Installs the one wheel in a directory without its dependencies, which this Python has, and runs the trial."""
    (wheel,) = pathlib.Path(directory).glob("*.whl")
    with tempfile.TemporaryDirectory() as folder:
        environment = pathlib.Path(folder) / "environment"
        venv.create(environment, with_pip=False)
        python = environment / "bin/python"
        packages = next((environment / "lib").glob("python*/site-packages"))
        install = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(packages)]
        subprocess.run([sys.executable, "-m", "pip", *install, str(wheel.resolve())], check=True)
        (packages / "libraries.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
        subprocess.run([str(python), "-c", TRIAL], cwd=folder, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
