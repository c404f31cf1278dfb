"""A first layer whose weights no site ever forms: they are the round's plus a product of what the site has seen."""

from __future__ import annotations

import torch
from torch import Tensor

from simulations.kernels.bunches import Bunch
from simulations.kernels.kernel import Step
from simulations.kernels.products import affine

CANCELLED = 0.05  # where records cancel so far, float32 products no longer tell the norm of their sum


class Factored:
    """`Layer` over the records of a bunch, given by their rows; pays where sites have few records beside the inputs.

    Plain steps leave site k with W - rate * S_k^T X_k, X_k [records, before] its records and S_k [records, after] the
    summed slopes of each. So X_k W_k^T needs the product of all records with the one W, and the likeness X_k X_k^T;
    the norm of the change comes from that likeness as well, unless its terms cancel, and the sum over sites is one
    product. A bias is one more input that is always 1.
    Source: the dual form of gradient descent (Aizerman et al. 1964); norms from products as Li et al. 2022 (ghost
    clipping), there of records, here of sites.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, step: Step):
        self._weight, self._bias, self._step = weight, bias, step

    def open(self, bunch: Bunch) -> None:
        sites, records = bunch.sites, bunch.records
        self._inputs = bunch.inputs
        self._each = bunch.inputs[:-1].view(sites, records, -1)
        self._begun = affine(bunch.inputs, self._weight, self._bias)
        self._like = torch.zeros(len(bunch.inputs), records)  # last row: the record of zeros is like none
        likeness = self._like[:-1].view(sites, records, records)
        torch.bmm(self._each, self._each.transpose(1, 2), out=likeness)
        if self._bias is not None:
            likeness += 1.0
        self._slopes = torch.zeros(len(bunch.inputs), len(self._weight))
        self._fresh = True

    def forward(self, rows: Tensor) -> Tensor:
        """Outputs [sites, batch, after] of the records at `rows`, int64 [sites * batch]."""
        self._rows = rows
        sites, records, _ = self._each.shape
        found = self._begun.index_select(0, rows).view(sites, -1, len(self._weight))
        if not self._fresh:
            likeness = self._like.index_select(0, rows).view(sites, -1, records)
            found.baddbmm_(likeness, self._sums(), alpha=-self._step.rate)
        return found

    def backward(self, slope: Tensor) -> Tensor:
        if self._step.pull:
            self._slopes.mul_(1.0 - self._step.pull)
        self._slopes.index_add_(0, self._rows, slope.reshape(len(self._rows), -1))
        self._fresh = False
        return slope

    def squares(self) -> Tensor:
        sites, records, _ = self._each.shape
        sums, likeness = self._sums(), self._like[:-1].view(sites, records, records)
        found = torch.bmm(likeness, sums).mul_(sums).sum((1, 2)).double() * self._step.rate**2
        alike = torch.diagonal(likeness, dim1=1, dim2=2).sqrt()
        longest = (torch.linalg.vector_norm(sums, dim=2) * alike).sum(1).double().square() * self._step.rate**2
        for site in torch.nonzero(found * records < CANCELLED * longest)[:, 0].tolist():
            found[site] = sum(part.double().square().sum() for part in self._changes(slice(site, site + 1)))
        return found

    def summed(self, factors: Tensor) -> list[Tensor]:
        taken = (self._sums() * (factors * -self._step.rate)[:, None, None]).flatten(0, 1).t().contiguous()
        weight = affine(taken, self._inputs[:-1].t())
        return [weight] if self._bias is None else [weight, taken.sum(1)]

    def rows(self) -> list[Tensor]:
        return self._changes(slice(None))

    def _changes(self, sites: slice) -> list[Tensor]:
        sums = self._sums()[sites] * -self._step.rate
        weight = torch.bmm(sums.transpose(1, 2), self._each[sites])
        return [weight] if self._bias is None else [weight, sums.sum(1)]

    def _sums(self) -> Tensor:
        """S, [sites, records, after]."""
        sites, records, _ = self._each.shape
        return self._slopes[:-1].view(sites, records, -1)
