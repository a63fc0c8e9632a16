"""One process of a distributed job, or all rows in one: python -m tests.parity.torch_job RANK FOLDER."""

import datetime
import pathlib
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from c3r_jax.torch import C3RConfig, c3r_loss

CONFIGS = {
    "default": C3RConfig(),
    "strong": C3RConfig.strong(),
    "paper": C3RConfig.paper(cap=1.0),
    "permute": C3RConfig(counterfactual="permute", cap=0.0, num_steps=2),
}
NAMES, ROWS, SPLIT = ("audio", "image", "text"), 48, (0, 29, 48)  # the parts need not be of equal size


class Model(nn.Module):
    """Encoders, a fusion with weights, a head with a hidden layer; its output is the loss."""

    def __init__(self, config):
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.ModuleDict({name: nn.Linear(5, 3) for name in NAMES})
        self.mix, self.head = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
        self.config, self.terms = config, None

    def fuse(self, h, present):
        total = sum(h[name] * present[:, [m]] for m, name in enumerate(NAMES))
        return self.mix(total / present.sum(1, keepdim=True).clamp(min=1))

    def forward(self, inputs, labels, present, where, group):
        h = {name: torch.tanh(encoder(inputs[name])) for name, encoder in self.encoders.items()}
        more = {"generator": torch.Generator().manual_seed(1), "group": group, "config": self.config}
        loss, self.terms = c3r_loss(self.head, self.fuse, h, labels, present=present, where=where, **more)
        return loss


def rows(part):
    """Rows of the global batch: inputs with a shared cause, labels, which modalities are there, which rows count."""
    generator = torch.Generator().manual_seed(2)
    cause = torch.randn(ROWS, 5, generator=generator)
    inputs = {name: (cause + 0.5 * torch.randn(ROWS, 5, generator=generator)).double() for name in NAMES}
    labels = cause[:, :3].argmax(1)
    present = torch.rand(ROWS, 3, generator=generator) < 0.8
    present[:, 1] |= ~present.any(1)
    where = torch.rand(ROWS, generator=generator) < 0.9
    return {name: x[part] for name, x in inputs.items()}, labels[part], present[part], where[part]


def measure(rank=None):
    """{case: loss, terms and the gradient of every parameter}, of this process or of all rows in one."""
    found = {}
    for name, config in CONFIGS.items():
        model = Model(config).double()
        part, run, group = slice(None), model, None
        if rank is not None:
            part, run, group = slice(*SPLIT[rank : rank + 2]), DistributedDataParallel(model), dist.group.WORLD
        loss = run(*rows(part), group)
        loss.backward()
        terms, cap = model.terms, model.terms.cap
        assert terms is not None
        scalars = [loss, *terms[:5], *terms.risk, terms.label_probability, terms.explained, *(cap or [])]
        found[name] = {
            "scalars": torch.stack([torch.zeros(()).double() if x is None else x.detach() for x in scalars]),
            "z_bar": terms.z_bar.detach(),
            "cov": terms.moments.cov,
            **{key: parameter.grad for key, parameter in model.named_parameters()},
        }
    return found


if __name__ == "__main__":
    number, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    timeout = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", f"file://{folder / 'store'}", timeout, world_size=2, rank=number)
    torch.save(measure(number), folder / f"{number}.pt")
    dist.destroy_process_group()
