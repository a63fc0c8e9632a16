"""The training loop: ``config.train``."""

from dataclasses import dataclass

from c3r_jax.settings.fields import Part, setting


@dataclass(frozen=True)
class TrainSettings(Part, place="train"):
    """Length, batches, checkpoints and stopping of a run."""

    steps: int = setting(400, "Steps of the run.", least=1)
    batch_size: int = setting(128, "Examples per batch, over all devices.")
    accumulation: int = setting(
        1, "Chunks in which a device encodes its share; losses are still those of the full batch.", least=1
    )
    key_chunks: int = setting(
        0,
        "Of a contrastive task: 0: each device gathers all keys, and compares its examples with all at once; 1 or "
        "more: keys go round the devices, and are compared in so many parts each, for large batches.",
        least=0,
        off=True,
    )
    ema_decay: float = setting(
        0.0, "Decay of the averaged parameters, which are then evaluated; 0: off.", least=0, below=1, off=True
    )
    cache_frozen: bool = setting(
        False,
        "Encode with frozen encoders once instead of in every step; no augmentation of their inputs. If all encoders "
        "are frozen, C3R's experts (c3r.expert) are also computed once, on all training rows.",
    )
    keep_programs: bool = setting(
        True,
        "Keep compiled programs in the user's cache folder, so that the next run of the same shapes starts sooner.",
    )
    label_smoothing: float = setting(
        0.0,
        "Label smoothing of every method's cross-entropies; matchings (softmax, sigmoid) have none.",
        least=0,
        below=1,
    )
    eval_every: int = setting(50, "Steps between validations, each followed by a checkpoint.", least=1)
    log_every: int = setting(10, "Steps between lines of metrics.", least=1)
    patience: int = setting(
        0, "Validations without a better selection value before the run stops early; 0: never.", least=0
    )
    select_by: str = setting(
        "mean_accuracy",
        "Score that selects the best checkpoint: accuracy (all modalities), mean_accuracy (over modality subsets), or "
        "another score of the task, see c3r_jax/metrics/scores.py, e.g. auroc, mean_mae, mean_dice, retrieval; with "
        "worst_environment_ before it, that of the worst environment of validation.",
    )
    moments_decay: float = setting(0.9, "Decay of the running moments, per step.", least=0, below=1)
    writers: tuple[str, ...] = setting(
        ("tensorboard",), "Where metrics go besides metrics.jsonl, which is always written."
    )
    keep_last: int = setting(2, "Newest checkpoints to keep besides the best.", least=1)
    async_checkpoints: bool = setting(
        False,
        "Continue training while a checkpoint is written: faster for large states, but up to twice eval_every steps "
        "can be lost.",
    )
    skip_non_finite: int = setting(
        0, "Largest number of consecutive non-finite steps whose updates are skipped; 0: stop.", least=0
    )
    spike: float = setting(
        10.0,
        "Report losses this many robust standard deviations above the usual; 0: none.",
        least=0,
        off=True,
    )
