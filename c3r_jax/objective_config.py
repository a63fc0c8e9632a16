"""Weights and modes of the objective, in JAX and in PyTorch: it imports neither."""

import math
from dataclasses import dataclass, replace
from typing import Any

INSTRUMENTS = ("two_stage", "attention", "none")
MODES = ("projection", "removal", "gradient", "minimal", "instrumented", "mean", "permute")  # of counterfactuals
NECESSITY_KINDS = ("hinge", "log", "kl", "constant")


@dataclass(frozen=True)
class C3RConfig:
    """Weights and modes of the C3R objective.

    By default the terms steer and never overrule the task: their gradient is capped at the task's, necessity asks for
    one prediction at every z_bar, whichever it is, and only as far as z_c predicts what z predicts; every modality
    alone has to predict. :meth:`strong` is for cues that are expected to reverse; :meth:`hinge` and :meth:`paper` are
    for comparison.

    Attributes:
      w_task: weight of the cross-entropy at z.
      lambda_s: weight of the sufficiency loss at z_c.
      lambda_n: weight of the necessity loss at z_bar.
      lambda_v: weight of the relevance loss (first stage), which by default is measured and not trained.
      lambda_fe: weight of the closeness loss.
      ridge: first-stage penalty relative to the instrument's mean variance.
      instrument: "two_stage", "attention" or "none" (then z_c = z).
      counterfactual: a mode of :func:`c3r_jax.counterfactual`.
      necessity: a kind of :func:`c3r_jax.necessity_loss`.
      step_size: length of the "gradient" move, in units of rms(z).
      num_steps: steps of the counterfactual.
      prior: training label shares, for the gate and necessity "kl"; None: the shares of each (global) batch.
      num_heads: heads of the attention instrument.
      attention_keys: "others" or "all".
      through_fuse: for "instrumented" with a non-affine fuse, z_bar = fuse(h - h_hat + mean(h_hat)).
      stop_gradient: treat the first-stage coefficients as constants (an ablation).
      label_smoothing: label smoothing of the cross-entropies at z and z_c, in [0, 1).
      stage_rows: which rows fit the first stage of a modality: "available", those that have it and at least one other
        (what is missing of its instrument counts as its mean), or "complete", those that have every modality. With two
        modalities they are the same.
      shuffled: fit the first stage on rows whose modalities belong to different examples (a negative control: a gain
        that remains is not due to the instrument).
      expert: share of the task term that has to explain the label beyond what the experts predict from each modality's
        residual, the part that the other modalities do not explain; 0: no experts. They are those of each batch, unless
        ``evidence`` is given: ``train.cache_frozen`` computes it once on all training rows if every encoder is frozen.
      subsets: share of the task term that asks each modality alone for the label, in equal parts of those that a row
        has, as far as the gate allows; the rest asks all of them together. 0: nothing is asked of one alone.
      cap: largest length of the other terms' gradient, relative to the task term's, with respect to features, fusion
        and head; 0: no cap. With labels and ``w_task`` the number 0, for a task loss of your own, the task term
        is no part of the loss and only sets that length; the terms' z and logits then have a gradient.
      gate: whether ``subsets``, ``lambda_n``, ``expert`` and ``cap`` are multiplied by the share of what z predicts
        that z_c predicts too (:func:`c3r_jax.core.gate.explained_share`), or with ``subsets`` of what single modalities
        predict that the others explain (:func:`c3r_jax.core.gate.explained_alone`) or by how far explained parts say
        the same (:func:`c3r_jax.core.gate.repeated_share`), whichever is least; and the necessity
        loss of a row by the share of its class, p_y / sum_k p_k^2: what the instrument does not explain is silenced
        only as far as the rest can speak in its place, and rare classes give up less. ``lambda_v`` is multiplied by
        what the rows of each first stage support: nothing up to three rows for each column of the instrument, all from
        six on (:func:`c3r_jax.core.relevance.supported_share`).
      strength: multiplies every weight but ``w_task``, and up to 1 the part of the task term that is about subsets;
        0: plain training.

    Raises:
      ValueError: naming the field, its value and what was expected.

    Examples:
      >>> C3RConfig(lambda_n=2.0).lambda_n
      2.0
    """

    w_task: float = 1.0
    lambda_s: float = 0.3
    lambda_n: float = 1.0
    lambda_v: float = 0.0
    lambda_fe: float = 0.0
    ridge: float = 1e-2
    instrument: str = "two_stage"
    counterfactual: str = "projection"
    necessity: str = "constant"
    step_size: float = 0.5
    num_steps: int = 1
    prior: tuple[float, ...] | None = None
    num_heads: int = 1
    attention_keys: str = "others"
    through_fuse: bool = False
    stop_gradient: bool = False
    label_smoothing: float = 0.0
    stage_rows: str = "available"
    shuffled: bool = False
    expert: float = 0.0
    subsets: float = 0.95
    cap: float = 1.0
    gate: bool = True
    strength: float = 1.0

    def __post_init__(self) -> None:
        for name in (
            "w_task",
            "lambda_s",
            "lambda_n",
            "lambda_v",
            "lambda_fe",
            "ridge",
            "step_size",
            "cap",
            "strength",
        ):
            value = getattr(self, name)
            if not is_traced(value) and not (_is_number(value) and math.isfinite(value) and value >= 0):
                raise ValueError(f"C3RConfig.{name} is {value!r}, but a finite number >= 0 was expected.")
        smoothing = self.label_smoothing
        if not is_traced(smoothing) and not (_is_number(smoothing) and 0 <= smoothing < 1):
            raise ValueError(f"C3RConfig.label_smoothing is {smoothing!r}: expected a share of 0 to below 1.")
        for name, known in (
            ("instrument", INSTRUMENTS),
            ("counterfactual", MODES),
            ("necessity", NECESSITY_KINDS),
            ("attention_keys", ("others", "all")),
            ("stage_rows", ("available", "complete")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"C3RConfig.{name} is {getattr(self, name)!r}: expected one of {', '.join(known)}.")
        for name in ("num_steps", "num_heads"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"C3RConfig.{name} is {value!r}, but a whole number of at least 1 was expected.")
        for name in ("expert", "subsets"):
            value = getattr(self, name)
            if isinstance(value, bool) or not _is_number(value) or not 0 <= value <= 1:
                raise ValueError(f"C3RConfig.{name} is {value!r}, but a share between 0 and 1 was expected.")
        for name in ("through_fuse", "stop_gradient", "shuffled", "gate"):
            value = getattr(self, name)
            if type(value).__name__ not in ("bool", "bool_"):  # NumPy's as well; "no" would count as True
                raise ValueError(f"C3RConfig.{name} is {value!r}, but True or False was expected.")
        if isinstance(self.prior, list):
            object.__setattr__(self, "prior", tuple(self.prior))  # hashable, as all other fields
        if self.expert and self.instrument != "two_stage":
            raise ValueError(
                f"C3RConfig.expert is {self.expert}, which needs instrument='two_stage', but it is {self.instrument!r}."
            )
        if self.counterfactual == "instrumented" and self.instrument == "none":
            raise ValueError("C3RConfig.counterfactual is 'instrumented', which needs an instrument, but it is 'none'.")
        if self.shuffled and self.instrument != "two_stage":
            raise ValueError(
                f"C3RConfig.shuffled is True, which needs instrument='two_stage', but it is {self.instrument!r}."
            )
        if self.shuffled and self.expert:
            raise ValueError(
                "C3RConfig.shuffled is True, but experts would still see which rows belong together: use expert=0, "
                f"not {self.expert}."
            )
        if self.through_fuse and (self.counterfactual, self.instrument) != ("instrumented", "two_stage"):
            raise ValueError(
                "C3RConfig.through_fuse is True, which needs counterfactual='instrumented' and instrument='two_stage'."
            )

    @classmethod
    def strong(cls, **changes: Any) -> "C3RConfig":
        """For cues that are expected to reverse: three times the weight of necessity, and experts at full weight.

        It costs some accuracy in distribution, and of rare classes.

        Args:
          **changes: fields that differ.
        """
        return replace(cls(lambda_n=3.0, expert=1.0), **changes)

    @classmethod
    def hinge(cls, **changes: Any) -> "C3RConfig":
        """The first version of the objective, for comparison. It inverts labels on ordinary data: do not train with it.

        The hinge asks that the label be no more likely than chance without the part that the instrument explains. Where
        modalities carry information of their own, or the first stage is weak, that is met by inverting labels.

        Args:
          **changes: fields that differ.
        """
        modes: dict[str, Any] = {"counterfactual": "removal", "necessity": "hinge", "stage_rows": "complete"}
        first = cls(lambda_n=3.0, lambda_v=4.0, subsets=0.0, cap=0.0, gate=False, **modes)
        return replace(first, **changes)

    @classmethod
    def paper(cls, **changes: Any) -> "C3RConfig":
        """The shape of the authors' public code: attention and a gradient step, with its weights; for comparison.

        Args:
          **changes: fields that differ.
        """
        shape = cls.hinge(instrument="attention", counterfactual="gradient", lambda_v=0.75, lambda_fe=0.4)
        return replace(shape, **changes)


def _is_number(value: Any) -> bool:
    """Whether this can be compared with numbers: no text, no None."""
    return hasattr(value, "__float__") and not isinstance(value, str | bytes)


def is_traced(value: Any) -> bool:
    """Whether a weight is a tracer of JAX, known only when its program runs; JAX need not be installed."""
    return any(kind.__name__ == "Tracer" for kind in type(value).__mro__)
