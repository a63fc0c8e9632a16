"""Modality dropout."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray


def drop_modalities(
    keys: PRNGKeyArray, present: Bool[Array, "batch modalities"], rate: float
) -> Bool[Array, "batch modalities"]:
    """Drops some of the present modalities of a share of the examples, never all of them.

    With probability ``rate`` an example keeps a random non-empty proper subset of its modalities.

    Args:
      keys: (B,) one PRNG key per example, so that the result does not depend on how a batch is split.
      present: (B, M) bool.
      rate: probability that an example loses modalities.

    Returns:
      (B, M) bool, a subset of ``present``; an example whose kept modalities are all absent keeps all it has.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> keys = jax.random.split(jax.random.key(0), 1000)
      >>> kept = drop_modalities(keys, jnp.ones((1000, 2), bool), 0.4)
      >>> print(bool(kept.any(1).all()), round(float((~kept.all(1)).mean()), 1))
      True 0.4
    """

    def drop(key: Array, have: Array) -> Array:
        chance, bits, pick = jax.random.split(key, 3)
        kept = jax.random.bernoulli(bits, 0.5, have.shape)
        forced = jnp.arange(have.shape[0]) == jax.random.randint(pick, (), 0, have.shape[0])
        kept = jnp.where(kept.any(), kept & ~(kept.all() & forced), forced)
        kept = have & jnp.where(jax.random.bernoulli(chance, rate), kept, True)
        return jnp.where(kept.any(), kept, have)

    return jax.vmap(drop)(keys, present)
