"""What a server answers about a picture, and how near that has to be to what it should answer."""

from __future__ import annotations

from dataclasses import dataclass

from service.artifact import Precision

# Batches of other sizes are added up in another order, which moves the last digits. int8 rounds: a value that
# falls on the other side moves a probability by up to a hundredth or so.
TOLERANCE = {Precision.FP32: 1e-4, Precision.INT8: 0.02}
# Reading a big JPEG no finer than it is needed gives other pixels than reading all of it: 0.004 was seen.
OWN_DECODER_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Answer:
    """The most probable class."""

    index: int
    probability: float

    def is_near(self, other: Answer, tolerance: float) -> bool:
        """Whether both name one class, with probabilities that differ by ``tolerance`` at most."""
        return self.index == other.index and abs(self.probability - other.probability) <= tolerance


def tolerance(precision: Precision, *, has_own_decoder: bool) -> float:
    """How far a probability may be from that of a lone picture, decoded by Pillow."""
    return max(TOLERANCE[precision], OWN_DECODER_TOLERANCE if has_own_decoder else 0.0)
