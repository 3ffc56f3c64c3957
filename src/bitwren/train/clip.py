"""Gradients held to the size of the weights that they move (Brock et al. 2021, arXiv 2102.06171, one norm a layer)."""

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def clip_gradients(weights: Iterable[Tensor], limit: float) -> None:
    """Scale down, in place, each weight's gradient whose norm is above `limit` times the weight's own.

    weights: of one layer each, any shape, not all 0. limit: > 0. A gradient that is not finite stays so, and is found
    as ever.
    """
    held = [weight for weight in weights if weight.grad is not None]
    gradients = [weight.grad for weight in held]
    sizes, most = torch._foreach_norm(gradients), torch._foreach_norm(held)
    torch._foreach_mul_(most, limit)
    torch._foreach_div_(most, sizes)  # infinite, and so 1, where a gradient is 0
    torch._foreach_clamp_max_(most, 1.0)
    torch._foreach_mul_(gradients, most)
