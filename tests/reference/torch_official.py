"""The public PyTorch code's image-text objective made runnable, with each of its defects kept and named.

``base_vt_causal`` of the authors' repository cannot be run as shipped (docs/pytorch.md). This is what its formulas say
once shapes fit; nothing is repaired:

1. z is detached: the cross-entropy trains the classifier alone, no encoder and no fusion layer.
2. The counterfactual is z - grad of the batch-mean cross-entropy: it *descends*, towards the label.
3. That step shrinks with the batch, as the mean's gradient of one example is divided by B.
4. L_v = KL(softmax v || softmax [t; i]) compares vectors of unlike width; here v is projected to 2 d.
5. L_fe = MSE(z_bar, z) has no gradient: both sides are detached.
6. The C3 risk is made of argmax, so its gradient is zero: it is added to the loss, and trains nothing.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from c3r_jax.torch import C3Risk, c3_risk

LAMBDA_V, LAMBDA_FE = 0.75, 0.4  # the only weights the public code gives


class OfficialTerms(NamedTuple):
    """Each term before its weight, and the two representations."""

    task: torch.Tensor
    relevance: torch.Tensor
    closeness: torch.Tensor
    risk: C3Risk
    z: torch.Tensor
    z_bar: torch.Tensor


class OfficialCompat(nn.Module):
    """Gate, fusion and classifier of the image-text model, on representations of both modalities.

    Args:
      dim: width d of the representations.
      num_classes: K.
    """

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.project = nn.Linear(dim, 2 * dim, bias=False)
        self.fusion = nn.Linear(2 * dim, dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, image: torch.Tensor, text: torch.Tensor, labels: torch.Tensor):
        """The total loss and its terms."""
        gate = torch.sigmoid((self.query(text) * self.key(image)).sum(1, keepdim=True) / math.sqrt(image.shape[1]))
        v = gate * self.value(image) + (1 - gate) * self.value(text)
        both = torch.cat([text, image], dim=1)
        z = self.fusion(both).detach().requires_grad_()
        logits = self.head(z)
        task = F.cross_entropy(logits, labels)
        gradient = torch.autograd.grad(task, z, retain_graph=True)[0]
        z_bar = (z - gradient).detach()
        log_p, log_q = torch.log_softmax(self.project(v), 1), torch.log_softmax(both, 1)
        relevance = (log_p.exp() * (log_p - log_q)).sum(1).mean()
        closeness = F.mse_loss(z_bar, z.detach())
        risk = c3_risk(logits, self.head(z_bar), labels)
        loss = task + LAMBDA_V * relevance + LAMBDA_FE * closeness + risk.total.detach()
        return loss, OfficialTerms(task, relevance, closeness, risk, z, z_bar)
