"""Which modality a prediction needs, and which one is enough: interventions on per-modality representations."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c3r_jax.core.counterfactual import Predict, drop_modality
from c3r_jax.core.instruments import Fuse


class Attribution(NamedTuple):
    """What each modality contributes to the prediction of each row.

    Attributes:
      label: (B,) predicted class.
      probabilities: (B, K) with all present modalities.
      without: (B, M, K) with one modality's representation set to its mean.
      alone: (B, M, K) with one modality present and all others absent.
      necessary: (B, M) another class is predicted without it; False where the modality is absent.
      sufficient: (B, M) the same class is predicted from it alone; False where the modality is absent.
    """

    label: Int[Array, " batch"]
    probabilities: Float[Array, "batch classes"]
    without: Float[Array, "batch modalities classes"]
    alone: Float[Array, "batch modalities classes"]
    necessary: Bool[Array, "batch modalities"]
    sufficient: Bool[Array, "batch modalities"]


def attribution(
    predict: Predict,
    fuse: Fuse,
    features: Mapping[str, Float[Array, "batch _"]],
    present: Bool[Array, "batch modalities"],
    means: Mapping[str, Float[Array, " _"]],
) -> Attribution:
    r"""Intervenes on one modality at a time, and keeps one at a time.

    With y = argmax predict(fuse(h)), modality m is

    .. math::
       \text{necessary:}\ & \arg\max p(fuse(h \text{ with } do(h_m := \bar h_m))) \ne y \\
       \text{sufficient:}\ & \arg\max p(fuse(h \text{ with } m \text{ alone present})) = y

    Both are about this predictor, not about the world; with redundant modalities none is necessary and all are
    sufficient.

    Args:
      predict: z (B, d) -> logits (B, K).
      fuse: (features, present (B, M)) -> z (B, d).
      features: {name: (B, d_name)}, zero where absent.
      present: (B, M) bool, columns in the sorted order of the names.
      means: {name: (d_name,)} of the training set, so that no row depends on the others.

    Returns:
      :class:`Attribution`.

    Examples:
      >>> import jax.numpy as jnp
      >>> fuse = lambda h, present: sum(jnp.where(present[:, [m]], h[n], 0) for m, n in enumerate(("image", "text")))
      >>> features = {"image": jnp.array([[0.1, 0.0]]), "text": jnp.array([[-0.5, 2.0]])}
      >>> means = {name: jnp.zeros(2) for name in features}
      >>> result = attribution(lambda z: z, fuse, features, jnp.ones((1, 2), bool), means)
      >>> int(result.label[0]), result.necessary[0].tolist(), result.sufficient[0].tolist()
      (1, [False, True], [False, True])

    References:
      J. Pearl, Probabilities of causation: three counterfactual interpretations and their identification, 1999.
    """
    names, present = sorted(features), jnp.asarray(present)
    features = {name: jnp.asarray(features[name]) for name in names}

    def probabilities(h: Mapping[str, Array], visible: Array) -> Array:
        return jax.nn.softmax(predict(fuse(dict(h), visible)).astype(jnp.float32))

    full = probabilities(features, present)
    label = full.argmax(-1)
    dropped = [probabilities(drop_modality(features, name, mean=means[name]), present) for name in names]
    single = [probabilities(features, present & (jnp.arange(len(names)) == m)[None, :]) for m in range(len(names))]
    without, alone = jnp.stack(dropped, axis=1), jnp.stack(single, axis=1)
    return Attribution(
        label,
        full,
        without,
        alone,
        present & (without.argmax(-1) != label[:, None]),
        present & (alone.argmax(-1) == label[:, None]),
    )
