"""Matchings as a task of :func:`c3r_jax.c3r_loss`: an example's class is its own key among all keys of the batch.

The outputs of a matching are not its logits, of which there are as many as pairs, but the few numbers of each row that
every loss, risk and counterfactual needs. They are sums over the keys, so the keys may come in parts, and from other
devices one after the other.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c3r_jax.core.batch import all_rows, first_row, global_count, promote
from c3r_jax.core.mapped_axes import varying_as
from c3r_jax.core.tasks.base import check_kind, check_outputs
from c3r_jax.core.tasks.classification import Classification

Match = Callable[[Float[Array, "batch d"], Float[Array, "keys d"]], Float[Array, "batch keys"]]
COLUMNS = ("own", "others", "total", "better", "pairs")
OWN, OTHERS, TOTAL, BETTER, PAIRS = range(len(COLUMNS))
Sums = tuple[Float[Array, " batch"], ...]  # others, total, better, pairs; not one array, which is joined and cut again
MISSING = -1e9  # the logit of a key that does not exist
ROUNDING = 1e-5  # logits that differ by less, relative to 1 and their size, count as equal


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Matching(Classification):
    """One of the n keys that exist; outputs (B, 5) are those of :func:`match_rows`.

    Attributes:
      count: n, a scalar array: chance is 1/n, and necessity "kl" asks for equal shares 1/n.
    """

    adds_up: ClassVar[bool] = False  # the scale of similarities is learned
    at_once: ClassVar[bool] = False  # as many logits as pairs
    count: Float[Array, ""]

    def check(self, outputs: Array, labels: Any) -> tuple[Float[Array, "batch columns"], Int[Array, " batch"]]:
        """Outputs (B, 5), and indices of keys (B,)."""
        return check_outputs(outputs, len(COLUMNS)), self.check_labels(labels, outputs.shape[0])

    def loss(self, outputs: Array, labels: Array, *, label_smoothing: float = 0.0) -> Float[Array, " batch"]:
        """Cross-entropy of the own key among all; labels are not smoothed."""
        del labels, label_smoothing
        return _all_keys_sum(outputs) - outputs[:, OWN]

    def necessity(
        self, outputs: Array, labels: Array, *, kind: str = "hinge", prior: Any = None
    ) -> Float[Array, " batch"]:
        r"""hinge, log, kl or constant in nats, as :func:`c3r_jax.necessity_loss`; the last two are KL(1/n || p)."""
        del labels, prior
        check_kind(kind)
        if kind == "log":
            return jax.nn.softplus(outputs[:, OWN] - outputs[:, OTHERS])
        log_count = jnp.log(jnp.maximum(self.count, 1)).astype(outputs.dtype)
        if kind == "hinge":
            return jax.nn.relu(outputs[:, OWN] - _all_keys_sum(outputs) + log_count)
        mean = outputs[:, TOTAL] / jnp.maximum(self.count, 1).astype(outputs.dtype)
        return _all_keys_sum(outputs) - mean - log_count

    def mean_prediction(self, outputs: Array, labels: Array, prior: Array, **how: Any) -> Float[Array, " 1"]:
        """1/n (1,): keys are of examples, and none is likelier than another."""
        del outputs, labels, how
        return prior

    def excess(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """Log-odds against the own key, relative to those at chance (1/n)."""
        del labels
        chance = jnp.log(jnp.maximum(self.count - 1, 1)).astype(outputs.dtype)
        return outputs[:, OTHERS] - outputs[:, OWN] - chance

    def correct(self, outputs: Array, labels: Array) -> Bool[Array, " batch"]:
        """Whether no other key matches better."""
        del labels
        return (outputs[:, BETTER] == 0) & jnp.isfinite(outputs).all(axis=1)

    def probability(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """The own key's share of the softmax."""
        return jnp.exp(-self.loss(outputs, labels))

    def batch_prior(
        self, labels: Array, num_outputs: int, *, where: Bool[Array, " batch"], axis_name: str | None = None
    ) -> Float[Array, " 1"]:
        """1/n (1,): every key is as likely as any other."""
        del labels, num_outputs, where, axis_name
        return 1 / jnp.maximum(self.count, 1)[None]

    def constant(self, prior: Array, num_rows: Float[Array, ""]) -> Float[Array, " columns"]:
        """Equal logits for all keys, whose loss is log n."""
        del prior, num_rows
        others = jnp.where(self.count > 1, jnp.log(jnp.maximum(self.count - 1, 1)), MISSING)
        zero = jnp.zeros_like(others)
        return jnp.stack([zero, others, zero, zero, zero])

    def out_of_range(self, labels: Array, num_outputs: int) -> None:
        """None: labels are indices of keys, and every one has a key."""
        del labels, num_outputs

    def rarity(self, labels: Array, prior: Array) -> None:
        """None: no key is rarer than another."""
        del labels, prior


