r"""Fisher information: closed forms, from samples, and as a product with vectors.

.. math:: F = E[\nabla \log p\, \nabla \log p^\top]

For an exponential family :math:`p(x) \propto \exp(\eta^\top T(x))` with log-partition function
:math:`A` it is :math:`\nabla^2 A(\eta)`, which is also the derivative of the mean of :math:`T` with
respect to :math:`\eta`. For outputs :math:`z_i(\theta)` that parameterise a distribution of each
sample it is :math:`\frac1N \sum_i J_i^\top S_i J_i` with the Fisher matrix :math:`S_i` of that
distribution: :math:`\operatorname{diag}(1/\sigma^2)` for a Gaussian mean and
:math:`\operatorname{diag}(p) - pp^\top` for the logits of a categorical one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap
from torch.func import hessian as dense_hessian

from solvers.core import ShapeError, check_choice, check_positive, check_shape
from solvers.curvature._products import SymmetricOperator

__all__ = [
    "Family",
    "categorical_fisher",
    "exponential_family_fisher",
    "fisher",
    "gaussian_fisher",
    "sampled_fisher",
]

Family = Literal["gaussian", "categorical"]


def exponential_family_fisher(
    log_partition: Callable[[Tensor], Tensor], eta: Float[Tensor, " n"]
) -> Float[Tensor, "n n"]:
    r"""Fisher matrix of an exponential family in its natural parameters.

    Args:
        log_partition: :math:`A`, ``(n,)`` to scalar.
        eta: Natural parameters.

    Returns:
        :math:`\nabla^2 A(\eta)`.

    Reference: Amari 2016, "Information Geometry and Its Applications", section 2.1.

    Example:
        >>> bernoulli = torch.nn.functional.softplus
        >>> matrix = exponential_family_fisher(lambda eta: bernoulli(eta).sum(), torch.zeros(1))
        >>> float(matrix)
        0.25
    """
    check_shape("eta", eta, "n")
    matrix: Tensor = dense_hessian(log_partition)(eta.detach())
    symmetric: Tensor = 0.5 * (matrix + matrix.T)
    return symmetric


def gaussian_fisher(
    jacobian: Float[Tensor, "samples k n"],
    std: Float[Tensor, " k"] | float = 1.0,
    *,
    has_log_std: bool = False,
) -> Float[Tensor, "p p"]:
    r"""Fisher matrix of a Gaussian whose mean depends on parameters, averaged over samples.

    Args:
        jacobian: Of the means with respect to the parameters, shape ``(samples, k, n)``.
        std: Standard deviation of each of the k outputs.
        has_log_std: Whether the k log standard deviations are parameters as well, behind the
            others; each adds a diagonal entry 2.

    Returns:
        Matrix of n rows, or ``n + k``.
    """
    sizes = check_shape("jacobian", jacobian, "samples k n")
    scale = _std(std, jacobian).expand(sizes["k"])
    whitened = (jacobian / scale[:, None]).reshape(-1, sizes["n"])
    mean_block: Tensor = whitened.T @ whitened / sizes["samples"]
    if not has_log_std:
        return mean_block
    spread = 2.0 * torch.eye(sizes["k"], dtype=jacobian.dtype, device=jacobian.device)
    joined: Tensor = torch.block_diag(mean_block, spread)
    return joined


def categorical_fisher(
    jacobian: Float[Tensor, "samples k n"], logits: Float[Tensor, "samples k"]
) -> Float[Tensor, "n n"]:
    r"""Fisher matrix of a softmax whose logits depend on parameters, averaged over samples.

    Args:
        jacobian: Of the logits with respect to the parameters, shape ``(samples, k, n)``.
        logits: Shape ``(samples, k)``.

    Returns:
        :math:`\frac1N\sum_i J_i^\top (\operatorname{diag} p_i - p_i p_i^\top) J_i`.
    """
    sizes = check_shape("jacobian", jacobian, "samples k n")
    check_shape("logits", logits, "samples k", sizes=sizes)
    p = torch.softmax(logits, -1)
    centred = jacobian - torch.einsum("sk,skn->sn", p, jacobian)[:, None]
    rows = (p.sqrt()[..., None] * centred).reshape(-1, sizes["n"])
    return rows.T @ rows / sizes["samples"]


def sampled_fisher(
    log_probability: Callable[[Tensor, Tensor], Tensor],
    theta: Float[Tensor, " n"],
    samples: Float[Tensor, "s ..."],
    *,
    chunk: int = 256,
) -> Float[Tensor, "n n"]:
    r"""Estimate a Fisher matrix as the mean outer product of scores.

    Args:
        log_probability: Parameters ``(n,)`` and one sample to a scalar.
        theta: Parameters.
        samples: Drawn from the model at ``theta``, first axis counts them. Samples from data
            instead give the empirical Fisher matrix, another thing.
        chunk: Samples that are differentiated at once.

    Returns:
        The estimate; its error falls with one over the root of the number of samples.
    """
    score = vmap(grad(log_probability), in_dims=(None, 0), chunk_size=chunk)
    scores: Tensor = score(theta.detach(), samples)
    return scores.T @ scores / len(samples)


def fisher(
    outputs: Callable[[Tensor], Tensor],
    theta: Float[Tensor, " n"],
    *,
    family: Family,
    std: Float[Tensor, " k"] | float = 1.0,
    chunk: int = 64,
) -> SymmetricOperator:
    """Fisher matrix of a network by products: one forward and one reverse derivative each.

    Args:
        outputs: Parameters ``(n,)`` to means or logits ``(samples, k)``.
        theta: Parameters.
        family: What the outputs parameterise.
        std: Standard deviation of Gaussian outputs.
        chunk: Vectors that are multiplied at once.

    Returns:
        The operator, the mean over samples.

    Raises:
        ShapeError: If the outputs have not two axes.

    Example:
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> line = lambda theta: x * theta
        >>> float(fisher(line, torch.ones(1), family="gaussian").dense())
        2.5
    """
    check_choice("family", family, ("gaussian", "categorical"))
    point = theta.detach()
    with torch.no_grad():
        shape = outputs(point).shape
    if len(shape) != 2:
        raise ShapeError(f"outputs: give shape {tuple(shape)}, expected (samples, k)")
    scale = _std(std, point)

    def metric(z: Tensor, moved: Tensor) -> Tensor:
        if family == "gaussian":
            return moved / scale.square()
        p = torch.softmax(z, -1)
        return p * (moved - (p * moved).sum(-1, keepdim=True))

    def product(v: Tensor) -> Tensor:
        z, moved = jvp(outputs, (point,), (v,))[:2]
        result: Tensor = vjp(outputs, point)[1](metric(z, moved) / shape[0])[0]
        return result

    return SymmetricOperator(
        product=product, size=point.numel(), dtype=point.dtype, device=point.device, chunk=chunk
    )


def _std(std: Tensor | float, like: Tensor) -> Tensor:
    scale = torch.as_tensor(std, dtype=like.dtype, device=like.device)
    check_positive("std", scale)
    return scale
