"""The optimiser and its learning rate: ``config.optimizer``."""

from dataclasses import dataclass

from c3r_jax.settings.fields import Part, setting


@dataclass(frozen=True)
class OptimizerSettings(Part, place="optimizer"):
    """The optimiser, its schedule, and the scale of published encoders' updates."""

    name: str = setting("adamw", "Optimiser.")
    learning_rate: float = setting(2e-3, "Learning rate after the warm-up.", least=0)
    weight_decay: float = setting(0.05, "Weight decay, multiplied by the learning rate.", least=0)
    encoder_scale: float = setting(1.0, "Learning rate of published encoders, relative to the others'.", least=0)
    layer_decay: float = setting(
        1.0, "Block k of K of a published encoder has this to the power K - k of that rate.", least=0
    )
    schedule: str = setting("cosine", "Schedule of the learning rate after the warm-up.")
    warmup_steps: int = setting(30, "Steps over which the learning rate rises; cut to a shorter run.", least=0)
    clip_norm: float = setting(1.0, "Largest norm of the global gradient; 0: off.", least=0)
    plateau_window: int = setting(50, "Steps whose training loss schedule plateau averages for one reading.", least=1)
    plateau_patience: int = setting(2, "Readings without a better one before the rate is lowered.", least=1)
    plateau_factor: float = setting(0.5, "Factor by which it is lowered.", above=0, below=1)
