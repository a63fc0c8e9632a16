"""Image and text transformers in PyTorch, layer for layer those of this package (patches, bags of tokens, pre-norm)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from tests.reference.torch_twin import masked_mean


class Block(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, width: int, num_heads: int, mlp_dim: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, mlp_dim), nn.Linear(mlp_dim, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        batch, length, width = x.shape
        split = self.qkv(self.norm1(x)).reshape(batch, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        visible = None if mask is None else mask[:, None, None, :]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class ImageTower(nn.Module):
    """Patches of uint8 images through blocks, averaged and projected."""

    def __init__(self, size: int, patch: int, width: int, depth: int, num_heads: int, mlp_ratio: int, dim: int):
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(3 * patch * patch, width)
        self.position = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio * width) for _ in range(depth))
        self.norm, self.project = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        batch, size = images.shape[:2]
        side = size // self.patch
        x = ((images.float() - 127.5) / 63.75).reshape(batch, side, self.patch, side, self.patch, 3)
        x = self.embed(x.transpose(2, 3).reshape(batch, side * side, -1)) + self.position
        for block in self.blocks:
            x = block(x)
        return self.project(self.norm(x).mean(1))


class TextTower(nn.Module):
    """Token ids with a mark at either end through blocks, summed over sqrt(count) and projected; 0 is padding."""

    def __init__(self, vocab: int, length: int, width: int, depth: int, num_heads: int, mlp_ratio: int, dim: int):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.position = nn.Parameter(0.02 * torch.randn(length + 2, width))
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio * width) for _ in range(depth))
        self.norm, self.project = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, dim)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        ids = F.pad(ids, (1, 1))
        inside = ids != 0
        count = inside.sum(1, keepdim=True) + 1
        x = self.embed(ids) * inside[..., None] + self.position
        for block in self.blocks:
            x = block(x, inside)
        kept = torch.arange(ids.shape[1])[None] < count
        return self.project((self.norm(x) * kept[..., None]).sum(1) / count.sqrt())


class ImageText(nn.Module):
    """Both towers, the mean of what is present, a linear head."""

    def __init__(self, image: ImageTower, text: TextTower, dim: int, num_classes: int):
        super().__init__()
        self.image, self.text, self.head = image, text, nn.Linear(dim, num_classes)

    def encode(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"image": self.image(inputs["image"]), "text": self.text(inputs["text"])}

    def fuse(self, h: Mapping[str, torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        return masked_mean(h, present)
