"""One training step here (jit) and in PyTorch (eager, torch.compile): the same model, batch and objective, on the CPU.

python benchmarks/vs_torch.py --json OUT.json

Needs PyTorch. Plain and C3R steps with AdamW in float32, all modalities present; the two alternate in one process with
equal numbers of threads, and figures are medians of the ratios within a round, with quartiles. Models: an MLP of two
modalities (24-64-16), image and text transformers of the demo's size, and two layers of ViT-B and BERT-base width. A
sweep of 64 runs of the MLP is one compiled program here and 64 loops there; it is timed on fewer steps.

With --profile: only which kinds of kernels a plain step here spends its time on.
"""

import argparse
import collections
import functools
import json
import os
import pathlib
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))


class Size(NamedTuple):
    """Of a model: transformers where ``patch`` is not 0."""

    batch: int
    dim: int
    width: int
    depth: int = 0
    heads: int = 1
    patch: int = 0
    pixels: int = 0
    length: int = 0
    classes: int = 9


SIZES = {
    "mlp": Size(batch=256, dim=16, width=64),
    "transformer": Size(batch=128, dim=16, width=64, depth=2, heads=4, patch=6, pixels=24, length=40),
    "stack": Size(batch=16, dim=64, width=768, depth=2, heads=12, patch=16, pixels=96, length=30),
}
NAMED_KERNELS = "--xla_backend_extra_options=xla_cpu_enable_xprof_traceme"  # a profile then has them by name
LEARNING_RATE, WEIGHT_DECAY, FEATURES, VOCABULARY = 2e-3, 1e-3, 24, 258


def make_batch(size: Size) -> tuple[dict[str, Any], Any]:
    """Random inputs that share a cause with the labels."""
    import numpy as np

    rng = np.random.default_rng(0)
    labels = rng.integers(0, size.classes, size.batch)
    if not size.patch:
        cause = rng.normal(size=(size.classes, FEATURES))[labels]
        noisy = [(cause + rng.normal(size=cause.shape)).astype(np.float32) for _ in range(2)]
        return {"image": noisy[0], "text": noisy[1]}, labels
    image = rng.integers(0, 256, (size.batch, size.pixels, size.pixels, 3), dtype=np.uint8)
    return {"image": image, "text": rng.integers(1, VOCABULARY, (size.batch, size.length), dtype=np.int32)}, labels


def jax_step(size: Size, regularised: bool) -> Callable[[], float]:
    """A function that makes one step and waits for it."""
    import flax.linen as nn
    import jax
    import numpy as np
    import optax

    from c3r_jax import C3RConfig
    from c3r_jax.methods.method import Method
    from c3r_jax.models.encoders.features import FeatureEncoder
    from c3r_jax.models.encoders.image import ImageEncoder
    from c3r_jax.models.encoders.text import TextEncoder
    from c3r_jax.models.fusion.representations import MaskedMean
    from c3r_jax.models.twin import TwinNetwork
    from c3r_jax.step.state import init_state
    from c3r_jax.step.train_step import train_step

    # The first version of the objective, in both libraries.
    config = C3RConfig.hinge() if regularised else C3RConfig.hinge(instrument="none")
    if size.patch:
        shared: dict[str, Any] = {"width": size.width, "depth": size.depth, "num_heads": size.heads, "mlp_ratio": 4}
        encoders = {
            "image": ImageEncoder(size.dim, size.patch, block="transformer", **shared),
            "text": TextEncoder(size.dim, VOCABULARY, **shared),
        }
    else:
        encoders = {name: FeatureEncoder(size.dim, (size.width,)) for name in ("image", "text")}
    model = TwinNetwork(encoders, MaskedMean(), nn.Dense(size.classes), config, size.dim)
    inputs, labels = make_batch(size)
    present, where = np.ones((size.batch, 2), bool), np.ones(size.batch, bool)
    batch = jax.device_put({"inputs": inputs, "present": present, "labels": labels.astype(np.int32), "where": where})
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    method = Method("c3r", regularised, config, 0.0)
    step = functools.partial(train_step, model=model, method=method, optimizer=optimizer, moments_decay=0.9)
    compiled = jax.jit(step, donate_argnums=0)
    state = init_state(model, optimizer, batch, 0)

    def run() -> float:
        nonlocal state
        state, metrics = compiled(state, batch)
        return float(metrics["loss"])

    return run


def torch_step(size: Size, regularised: bool, compiled: bool) -> Callable[[], float]:
    """The same in PyTorch."""
    import torch  # pyright: ignore[reportMissingImports]

    from c3r_jax.torch import C3RConfig, c3r_loss, sufficiency_loss
    from tests.reference.torch_transformer import ImageText, ImageTower, TextTower
    from tests.reference.torch_twin import TorchTwin

    torch.manual_seed(0)
    if size.patch:
        blocks = (size.width, size.depth, size.heads, 4, size.dim)
        image = ImageTower(size.pixels, size.patch, *blocks)
        model = ImageText(image, TextTower(VOCABULARY, size.length, *blocks), size.dim, size.classes)
    else:
        model = TorchTwin({"image": FEATURES, "text": FEATURES}, (size.width,), size.dim, size.classes)
    arrays, array = make_batch(size)
    inputs, labels = {name: torch.tensor(value) for name, value in arrays.items()}, torch.tensor(array)
    present = torch.ones(size.batch, 2, dtype=torch.bool)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    config = C3RConfig.hinge()

    def objective() -> Any:
        h = model.encode(inputs)
        if regularised:
            return c3r_loss(model.head, model.fuse, h, labels, config=config, present=present)[0]
        return sufficiency_loss(model.head(model.fuse(h, present)), labels).mean()

    call = torch.compile(objective) if compiled else objective

    def run() -> float:
        optimizer.zero_grad()
        loss = call()
        loss.backward()
        optimizer.step()
        return float(loss)

    return run


