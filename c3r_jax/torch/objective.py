"""The C3R objective: one function from features to a loss, for any encoder, fusion and head in PyTorch."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from c3r_jax.objective_config import C3RConfig
from c3r_jax.torch.alone import outputs_alone
from c3r_jax.torch.autocast import without_autocast
from c3r_jax.torch.batch import Where, check_float, global_count, global_mean, mask_of, promote
from c3r_jax.torch.batch_checks import check_batch, checked_evidence, checked_share
from c3r_jax.torch.calls import fuse_of, predict_of
from c3r_jax.torch.cap import Cap, capped_loss
from c3r_jax.torch.classification import CLASSIFICATION
from c3r_jax.torch.counterfactual import Predict, closeness
from c3r_jax.torch.eager import eager
from c3r_jax.torch.expert import Expert
from c3r_jax.torch.explained import explained_outputs
from c3r_jax.torch.first_stage import FirstStage
from c3r_jax.torch.gate import cap_of, is_zero, weights_of
from c3r_jax.torch.inference import map_tensors, outside_inference
from c3r_jax.torch.instruments import Features, Fuse
from c3r_jax.torch.moments import Moments
from c3r_jax.torch.processes import Group, check_group
from c3r_jax.torch.risk import C3Risk, risk_of
from c3r_jax.torch.task import Task
from c3r_jax.torch.task_term import Evidence, task_term
from c3r_jax.torch.worlds import hypothetical_representation, real_world


class C3RTerms(NamedTuple):
    """The terms of :func:`c3r_loss` before weighting (scalars of the global batch).

    Attributes:
      task, sufficiency, necessity, relevance, closeness: the loss terms, in nats where they are entropies.
      risk: 0/1 :class:`C3Risk` of predict(z_c) and predict(z_bar).
      label_probability: mean p_y(z_bar); near 0 with a small necessity loss, it means that labels are inverted.
      logits: (B, K) predict(z).
      z, z_c, z_bar: (B, d).
      first_stage: {name: :class:`FirstStage`} for "two_stage", else None.
      moments: :class:`Moments` of this batch, to accumulate; None without an instrument.
      experts: {name: :class:`Expert`} of the task term; None without experts, or where their evidence was given.
      explained: the explained share that was given, or that of the batch: of what z predicts, the share that z_c
        predicts too, :func:`explained_share`, and with subsets at most :func:`explained_alone` and
        :func:`repeated_share`. None where no gate, subsets or experts need it.
      rows: {name: number of rows of this batch in the modality's first stage}; None without an instrument.
      cap: :class:`Cap`, how strong the other terms' gradient was; None without a cap. With a cap only the loss can be
        differentiated: these terms are then constants.
    """

    task: Float[Tensor, ""]
    sufficiency: Float[Tensor, ""]
    necessity: Float[Tensor, ""]
    relevance: Float[Tensor, ""]
    closeness: Float[Tensor, ""]
    risk: C3Risk
    label_probability: Float[Tensor, ""]
    logits: Float[Tensor, "batch classes"]
    z: Float[Tensor, "batch features"]
    z_c: Float[Tensor, "batch features"]
    z_bar: Float[Tensor, "batch features"]
    first_stage: dict[str, FirstStage] | None
    moments: Moments | None
    experts: dict[str, Expert] | None = None
    explained: Float[Tensor, ""] | None = None
    rows: dict[str, Float[Tensor, ""]] | None = None
    cap: Cap | None = None


@eager
@outside_inference
def c3r_loss(
    predict: Predict,
    fuse: Fuse,
    features: Features,
    labels: Num[Tensor, "batch ..."],
    *,
    config: C3RConfig = C3RConfig(),
    present: Bool[Tensor, "batch modalities"] | None = None,
    where: Bool[Tensor, " batch"] | None = None,
    weights: Num[Tensor, " batch"] | None = None,
    group: Group | None = None,
    generator: torch.Generator | None = None,
    moments: Moments | None = None,
    evidence: Evidence | None = None,
    explained: Float[Tensor, ""] | float | None = None,
    task: Task = CLASSIFICATION,
) -> tuple[Float[Tensor, ""], C3RTerms]:
    r"""The C3R objective of one (global) batch, for any encoder, fusion and head; call ``backward`` on the loss.

    .. math::
       L = w_{task}\, CE(\text{predict}(z), y) + \lambda_s S + \lambda_n N + \lambda_v L_v + \lambda_{fe} L_{fe}

    z = fuse(h, present); z_c is the part of it that the other modalities explain; z_bar is z in the hypothetical world
    without it. S is the cross-entropy at z_c, N the necessity loss at z_bar, L_v = 1 - R^2 of the first stage. Encoders
    run once, before this function. The numbers are those of :func:`c3r_jax.c3r_loss`.

    Under ``DistributedDataParallel`` give the process group: the loss is then that of the global batch, the same in
    every process, and the averaged gradients are its gradient. Under ``torch.autocast`` predict and fuse run as it
    says, everything between them in float32.

    Args:
      predict: z (B, d) -> logits (B, K), row by row (no batch normalisation), such as a module.
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d); reads only present modalities.
      features: {name: (B, d_name)} per-modality representations, at least two for "two_stage" and "attention".
      labels: (B,) class ids, or the task's own shape.
      config: weights and modes.
      present: (B, M) bool, columns in the sorted order of the names; values of absent features have no effect.
      where: (B,) bool, rows that count.
      weights: (B,) numbers >= 0, how often each row counts in every mean, share, moment and expert: 2 is the row twice,
        0 is ``where=False``. Class weights are ``table[labels]``. Keep their mean near 1, for they are numbers of rows.
        Which rows "permute" draws does not depend on them.
      group: process group over which the batch is split, such as ``torch.distributed.group.WORLD``.
      generator: with the same seed in every process, for counterfactual "permute".
      moments: accumulated :class:`Moments` of earlier batches, pooled with this batch's for the first stage (small
        batches); the gradient goes through this batch only.
      evidence: {name: (B, K)} of experts of these rows that were computed on all training rows; None: experts are
        computed from the batch.
      explained: the explained share of rows that are not trained on, see :func:`held_out_share`, for the gate. None,
        or a tensor that is NaN: that of the batch, too high once its rows have been learned by heart.
      task: the task; its loss replaces the cross-entropy, and its necessity and correctness are used:
        :class:`MultiLabel`, :class:`Regression`.

    Returns:
      The loss and :class:`C3RTerms`.

    Raises:
      ValueError: on fewer than two modalities with an instrument, too few rows for the first stage, or arguments of
        the wrong shape, dtype or range.

    Examples:
      >>> image, noise = torch.randn(2, 64, 4, generator=torch.Generator().manual_seed(0))
      >>> h = {"image": image.requires_grad_(), "text": image.detach() + 0.1 * noise}
      >>> labels = (image[:, 0] > 0).long()
      >>> fuse = lambda h, present: (h["image"] + h["text"]) / 2
      >>> predict = lambda z: torch.stack([-z[:, 0], z[:, 0]], dim=1)
      >>> loss, terms = c3r_loss(predict, fuse, h, labels)
      >>> loss.backward()
      >>> bool(loss > 0), bool(terms.relevance < 0.1), tuple(image.grad.shape)
      (True, True, (64, 4))

    References:
      Towards the Causal Complete Cause of Multi-Modal Representation Learning, arXiv 2407.14058.
    """
    features, labels, present, rows = check_batch(features, labels, config, present, where, weights, task)
    task.check_smoothing(config.label_smoothing)
    if evidence is not None and is_zero(config.expert) and not is_zero(config.strength):
        raise ValueError(
            f"evidence is of {sorted(evidence)}, but C3RConfig.expert is 0, which reads none: expected a share above "
            "0, such as C3RConfig(expert=0.5), or no evidence."
        )
    evidence = None if evidence is None else checked_evidence(evidence, features, mask_of(rows))
    explained = checked_share(explained)
    check_group(group)
    device = next(iter(features.values())).device
    predict, fuse = predict_of(predict, device), fuse_of(fuse, device)

    # Nothing to cap, or nobody asks for a gradient.
    capped = 0 not in (config.cap, config.strength) and torch.is_grad_enabled()
    # Where the task's loss is the caller's own, the task term still says how long the others' gradient may be.
    own_task = config.w_task == 0
    inner = dataclasses.replace(config, w_task=1.0) if capped and own_task else config

    def losses(features: dict[str, Tensor]) -> tuple[Tensor, Tensor, C3RTerms]:
        return _terms(
            predict,
            fuse,
            features,
            labels,
            present,
            rows,
            config=inner,
            group=group,
            generator=generator,
            earlier=moments,
            evidence=evidence,
            held_out=explained,
            task=task,
        )

    with without_autocast(device):
        if not capped:
            of_task, of_others, measured = losses(features)
            return of_task + of_others, measured
        shared: dict[str, Any] = {"cap": cap_of(config), "counted": not own_task, "group": group, "where": rows}
        loss, cap, measured = capped_loss(losses, features, **shared)
        # So that a step's graph is not kept alive.
        constants: C3RTerms = map_tensors(Tensor.detach, measured)
        if own_task:  # which is made of these as often as not
            z = fuse(features, present)
            constants = constants._replace(z=z, logits=predict(z))
        return loss, constants._replace(cap=cap)


def _terms(
    predict: Predict,
    fuse: Fuse,
    features: dict[str, Tensor],
    labels: Num[Tensor, "batch ..."],
    present: Bool[Tensor, "batch modalities"],
    rows: Where,
    *,
    config: C3RConfig,
    group: Group | None,
    generator: torch.Generator | None,
    earlier: Moments | None,
    evidence: Evidence | None,
    held_out: Float[Tensor, ""] | float | None,
    task: Task,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], C3RTerms]:
    """The weighted task term, the sum of the other weighted terms, and all of them alone before their weights."""
    z = check_float("fuse(features, present)", fuse(features, present), 2)
    real, relevance, batch = real_world(fuse, features, z, config, present, rows, group, earlier)
    masks: dict[str, Any] = {"where": rows, "group": group, "task": task}
    shared: dict[str, Any] = {"config": config, **masks}
    z_bar = hypothetical_representation(
        predict, fuse, features, z, labels, real, present, generator=generator, **shared
    )
    logits, causal_logits, hypothetical_logits = predict(z), predict(real.z_c), predict(z_bar)
    task.check(logits, labels)
    causal_losses = task.loss(causal_logits, labels, config.label_smoothing)
    dtype, num_classes = promote(logits).dtype, logits.shape[1]
    prior = None
    if config.prior is not None:
        prior = task.check_prior(torch.tensor(config.prior, dtype=dtype), num_classes).to(z.device)
    relative = config.gate or config.subsets or config.expert > 0  # to what a constant prediction says
    if prior is None and (relative or config.necessity in ("kl", "constant")):
        prior = task.batch_prior(labels, num_classes, where=rows, group=group, dtype=dtype)
    explained, alone, share = None, None, 1.0
    if relative:
        assert prior is not None  # for type checkers
        constant = task.constant(prior, global_count(rows, group, dtype))
        if config.subsets and config.strength:
            h_hat = real.h_hat if config.gate else None
            alone = outputs_alone(
                predict,
                fuse,
                features,
                h_hat,
                logits,
                labels,
                present,
                constant,
                label_smoothing=config.label_smoothing,
                **masks,
            )
            share = alone.additivity
        explained = explained_outputs(
            logits,
            causal_logits,
            None if alone is None else alone.compared,
            None if alone is None else alone.explained,
            constant,
            labels,
            present,
            label_smoothing=config.label_smoothing,
            **masks,
        )
        if held_out is not None:
            measured = torch.as_tensor(held_out).detach().to(explained)
            explained = torch.where(measured.isnan(), explained, measured)
        share = share * explained if config.gate else share
    by = weights_of(config, explained)
    term = task_term(
        features,
        logits,
        None if alone is None else alone.outputs,
        labels,
        present,
        share=share,
        expert=by.expert,
        evidence=evidence,
        **shared,
    )
    losses = [
        _counted(by.sufficiency, causal_losses),
        _counted(by.necessity, _necessity(hypothetical_logits, labels, prior, config, **masks)),
        task.probability(hypothetical_logits, labels).detach(),
    ]
    # Apart: from one tensor with the others, the task's gradient would go through the whole first stage, as zeros.
    task_loss = global_mean(_counted(config.w_task, term.losses), rows, group)
    sufficiency, necessity, label_probability = global_mean(torch.stack(losses, dim=1), rows, group).unbind()
    close = closeness(z, z_bar, rows, group)
    stages = None
    if real.stages is not None and real.h_hat is not None:
        stages = {name: stage._replace(fitted=real.h_hat[name]) for name, stage in real.stages.items()}
    others = (
        (by.sufficiency, sufficiency),
        (by.necessity, necessity),
        (by.relevance, relevance.supported if config.gate else relevance.measured),
        (by.closeness, close),
    )
    # A term that is switched off is reported, but not even a NaN in it reaches the loss or (see _counted) a gradient.
    of_task = config.w_task * task_loss if config.w_task else torch.zeros_like(task_loss)
    of_others = sum((weight * value for weight, value in others if not is_zero(weight)), torch.zeros_like(task_loss))
    return (
        of_task,
        of_others,
        C3RTerms(
            task=task_loss,
            sufficiency=sufficiency,
            necessity=necessity,
            relevance=relevance.measured,
            closeness=close,
            risk=risk_of(causal_logits.detach(), hypothetical_logits.detach(), labels, **masks),
            label_probability=label_probability,
            logits=logits,
            z=z,
            z_c=real.z_c,
            z_bar=z_bar,
            first_stage=stages,
            moments=batch,
            experts=term.experts,
            explained=explained,
            rows=None if batch is None else _by_name(features, batch.count),
        ),
    )


def _necessity(
    logits: Tensor,
    labels: Tensor,
    prior: Tensor | None,
    config: C3RConfig,
    *,
    where: Where,
    group: Group | None,
    task: Task,
) -> Float[Tensor, " batch"]:
    """The penalty of each row; with the gate, rows of rare classes count less."""
    kind = config.necessity
    if prior is None:  # "hinge" or "log", which need none, without the gate
        return task.necessity(logits, labels, kind)
    asked = prior
    if kind == "constant":
        asked = task.mean_prediction(logits, labels, prior, by_rarity=config.gate, where=where, group=group)
    if config.gate:
        return task.necessity_by_rarity(logits, labels, kind, prior, asked)
    return task.necessity(logits, labels, kind, asked)


def _by_name(features: Mapping[str, Tensor], counts: Tensor) -> dict[str, Tensor]:
    """{name: its number of rows}, from one number for all modalities or one for each."""
    return dict(zip(features, counts.expand(len(features)), strict=True))


def _counted(weight: Any, losses: Tensor) -> Tensor:
    """Per-example losses, as constants where their weight is 0."""
    return losses.detach() if is_zero(weight) else losses
