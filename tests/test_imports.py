"""What an import must not load: each sentence is checked in a fresh interpreter."""

import pathlib
import pkgutil
import subprocess
import sys

import c3r_jax.data
import c3r_jax.report

ROOT = pathlib.Path(__file__).parents[1]
NEEDED_BY = {  # library: the modules of c3r_jax.data that need it
    "grain": {"batches.one_pass", "batches.pipeline"},
    "tokenizers": {"text.tokenizers", "text.tokenizer_files"},
    "tensorflow_datasets": {"preparation.tfds_builder", "sets.tfds_records"},
}


def _modules(package) -> list[str]:
    """Every module of a package, except entry files, which run a command."""
    modules = (module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))
    entries = (f"{package.__name__}.__main__", f"{package.__name__}.prepare")
    return [package.__name__, *(name for name in modules if name not in entries)]


def _loaded(statements: str) -> set[str]:
    """The modules that are loaded after some statements in a fresh interpreter."""
    program = f"import sys\n{statements}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_small_data_modules_load_neither_grain_nor_tokenizers_nor_tensorflow_datasets_nor_jax():
    large = {f"c3r_jax.data.{name}" for names in NEEDED_BY.values() for name in names}
    small = [name for name in _modules(c3r_jax.data) if name not in large]
    assert len(small) > 40
    assert not _loaded(f"import {', '.join(small)}") & {*NEEDED_BY, "jax"}


def test_reports_and_configurations_load_no_jax():
    modules = [*_modules(c3r_jax.report), "c3r_jax.configurations"]
    assert "jax" not in _loaded(f"import {', '.join(modules)}")


def test_the_classifier_loads_no_published_encoder():
    loaded = _loaded("from c3r_jax import C3RClassifier")
    assert "c3r_jax.estimator.classifier" in loaded
    assert not [name for name in loaded if name.startswith("c3r_jax.models.encoders.pretrained")]