def seconds(run: Callable[[], Any], times: int = 1) -> float:
    """Wall time of some calls."""
    began = time.perf_counter()
    for _ in range(times):
        run()
    return time.perf_counter() - began


def compare(size: Size, repeats: int, compiled: bool) -> dict[str, Any]:
    """Medians of a step's milliseconds and of the ratios to this package's."""
    sides: dict[str, Callable[[], float]] = {}
    for name, regularised in (("plain", False), ("c3r", True)):
        sides[f"jax_{name}"] = jax_step(size, regularised)
        sides[f"eager_{name}"] = torch_step(size, regularised, False)
        if compiled:
            sides[f"compile_{name}"] = torch_step(size, regularised, True)
    for run in sides.values():
        seconds(run, 3)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            times[name].append(seconds(run))
    found: dict[str, Any] = {f"{name}_ms": 1e3 * statistics.median(values) for name, values in times.items()}
    for name in ("plain", "c3r"):
        for other in ("eager", "compile") if compiled else ("eager",):
            ratios = [a / b for a, b in zip(times[f"{other}_{name}"], times[f"jax_{name}"], strict=True)]
            found[f"{other}_over_jax_{name}"] = statistics.median(ratios)
            found[f"{other}_over_jax_{name}_quartiles"] = statistics.quantiles(ratios, n=4)[::2]
    for side in ("jax", "eager", "compile") if compiled else ("jax", "eager"):
        found[f"{side}_c3r_over_plain"] = found[f"{side}_c3r_ms"] / found[f"{side}_plain_ms"]
    return found


def profile(size: Size, steps: int = 10) -> dict[str, float]:
    """Shares of the time of a plain step here, by the kind of XLA's kernel, over all threads."""
    import jax

    run = jax_step(size, False)
    seconds(run, 3)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            seconds(run, steps)
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(file)).planes
    nanoseconds = collections.Counter[str]()
    for event in (event for plane in planes for line in plane.lines for event in line.events):
        if any(name == "hlo_op" for name, _ in event.stats):
            nanoseconds[re.sub(r"[.\d]+$", "", event.name)] += int(event.duration_ns)
    return {name: value / nanoseconds.total() for name, value in nanoseconds.most_common()}


def sweep(runs: int, steps: int, repeats: int) -> dict[str, float]:
    """A study of ``runs`` seeds: one vmapped program, already compiled, against one PyTorch loop after another."""
    import jax
    import numpy as np

    from c3r_jax import C3RConfig
    from c3r_jax.step.in_memory import Rows, Structure, batch_plan, structure_of, train_run, weights_of

    size = SIZES["mlp"]
    inputs, labels = make_batch(size._replace(batch=2048))
    config = C3RConfig.hinge()
    made = Structure(("image", "text"), size.classes, (size.width,), size.dim, structure_of(config), True, 0.0)
    rows = jax.device_put(Rows(inputs, np.ones((2048, 2), bool), labels.astype(np.int32)))
    plan = batch_plan(2048, batch_size=size.batch, steps=steps, seed=0)

    def one(seed: Any) -> Any:
        return train_run(made, rows, plan, seed, weights_of(config), LEARNING_RATE, WEIGHT_DECAY)[1]

    program = jax.jit(jax.vmap(one))
    seeds = np.arange(runs, dtype=np.uint32)

    def together() -> None:
        jax.block_until_ready(program(seeds))

    together()
    loop = torch_step(size, True, False)
    loop()
    ratios = []
    for _ in range(repeats):
        # A PyTorch run is its steps: 64 runs are 64 times the steps of one.
        ratios.append(seconds(loop, steps) * runs / seconds(together))
    return {"sweep_runs": runs, "sweep_steps": steps, "eager_over_jax_sweep": statistics.median(ratios)}


def parsed(given: list[str] | None = None) -> argparse.Namespace:
    """The command line's settings; ``models`` is a list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file to write")
    parser.add_argument("--repeats", type=int, default=30, help="timed steps of each side, at least 2 (default 30)")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch; JAX takes the machine's cores (default 2)")
    parser.add_argument("--models", default=",".join(SIZES), help="some of " + ",".join(SIZES))
    parser.add_argument("--no_compile", action="store_true", help="leave torch.compile out (it needs a C++ compiler)")
    parser.add_argument("--profile", action="store_true", help="only where a plain step here spends its time")
    arguments = parser.parse_args(given)
    arguments.models = arguments.models.split(",")
    for name in arguments.models:
        if name not in SIZES:
            parser.error(f"--models has {name!r}, but some of {','.join(SIZES)} were expected.")
    if arguments.repeats < 2:
        parser.error(f"--repeats is {arguments.repeats}, but at least 2 were expected: quartiles need them.")
    return arguments


def main() -> None:
    """Measures and writes named figures."""
    arguments = parsed()
    if arguments.profile:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {NAMED_KERNELS}"
        shares = {name: profile(SIZES[name]) for name in arguments.models}
        pathlib.Path(arguments.json).write_text(json.dumps(shares, indent=1) + "\n")
        print(json.dumps(shares, indent=1))
        return
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        sys.exit("benchmarks/vs_torch.py needs PyTorch, which is not installed: pip install torch.")
    import jax

    torch.set_num_threads(arguments.threads)
    figures: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "torch": torch.__version__,
        "threads": arguments.threads,
    }
    for name in arguments.models:
        found = compare(SIZES[name], arguments.repeats, not arguments.no_compile)
        figures |= {f"{name}_{key}": value for key, value in found.items()}
    figures |= sweep(64, 20, 3)
    pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
