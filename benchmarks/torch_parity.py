"""The same table with PyTorch: plain training and C3R by ``c3r_jax.torch`` and here, paired by seed.

Run ``python benchmarks/torch_parity.py --weights DIR --json OUT.json`` (needs PyTorch; about five minutes on two
cores). Both sides have the estimator's network, first parameters, batches, experts and optimiser, and differ in the
library that computes and differentiates the loss. Two structural models, and frozen vectors of emoji with
``--weights``, of several makers with ``--data`` (see benchmarks/shift.py).
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.safety import WORLDS, World, chosen_worlds, network_size, print_table, run, summary
from benchmarks.shift import STEPS
from benchmarks.shift import worlds as worlds_of_vectors
from c3r_jax import C3RClassifier
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.over_fit import generalising_share
from c3r_jax.estimator.classifier import DEFAULT
from c3r_jax.results.record import Meter
from c3r_jax.step.in_memory import DECAY, EVERY, KEPT, Rows, Structure, batch_plan, model_of
from c3r_jax.step.state import init_state

METHODS: dict[str, dict[str, Any]] = {
    "plain": {"regularised": False},
    "plain, PyTorch": {"regularised": False, "in_torch": True},
    "c3r": {},
    "c3r, PyTorch": {"in_torch": True},
}


class InTorch(C3RClassifier):
    """The estimator, trained by PyTorch from the same first parameters on the same batches."""

    def _train(
        self,
        rows: Rows,
        structure: Structure,
        config: C3RConfig,
        weights: np.ndarray | None,
        seed: int,
        held: Rows | None = None,
    ) -> tuple[Any, np.ndarray]:
        import torch  # pyright: ignore[reportMissingImports]

        from c3r_jax.torch import c3r_loss, held_out_share, merge_moments, sufficiency_loss
        from c3r_jax.torch.instruments import instrument_moments
        from tests.reference.torch_twin import TorchTwin, to_params, to_state_dict

        plan = batch_plan(len(rows.labels), batch_size=self.batch_size, steps=self.steps, seed=seed, weights=weights)
        first = init_state(model_of(structure)[0], optax.identity(), {"inputs": rows.inputs}, seed).params
        widths = {name: values.shape[1] for name, values in rows.inputs.items()}
        model = TorchTwin(widths, structure.hidden, structure.dim, structure.num_classes)
        model.load_state_dict(to_state_dict(jax.device_get(first)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        losses = []
        arrays, held = jax.tree.map(lambda x: torch.from_numpy(np.array(x)), (rows, held))
        explained, earlier = None, None  # of held-out rows, and the moments of the batches before
        running = [0.0, 0.0]  # losses of single modalities on training and held-out rows
        for step, chosen in enumerate(torch.from_numpy(plan).long()):
            batch = arrays.take(chosen)
            h, labels = model.encode(batch.inputs), batch.labels.long()
            if structure.regularised:
                if held is not None and step % EVERY == 0:
                    with torch.no_grad():
                        z, every = model.fuse(h, batch.present), torch.ones(len(labels), dtype=torch.bool)
                        own = instrument_moments(h, z, batch.present, config=config, where=every)
                        moments = own if earlier is None or own is None else merge_moments(earlier, own)
                        others = {"config": config, "present": held.present}
                        of_held = (model.encode(held.inputs), held.labels.long())
                        explained = held_out_share(model.head, model.fuse, *of_held, moments, **others)
                        seen = (_loss_alone(model, h, labels), _loss_alone(model, *of_held))
                        kept = KEPT if step else 0.0
                        running = [kept * old + (1 - kept) * new for old, new in zip(running, seen, strict=True)]
                        shares = np.bincount(labels, minlength=structure.num_classes) / len(labels)
                        constant = -float((shares[shares > 0] * np.log(shares[shares > 0])).sum())
                        explained = explained * float(generalising_share(*map(jnp.asarray, (*running, constant))))
                more = {"config": config, "present": batch.present, "evidence": batch.evidence, "explained": explained}
                loss, terms = c3r_loss(model.head, model.fuse, h, labels, **more)
                if terms.moments is not None:
                    merged = terms.moments if earlier is None else merge_moments(earlier, terms.moments)
                    earlier = merged._replace(count=merged.count * DECAY)
            else:
                loss = sufficiency_loss(model.head(model.fuse(h, batch.present)), labels).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return to_params(model.state_dict()), np.array(losses)


def _loss_alone(model: Any, h: Mapping[str, Any], labels: Any) -> float:
    """Mean loss of single modalities, all of which are present."""
    import torch  # pyright: ignore[reportMissingImports]

    of_each = torch.eye(len(h), dtype=torch.bool)[:, None].expand(-1, len(labels), -1)
    losses = [torch.nn.functional.cross_entropy(model.head(model.fuse(h, only)), labels) for only in of_each]
    return float(torch.stack(losses).mean())


def made(*, in_torch: bool = False, **settings: Any) -> C3RClassifier:
    """The estimator of a method's settings."""
    return InTorch(**settings) if in_torch else C3RClassifier(**settings)


def main() -> None:
    """Prints a table for each world and writes all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--weights", type=pathlib.Path, help="folder with the weights; without it no emoji")
    parser.add_argument("--data", type=pathlib.Path, help="folder of prepared sets")
    parser.add_argument("--vectors", type=pathlib.Path, help="folder that keeps vectors between calls")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--worlds", nargs="+", default=("",), help="titles of worlds, or words in several titles")
    arguments = parser.parse_args()
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        sys.exit("benchmarks/torch_parity.py needs PyTorch, which is not installed: pip install torch.")
    warnings.simplefilter("ignore")  # weak first stages are expected here
    names = ("structural: confounded", "structural: anticausal")
    found: dict[str, tuple[Callable[[], World], int]] = {n: (lambda n=n: WORLDS[n][0], WORLDS[n][1]) for n in names}
    if arguments.weights is not None:
        vectors = worlds_of_vectors(arguments.weights, arguments.data, arguments.vectors)
        found["emoji_styles"] = (vectors["emoji_styles"], STEPS)
    meter = Meter()
    config = {**dataclasses.asdict(DEFAULT), "torch": torch.__version__}
    results: dict[str, Any] = {"config": config, "cases": {}, "parameters": {}}
    for title, (make, steps) in chosen_worlds(parser, arguments.worlds, found).items():
        world = make()
        results["cases"][title] = summary(run(world, steps, arguments.seeds, METHODS, subsets=True, make=made))
        results["parameters"][title] = network_size(world(0)["train"])
        print_table(title, results["cases"][title])
        if arguments.json:
            arguments.json.write_text(json.dumps(results | meter.read(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
