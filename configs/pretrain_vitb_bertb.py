"""Contrastive pretraining at full size: ViT-B/16 and BERT-base, batch 4,096, bfloat16, state split over 8 devices.

XLA_FLAGS=--xla_force_host_platform_device_count=32 JAX_PLATFORMS=cpu \
  python train.py --config=configs/pretrain_vitb_bertb.py --workdir=runs/paper --dry_run

compiles the step for 32 devices that need not exist. The embedded emoji set stands in for a corpus of that size.

Activations of blocks are recomputed for the gradient, which TPUs do sooner than they write and read them, by their
compiler's estimate (docs/scaling.md), and the batch is encoded at once. Where memory is short, set
train.accumulation: its chunks are encoded once more for the gradient.
"""

from ml_collections import ConfigDict

from configs import pretrain_emoji


def get_config() -> ConfigDict:
    """Returns the configuration; encoders are transformers of the sizes of ViT-B/16 and BERT-base, from scratch."""
    config = pretrain_emoji.get_config()
    config.data.image_size = 224
    config.data.tokenizer = "word_piece"
    config.data.text_length = 62  # and one mark at either end
    config.model.dim = 512
    config.model.first_scale = 0.0  # of the task
    config.model.dtype = "bfloat16"
    config.model.remat = True
    config.model.scan_layers = True
    for part, patch in ((config.model.image, 16), (config.model.text, None)):
        part.width, part.depth, part.num_heads, part.mlp_ratio, part.dropout = 768, 12, 12, 4, 0.0
        if patch:
            part.patch, part.block = patch, "transformer"
    config.model.text.orders = ()
    config.optimizer.learning_rate = 5e-4
    config.optimizer.weight_decay = 0.2
    config.optimizer.warmup_steps = 10_000
    config.parallel.strategy = "mesh"
    config.parallel.fsdp = 8
    config.train.steps = 300_000
    config.train.eval_every = 5_000
    config.train.async_checkpoints = True
    config.train.log_every = 100
    config.train.batch_size = 4096
    config.eval.batch_size = 1024
    return config