def _all_keys_sum(outputs: Array) -> Float[Array, " batch"]:
    """Log-sum-exp of a row's logits."""
    return jnp.logaddexp(outputs[:, OWN], outputs[:, OTHERS])


def match_rows(
    match: Match,
    keys: Float[Array, "batch d"],
    usable: Bool[Array, " batch"],
    *,
    axis_name: str | None = None,
    chunks: int | None = None,
    pairs: bool = True,
) -> tuple[Callable[[Float[Array, "batch d"]], Float[Array, "batch columns"]], Int[Array, " batch"], Matching]:
    r"""How queries match the keys of the global batch, in five numbers each.

    For a query i with logits :math:`\ell_{ij}` against the keys that exist, of which j = i is its own:

    .. math::
       \text{own}: \ell_{ii}, \quad \text{others}: \log \sum_{j \ne i} e^{\ell_{ij}}, \quad
       \text{total}: \sum_j \ell_{ij}, \quad \text{better}: |\{j \ne i: \ell_{ij} > \ell_{ii}\}|, \quad
       \text{pairs}: \sum_{j \ne i} \log(1 + e^{\ell_{ij}})

    A logit that is equal up to rounding counts as better where it comes first.

    Args:
      match: queries (B, d), keys (N, d) -> logits (B, N); each logit is of its query and its key alone.
      keys: (B, d) the own keys of this device's queries.
      usable: (B,) bool, keys that exist.
      axis_name: mapped axis over which the batch is split.
      chunks: None: keys are gathered over the axis, once, and all logits of this device's queries are in memory. A
        number: keys go round the devices, and logits of one of so many parts of a device's keys are in memory at a
        time; they are computed again for the gradient.
      pairs: whether to compute the fifth number, which only the sigmoid loss reads; False: it is 0.

    Returns:
      A function from queries (B, d) to (B, 5), in the order of :data:`COLUMNS`; the index of each query's own key; and
      the task that reads the five numbers.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows, labels, task = match_rows(lambda q, k: q @ k.T, jnp.eye(3), jnp.array([True, True, False]))
      >>> print(rows(2 * jnp.eye(3))[:2, :4])
      [[2. 0. 2. 0.]
       [2. 0. 2. 0.]]
      >>> print(task.loss(rows(2 * jnp.eye(3)), labels)[:2].round(3))
      [0.127 0.127]
    """
    labels = first_row(len(keys), axis_name) + jnp.arange(len(keys))
    task = Matching(count=global_count(usable, axis_name, promote(keys).dtype))
    everything = all_rows((keys, usable), axis_name) if chunks is None else None

    def outputs(queries: Array) -> Array:
        own = _own_logits(match, queries, keys)
        if everything is None:
            assert chunks is not None  # for type checkers
            add = partial(in_parts, chunks, match, queries, own, labels, pairs=pairs)
            sums = around(add, no_sums(own), keys, usable, labels[0], axis_name)
        else:
            all_keys, all_usable = everything
            sums = compare(match, queries, own, labels, all_keys, all_usable, 0, pairs=pairs)
        return finished(own, sums, usable)

    return outputs, labels, task


def _own_logits(match: Match, queries: Array, keys: Array) -> Float[Array, " batch"]:
    """Logits of each query and its own key."""
    return promote(jax.vmap(lambda query, key: match(query[None], key[None])[0, 0])(queries, keys))


def compare(
    match: Match,
    queries: Float[Array, "batch d"],
    own: Float[Array, " batch"],
    labels: Int[Array, " batch"],
    keys: Float[Array, "keys d"],
    usable: Bool[Array, " keys"],
    first: Any,
    *,
    pairs: bool = True,
) -> Sums:
    """The sums of :func:`match_rows` over some of the keys, without the own one: others, total, better, pairs.

    Args:
      match: see :func:`match_rows`.
      queries: (B, d).
      own: (B,) logits of their own keys.
      labels: (B,) indices of their own keys in the global batch.
      keys: (N, d).
      usable: (N,) bool.
      first: index of the first of them in the global batch.
      pairs: False: the last sum is 0.
    """
    logits = promote(match(queries, keys))
    index = first + jnp.arange(keys.shape[0])
    other = usable[None, :] & (index[None, :] != labels[:, None])
    before = index[None, :] < labels[:, None]
    apart = logits - own[:, None]
    # Equal keys have logits that are equal up to rounding, which differs between a product of matrices and of vectors.
    rounding = ROUNDING * (1 + jnp.abs(own[:, None]))
    better = apart > jnp.where(before, -rounding, rounding)
    summed = partial(jnp.where, other)
    return (
        jax.nn.logsumexp(summed(logits, MISSING), axis=1),
        summed(logits, 0).sum(1),
        (other & better).sum(1).astype(logits.dtype),
        summed(jax.nn.softplus(logits), 0).sum(1) if pairs else jnp.zeros_like(own),
    )


