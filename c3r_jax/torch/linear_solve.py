"""Solves with a symmetric positive definite matrix, whose gradient never passes through a factorisation."""

import torch
from jaxtyping import Float
from torch import Tensor


def inverse_spd(a: Float[Tensor, "p p"]) -> Float[Tensor, "p p"]:
    """Inverts a symmetric positive definite matrix, as a constant; a singular one as far as its dtype resolves it.

    Args:
      a: (p, p) symmetric, eigenvalues >= 0.

    Returns:
      (p, p) inverse; zeros for a zero matrix.
    """
    a = a.detach()
    factor, failed = torch.linalg.cholesky_ex(a)
    if not failed:
        return torch.cholesky_inverse(factor)
    return torch.linalg.pinv(a, hermitian=True)


def solve_spd(a: Float[Tensor, "p p"], b: Float[Tensor, "p d"]) -> Float[Tensor, "p d"]:
    r"""Solves A X = B for a symmetric positive definite A, with gradients by implicit differentiation.

    .. math::
       X = X_0 + A_0^{-1} (B - A X_0), \quad dX = A^{-1} (dB - dA\, X)

    with the constants :math:`A_0^{-1}` and :math:`X_0 = A_0^{-1} B`: one step of refinement whose first derivative is
    the solution's.

    Args:
      a: (p, p) symmetric positive definite; a zero matrix gives zeros.
      b: (p, d) right-hand sides.

    Returns:
      (p, d) solution in the dtype of the inputs.

    Examples:
      >>> solve_spd(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([[2.0], [2.0]])).T
      tensor([[1.0000, 0.5000]])
    """
    inverse = inverse_spd(a)
    first = inverse @ b.detach()
    return first + inverse @ (b - a @ first)
