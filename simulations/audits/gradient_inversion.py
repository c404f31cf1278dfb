"""From the gradient of one record back to the record: by optimisation for images, by division for linear layers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.errors import Code, Refusal
from common.learning.tasks import Task
from common.parameters import layout_of

STEPS = 400
RATE = 0.1
SMOOTH = 1e-3  # weight of the total variation
SMALLEST = 1e-12  # a bias gradient below it divides nothing

Flat64 = NDArray[np.float64]


def label_of(model: nn.Module, task: Task, observed: Flat64) -> int:
    """The label of the record, from the gradient of the last layer's bias: only the label pulls its logit up.

    Source: Zhao, Mopuri and Bilen 2020 (iDLG). Errors: Refusal MODEL_INVALID for a model without such a bias.
    """
    pull = _part(model, observed, last=True)
    return int(pull[0] < 0) if task.outputs == 1 else int(np.argmin(pull))


def by_division(model: nn.Module, observed: Flat64) -> Flat64:
    """The record that a first linear layer with a bias saw, float64 [inputs]: weight gradient over bias gradient.

    Exact for one record without noise: dL/dW = dL/db x. The unit with the largest bias gradient is used.
    Source: Phong et al. 2018, section 3. Errors: Refusal MODEL_INVALID for another first layer.
    """
    first = _first(model)
    slope = _part(model, observed, last=False)
    weights = observed[: first.weight.numel()].reshape(first.weight.shape)
    unit = int(np.abs(slope).argmax())
    if abs(slope[unit]) < SMALLEST:
        return np.zeros(first.in_features)
    return np.asarray(weights[unit] / slope[unit], np.float64)


def by_optimisation(
    model: nn.Module, task: Task, observed: Flat64, shape: tuple[int, ...], stream: torch.Generator
) -> NDArray[np.float32]:
    """An image in [0, 1] whose gradient points where the observed one does, float32 [channels, height, width].

    Minimises 1 - cosine similarity plus a total variation by Adam on the signs of its gradient, from noise.
    Source: Geiping et al. 2020, "Inverting Gradients", equation 4.
    """
    label = torch.tensor([label_of(model, task, observed)])
    target = torch.from_numpy(observed.astype(np.float32))
    target = target / target.norm().clamp_min(SMALLEST)
    trained = [p for p in model.parameters() if p.requires_grad]
    image = torch.rand((1, *shape), generator=stream).requires_grad_()
    optimizer = torch.optim.Adam([image], RATE)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [STEPS * 3 // 8, STEPS * 5 // 8, STEPS * 7 // 8])
    model.eval()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = task.losses(model(image), label).sum()
        found = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, trained, create_graph=True)])
        apart = 1 - found @ target / found.norm().clamp_min(SMALLEST) + SMOOTH * _variation(image)
        (image.grad,) = torch.autograd.grad(apart, [image])
        image.grad.sign_()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            image.clamp_(0.0, 1.0)
    return np.asarray(image.detach()[0].numpy(), np.float32)


def _variation(image: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbouring pixels."""
    across, down = image.diff(dim=-1).abs(), image.diff(dim=-2).abs()
    return (across.mean() if across.numel() else across.sum()) + (down.mean() if down.numel() else down.sum())


def _first(model: nn.Module) -> nn.Linear:
    """The first layer with parameters, if it is linear and has a bias."""
    layers = [one for one in model.modules() if next(one.parameters(recurse=False), None) is not None]
    if not layers or not isinstance(layers[0], nn.Linear) or layers[0].bias is None:
        raise _not_inverted("its first layer is not linear with a bias")
    return layers[0]


def _part(model: nn.Module, observed: Flat64, *, last: bool) -> Flat64:
    """The gradient of the bias of the first or the last layer."""
    layout = layout_of(model)
    sizes = [int(np.prod(shape)) for shape in layout.shapes]
    places = [i for i, name in enumerate(layout.names) if name.endswith("bias")]
    if not places or (last and places[-1] != len(sizes) - 1):
        raise _not_inverted("its last layer has no bias")
    place = places[-1 if last else 0]
    start = sum(sizes[:place])
    return observed[start : start + sizes[place]]


def _not_inverted(why: str) -> Refusal:
    return Refusal(Code.MODEL_INVALID, "Gradient not inverted", why, "Attack a model of another kind")
