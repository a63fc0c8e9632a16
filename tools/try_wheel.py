"""Tests the built wheel as a user would install it: in separate environments, from another directory.

Run ``python tools/try_wheel.py dist`` after the wheel is built. The small environment sees only the libraries that an
install without extras brings, the full one all that are installed for this Python; neither sees this repository: what
is imported must come from the wheel.
"""

import importlib.metadata
import pathlib
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Mapping

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PLACE = """
import pathlib, sys
import c3r_jax

place = pathlib.Path(c3r_jax.__file__)
assert place.is_relative_to(sys.prefix), f"c3r_jax comes from {place}, not from the wheel in {sys.prefix}"
assert (place.parent / "py.typed").is_file()
"""
SMALL_TRIAL = """
import importlib.util, inspect, pydoc, subprocess, sys
import jax, jax.numpy as jnp
import c3r_jax
from c3r_jax import C3RConfig, PostHocInstrument, c3_risk, c3r_loss, counterfactual, first_stage

large = ("flax", "sklearn", "optax", "matplotlib", "absl", "grain")
assert not [name for name in large if importlib.util.find_spec(name)], "the small environment is not small"
shared = jax.random.normal(jax.random.key(0), (128, 4))
h = {name: shared + 0.3 * jax.random.normal(jax.random.key(i), (128, 4)) for i, name in enumerate("ab", 1)}
labels = (shared[:, 0] > 0).astype(int)
predict = lambda z: jnp.stack([-z[:, 0], z[:, 0]], axis=1)
fuse = lambda h, present: (h["a"] + h["b"]) / 2
loss = lambda h: c3r_loss(predict, fuse, h, labels, config=C3RConfig(expert=0.5))
(value, terms), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(h)
assert jnp.isfinite(value) and all(jnp.isfinite(g).all() for g in gradient.values())
z_bar = counterfactual(predict, terms.z, labels, z_c=terms.z_c, mode="removal")
assert c3_risk(predict(terms.z_c), predict(z_bar), labels).sufficiency < 0.2
assert first_stage(h["a"], h["b"]).r2.mean() > 0.5
audit = PostHocInstrument(predict).fit(h).audit(h, labels)
assert audit["instrument_accuracy"] > 0.8 and set(audit["first_stage"]) == {"a", "b"}
assert set(c3r_jax.__all__) <= set(dir(c3r_jax))
assert 0 < pydoc.plain(pydoc.render_doc(c3r_loss)).find("The C3R objective of one") < 500  # no paragraph of types
try:
    c3r_jax.C3RClassifier
except ImportError as error:
    assert "C3RClassifier needs" in str(error) and "pip install 'c3r-jax[sklearn]'" in str(error), error
else:
    raise AssertionError("C3RClassifier was imported without its libraries")
for words, expected in ((["--help"], ""), (["train"], "[train]"), (["prepare"], "[data]"), (["sweep"], "[train]")):
    done = subprocess.run([sys.executable, "-m", "c3r_jax", *words], capture_output=True, text=True)
    assert done.returncode == bool(expected) and expected in done.stderr, done
    assert len(done.stderr.splitlines()) == bool(expected), done.stderr
print(f"c3r_jax {c3r_jax.__version__}, small: loss {value:.2f}, accuracy by z_c {audit['instrument_accuracy']:.2f}")
"""
FULL_TRIAL = """
import c3r_jax
from c3r_jax import C3RClassifier
from c3r_jax.data.sets.emoji import load_emoji
from c3r_jax.data.sets.structural import StructuralModel

emoji = load_emoji("test", image_size=16)
train = StructuralModel("anticausal").sample(600, seed=0)
model = C3RClassifier(steps=60, hidden=(16,), dim=4).fit(train.inputs, train.labels)
print(f"c3r_jax {c3r_jax.__version__}: {len(emoji)} emoji, accuracy {model.score(train.inputs, train.labels):.2f}")
assert model.score(train.inputs, train.labels) > 0.6
"""
Libraries = Mapping[str, importlib.metadata.Distribution]


def needed(requirements: Iterable[str]) -> Libraries:
    """The installed packages that requirements lead to, without extras, by name.

    Raises:
      importlib.metadata.PackageNotFoundError: one of them is not installed.
    """
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[name] = importlib.metadata.distribution(name)
        waiting += [Requirement(text) for text in found[name].requires or []]
    return found


def new_environment(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Makes an empty environment, and returns its Python and its folder of packages."""
    venv.create(folder, with_pip=False)
    return folder / "bin/python", next((folder / "lib").glob("python*/site-packages"))


def add_libraries(libraries: Libraries, packages: pathlib.Path) -> None:
    """Links installed packages into an environment."""
    for distribution in libraries.values():
        tops = {file.parts[0] for file in distribution.files or [] if not file.is_absolute()} - {"..", "__pycache__"}
        for top in tops:
            if not (packages / top).exists():
                (packages / top).symlink_to(pathlib.Path(str(distribution.locate_file(top))).resolve())


def main(directory: str) -> None:
    """Installs the one wheel in a directory, with libraries that this Python has, and runs the trials."""
    (wheel,) = pathlib.Path(directory).glob("*.whl")
    for trial in (SMALL_TRIAL, FULL_TRIAL):
        with tempfile.TemporaryDirectory() as folder:
            python, packages = new_environment(pathlib.Path(folder) / "environment")
            install = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(packages)]
            subprocess.run([sys.executable, "-m", "pip", *install, str(wheel.resolve())], check=True)
            if trial is SMALL_TRIAL:
                (own,) = importlib.metadata.distributions(path=[str(packages)])
                libraries = needed(own.requires or [])
                print(f"Without extras the wheel brings {', '.join(sorted(libraries))}", flush=True)
                add_libraries(libraries, packages)
            else:
                libraries = [path for path in sys.path if path.endswith("site-packages")]
                (packages / "libraries.pth").write_text("\n".join(libraries))
            subprocess.run([str(python), "-c", PLACE + trial], cwd=folder, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