def _compare(match: Callable[..., Array], pairs: bool, values: Any, rows: Any) -> Sums:
    """:func:`compare`, with the arguments that have a gradient first."""
    queries, own, keys, parameters = values
    labels, usable, first = rows
    compared = queries, own, labels, keys, usable, first
    return compare(lambda queries, keys: match(queries, keys, *parameters), *compared, pairs=pairs)


# Logits are computed again for the gradient, and again for the gradient of the gradient, along which counterfactuals
# move: jax.checkpoint alone would keep them for the second.
_compare_again = jax.custom_vjp(_compare, nondiff_argnums=(0, 1))


def _compare_forward(match: Callable[..., Array], pairs: bool, values: Any, rows: Any) -> tuple[Sums, Any]:
    # Copies: JAX confuses arguments that are saved as they are, where the whole is a closure_convert-ed function.
    return _compare_again(match, pairs, values, rows), jax.tree.map(jnp.copy, (values, rows))


def _compare_backward(match: Callable[..., Array], pairs: bool, saved: Any, slope: Sums) -> tuple[Any, None]:
    @jax.checkpoint
    def pull(values: Any, rows: Any, slope: Sums) -> Any:
        return jax.vjp(lambda values: _compare(match, pairs, values, rows), values)[1](slope)[0]

    return pull(*saved, slope), None


_compare_again.defvjp(_compare_forward, _compare_backward)


def no_sums(own: Float[Array, " batch"]) -> Sums:
    """The sums of :func:`compare` over no keys."""
    zero = jnp.zeros_like(own)
    return zero + MISSING, zero, zero, zero


def in_parts(
    chunks: int,
    match: Match,
    queries: Float[Array, "batch d"],
    own: Float[Array, " batch"],
    labels: Int[Array, " batch"],
    sums: Sums,
    keys: Float[Array, "keys d"],
    usable: Bool[Array, " keys"],
    first: Any,
    *,
    pairs: bool = True,
) -> Sums:
    """Adds the sums over keys, from one part of them after the other, each computed again for the gradient."""
    size = -(-keys.shape[0] // chunks)
    pure, parameters = jax.closure_convert(lambda queries, keys: match(queries, keys), queries, keys[:size])

    def against(keys: Array, usable: Array, first: Array) -> Sums:
        return _compare_again(pure, pairs, (queries, own, keys, parameters), (labels, usable, first))

    spare = -keys.shape[0] % size
    keys, usable = jnp.pad(keys, ((0, spare), (0, 0))), jnp.pad(usable, (0, spare))
    parts = keys.reshape(-1, size, keys.shape[1]), usable.reshape(-1, size)
    firsts = first + size * jnp.arange(parts[1].shape[0])
    return jax.lax.scan(lambda sums, part: (joined(sums, against(*part)), None), sums, (*parts, firsts))[0]


def around(
    add: Callable[..., Sums],
    sums: Sums,
    keys: Float[Array, "batch d"],
    usable: Bool[Array, " batch"],
    first: Any,
    axis_name: str | None,
) -> Sums:
    """Adds the sums over the keys of all devices, which each device passes on to the next."""
    if axis_name is None:
        return add(sums, keys, usable, first)
    devices = jax.lax.axis_size(axis_name)
    to_next = [(device, (device + 1) % devices) for device in range(devices)]

    def step(carry: Any, _: None) -> tuple[Any, None]:
        sums, block = carry
        sums = add(sums, *block)
        return (sums, jax.tree.map(lambda x: jax.lax.ppermute(x, axis_name, to_next), block)), None

    start = varying_as((sums, (keys, usable, first)), jax.lax.axis_index(axis_name))
    return jax.lax.scan(step, start, None, length=devices)[0][0]


def joined(some: Sums, more: Sums) -> Sums:
    """The sums of :func:`compare` over two sets of keys together."""
    return jnp.logaddexp(some[0], more[0]), *(a + b for a, b in zip(some[1:], more[1:], strict=True))


def finished(own: Float[Array, " batch"], sums: Sums, usable: Bool[Array, " batch"]) -> Float[Array, "batch columns"]:
    """The outputs of :func:`match_rows` from their sums over the other keys; the own key may not exist."""
    others, total, better, pairs = sums
    own = jnp.where(usable, own, 0)
    return jnp.stack([own, others, total + own, better, pairs], axis=1)
