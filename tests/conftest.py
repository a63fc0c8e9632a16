"""Settings every test shares. They must be made before JAX picks its devices."""

from __future__ import annotations

import importlib.util
import logging
import os
import pathlib
import sys

import jaxlib.version

from tests.browser.chromium import lacking

# Eight devices; and programs that run once or twice, so that compiling them fast matters more than running them fast.
_FLAGS = {"--xla_force_host_platform_device_count": 8, "--xla_backend_optimization_level": 0}
if jaxlib.version.__version_info__ < (0, 11):  # later ones do not know the flag, and XLA aborts at unknown flags
    _FLAGS["--xla_cpu_use_fusion_emitters"] = "false"  # they take half of the time of compiling
    _FLAGS["--xla_cpu_parallel_codegen_split_count"] = 1  # in parts it takes a tenth more work, and all cores are busy

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # commands would keep programs in the user's folder
for _flag, _value in _FLAGS.items():
    if _flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}={_value}".strip()

import jax  # noqa: E402  (after the flags, on purpose)

jax.config.update("jax_numpy_rank_promotion", "raise")

# Parity with PyTorch has processes of its own, for two compilers in one do not go well together: `make test` runs them
# wherever PyTorch is (python -m pytest tests/parity).
collect_ignore = ["parity", "reference"]
_LIBRARIES = [name for name in ("timm", "torchvision", "transformers") if importlib.util.find_spec(name) is None]
collect_ignore += ["parity/test_published_encoders.py"] if _LIBRARIES else []

# Steps are compiled for TPUs in processes of their own, by libtpu of this folder (`make venv-aot`) or the environment.
TPU_COMPILER = pathlib.Path(sys.prefix) / "aot"
_NO_TPU_COMPILER = importlib.util.find_spec("libtpu") is None and not (TPU_COMPILER / "libtpu").is_dir()
collect_ignore += ["aot"] if _NO_TPU_COMPILER else []

# A report is opened in the browser that is found, by the driver of the [browser] extra.
_NO_BROWSER = lacking()
collect_ignore += ["browser"] if _NO_BROWSER else []

import absl.logging  # noqa: E402
import pytest  # noqa: E402

from c3r_jax.caches import make_room  # noqa: E402
from c3r_jax.data.sets.emoji import read_index, write_subset  # noqa: E402
from configs.emoji import get_config  # noqa: E402


def pytest_report_header():
    without = f", but for published encoders: without {', '.join(_LIBRARIES)}" if _LIBRARIES else ""
    no_torch = importlib.util.find_spec("torch") is None
    parity = "left out, for PyTorch is not installed" if no_torch else f"tests/parity{without}"
    tpus = "left out, for libtpu is not installed (make venv-aot)" if _NO_TPU_COMPILER else "tests/aot"
    browser = f"left out, for {_NO_BROWSER}" if _NO_BROWSER else "tests/browser"
    return [f"parity with PyTorch: {parity}", f"compiled for TPUs: {tpus}", f"reports in a browser: {browser}"]


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Forgets compiled programs before there are too many of them: tests compile some without the library's help."""
    yield
    make_room()


_LOGGERS = [(log, log.level, log.propagate) for log in map(logging.getLogger, (None, "absl", "jax", "orbax"))]
_VERBOSITY = absl.logging.get_verbosity()


@pytest.fixture(autouse=True)
def loggers_as_they_were():
    """Programs that run in the tests' process set how much is logged; the next test must not feel it."""
    absl.logging.set_verbosity(_VERBOSITY)
    logging.disable(logging.NOTSET)
    for log, level, propagate in _LOGGERS:
        log.propagate, log.disabled = propagate, False
        log.setLevel(level)


@pytest.fixture(scope="session")
def small_emoji(tmp_path_factory):
    """A copy of emoji.zip with every sixth emoji, and its checksum."""
    path = tmp_path_factory.mktemp("small") / "emoji.zip"
    write_subset(path, read_index()[0]["items"][::6])
    return path


@pytest.fixture
def small_config(small_emoji):
    """The emoji configuration, shrunk; one step takes milliseconds."""
    return shrunk(small_emoji)


def shrunk(emoji):
    """The emoji configuration on another file, with the smallest of everything."""
    config = get_config()
    config.data.path = str(emoji)
    config.data.image_size = 16
    config.data.text_length = 16
    config.model.dim = 4
    config.model.image.patch = 8
    config.model.image.width = 8
    config.model.image.depth = 1
    config.model.text.width = 8
    config.model.text.orders = (2,)
    config.model.text.buckets = 64
    config.optimizer.warmup_steps = 2
    config.train.batch_size = 64
    config.train.steps = 12
    config.train.eval_every = 4
    config.train.log_every = 1
    config.eval.batch_size = 64
    return config
