"""Large matrix products by the fastest library at hand."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

_WORTH = 1 << 20  # multiplications from which on a call of oneDNN pays


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [m, k] times weight [n, k] transposed, plus bias [n]; float32, without slopes.

    By oneDNN, which uses the wide instructions of every maker's processors, where this torch has its product;
    otherwise by torch's own library, to the same numbers up to rounding.
    """
    if x.shape[0] * x.shape[1] * weight.shape[0] >= _WORTH and _one_dnn():
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
        return found
    return torch.mm(x, weight.t()) if bias is None else torch.addmm(bias, x, weight.t())


@functools.cache
def _one_dnn() -> bool:
    """Whether torch's private product of oneDNN is there and right. It has no promise to stay."""
    x = torch.arange(12.0).view(3, 4)
    weight, bias = torch.arange(8.0).view(2, 4) - 3.0, torch.ones(2)
    try:
        found = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
        columns = torch.ops.mkldnn._linear_pointwise(x, weight.t().contiguous().t(), None, "none", [], "")  # noqa: SLF001
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    plain = x @ weight.t()
    return torch.allclose(found, plain + bias) and torch.allclose(columns, plain)
