"""C3R in a PyTorch model, without JAX: python examples/pytorch.py"""

import torch
import torch.nn.functional as F
from torch import nn

from c3r_jax.data.sets.structural import StructuralModel
from c3r_jax.torch import C3RConfig, c3r_loss

world, config = StructuralModel("anticausal"), C3RConfig.strong()  # for cues that reverse, as here under shift
train, shifted = world.sample(2000, seed=0), world.sample(2000, seed=1, regime="shift")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        mlps = {m: nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 16)) for m in train.inputs}
        self.encoders, self.head = nn.ModuleDict(mlps), nn.Linear(16, 2)

    def encode(self, inputs):
        return {m: encoder(torch.as_tensor(inputs[m])) for m, encoder in self.encoders.items()}

    def fuse(self, h, present):
        share = present / present.sum(1, keepdim=True).clamp(min=1)
        return sum(share[:, [i]] * h[m] for i, m in enumerate(sorted(h)))

    def forward(self, inputs, present):
        return self.head(self.fuse(self.encode(inputs), present))


def everything(sample):
    return torch.ones(len(sample.labels), len(sample.inputs), dtype=torch.bool)


def plain_loss(model, labels):
    return F.cross_entropy(model(train.inputs, everything(train)), labels)


def loss_with_c3r(model, labels):
    return c3r_loss(model.head, model.fuse, model.encode(train.inputs), labels, config=config)[0]


def accuracy_under_shift(loss, steps=300):
    torch.manual_seed(0)
    model, labels = Model(), torch.as_tensor(train.labels).long()
    adam = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        adam.zero_grad()
        loss(model, labels).backward()
        adam.step()
    with torch.no_grad():
        predicted = model(shifted.inputs, everything(shifted)).argmax(1)
    return (predicted == torch.as_tensor(shifted.labels)).float().mean().item()


if __name__ == "__main__":
    print(f"plain {accuracy_under_shift(plain_loss):.3f}, with C3R {accuracy_under_shift(loss_with_c3r):.3f}")
