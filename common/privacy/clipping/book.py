"""The book of one pass: what each layer noted about each record's gradient, by parameter."""

from __future__ import annotations

from torch import Tensor, nn

from common.errors import Code, Refusal
from common.privacy.clipping.contributions import Contribution, Dense, merged


class Book:
    """Layers write while gradients flow back; after the pass it gives one contribution for each parameter."""

    def __init__(self) -> None:
        self.records = 0  # of the micro-batch that is worked on
        self._notes: dict[int, list[Contribution]] = {}

    def open(self, records: int) -> None:
        """Begin the next micro-batch."""
        self.records = records
        self._notes = {}

    def checked(self, layer: nn.Module, x: Tensor) -> Tensor:
        """The inputs of a layer, whose first dimension must be the records. Errors: Refusal MODEL_INVALID."""
        if x.shape[:1] != (self.records,):
            why = f"its inputs have the shape {[*x.shape]} in a batch of {self.records} records"
            raise Refusal(
                Code.MODEL_INVALID,
                f"Layer {type(layer).__name__} not clipped",
                why,
                'Keep records in the first dimension, or use the engine "vmap"',
            )
        return x

    def note(self, parameter: nn.Parameter | None, part: Contribution) -> None:
        """One use of a parameter."""
        if parameter is not None and parameter.requires_grad:
            self._notes.setdefault(id(parameter), []).append(part)

    def note_rows(self, parameter: nn.Parameter | None, rows: Tensor) -> None:
        """One use of a parameter, as gradients [m, ...]."""
        self.note(parameter, Dense(rows.flatten(1)))

    def of(self, parameter: nn.Parameter) -> Contribution | None:
        """All uses of a parameter in this micro-batch; None if the loss does not depend on it."""
        notes = self._notes.pop(id(parameter), None)
        return None if notes is None else merged(notes)
