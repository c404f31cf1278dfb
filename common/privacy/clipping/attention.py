"""Multi-head attention built of linear layers, whose per-record gradients every engine knows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """The function of `torch.nn.MultiheadAttention`, with a linear layer each for queries, keys, values and output.

    width  of queries and outputs, a multiple of `heads`      keys, values  widths of theirs; None: the same
    Takes the arguments of torch's layer for batches and returns what it returns. Torch's extra learned key and value
    (add_bias_kv) and its key of zeros (add_zero_attn) are left out.
    Source: Vaswani et al. 2017, section 3.2.2.
    """

    in_proj_bias = None  # keeps torch's encoder layers off a shortcut that reads the weights of its own attention

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        keys: int | None = None,
        values: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        batch_first: bool = True,
    ):
        super().__init__()
        self.heads, self.dropout, self.batch_first = heads, float(dropout), batch_first
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width if keys is None else keys, width, bias=bias)
        self.value = nn.Linear(width if values is None else values, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        *,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """query [n, t, width], key and value [n, s, ...] (or [t, n, ...] if not batch_first) to outputs and weights.

        attn_mask  [t, s] or [n * heads, t, s]; key_padding_mask  [n, s]: True hides, numbers are added
        is_causal  hides what comes later, where no attn_mask is given
        The weights are [n, t, s], or [n, heads, t, s] if not averaged, or None if not needed.
        """
        if not self.batch_first:  # records come first also for the layers inside
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        if is_causal and attn_mask is None:
            attn_mask = torch.ones(query.shape[1], key.shape[1], dtype=torch.bool, device=query.device).triu(1)
        mask = self._mask(query, attn_mask, key_padding_mask)
        q, k, v = self._split(self.query(query)), self._split(self.key(key)), self._split(self.value(value))
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)
            weights = functional.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            heads = weights @ v
        else:
            weights = None
            heads = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        found = self.out(heads.transpose(1, 2).flatten(2))
        shown = weights.mean(1) if weights is not None and average_attn_weights else weights
        return (found if self.batch_first else found.transpose(0, 1)), shown

    def _split(self, x: Tensor) -> Tensor:
        """[n, t, width] to [n, heads, t, width / heads]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _mask(self, query: Tensor, attn_mask: Tensor | None, hidden: Tensor | None) -> Tensor | None:
        """Both masks as numbers to add to the scores, broadcast to [n, heads, t, s]."""
        mask = None
        if attn_mask is not None:
            mask = _numbers(attn_mask, query)
            mask = mask.view(-1, self.heads, *mask.shape[1:]) if mask.dim() == 3 else mask
        if hidden is not None:
            keys = _numbers(hidden, query)[:, None, None, :]
            mask = keys if mask is None else mask + keys
        return mask


def _numbers(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype is not torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
