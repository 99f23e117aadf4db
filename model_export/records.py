"""The plain results that stages hand on. Data only: no torch, no files, no behaviour but text.

::

    planning ──▶ TrainingPlan    ┐
    training ──▶ TrainingHistory │
    cost     ──▶ CostTable       │
    folding  ──▶ Fate, …         ├──▶ report, metadata
    verify   ──▶ ParityCheck     │
    evaluate ──▶ AccuracyResult  ┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["folded", "kept", "refused"]
Objective = Literal["fewest", "speed"]
Placement = Literal["none", "before_activation", "after_activation"]


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one BatchNorm.

    Attributes:
        name: Module path, as ``model.named_modules()`` spells it.
        outcome: ``folded`` away, ``kept`` (nothing could absorb all of it), or ``refused``.
        where: The module path(s) that absorbed it. Where something remains: its own name if that stands
            in its place, else ``after`` the module whose output it is applied to.
        form: The algebra used, in words (``"scaled weights"``, ``"per-channel clamp"``, …).
        reason: Why it was kept or refused; None when folded.
        error: max|Δ| / max|reference| of its own output, read back from what the folded program stores, in
            float64; None where it was not folded.
    """

    name: str
    outcome: Outcome
    where: str
    form: str
    reason: str | None
    error: float | None


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One operator's cost for one instance. A multiply-add is one MAC.

    Attributes:
        name: Module path (or node name where no module owns it).
        operator: The operator, e.g. ``conv2d``.
        parameters: Scalars.
        weight_bytes: Bytes of the parameters and constants it reads.
        activation_bytes: Bytes of its output for one instance.
        macs: Multiply-adds for one instance.
        output_shape: Without the batch dimension.
        known: False: the operator has no cost rule; it is counted and named, not guessed.
        moved_bytes: Bytes that it reads and writes for one instance: operands, weights and output.
    """

    name: str
    operator: str
    parameters: int
    weight_bytes: int
    activation_bytes: int
    macs: int
    output_shape: tuple[int, ...]
    known: bool = True
    moved_bytes: int = 0

    @property
    def intensity(self) -> float:
        """Multiply-adds for each byte moved; below about ten, memory is what the layer waits for."""
        return self.macs / self.moved_bytes if self.moved_bytes else 0.0


@dataclass(frozen=True, slots=True)
class LayerTime:
    """How long the runtime takes for one node and one picture, on the exporting machine's CPU."""

    name: str
    operator: str
    seconds: float

    @property
    def is_batch_norm(self) -> bool:
        """Whether the node is a BatchNorm that is computed as one."""
        return self.operator == "BatchNormalization"


@dataclass(frozen=True, slots=True)
class CostTable:
    """The cost of a whole program, layer by layer.

    Attributes:
        layers: In the order of the program.
        peak_bytes: The most activation bytes of one instance that are needed at the same moment, when
            each value is kept from where it is made to where it is last read.
        times: Of the nodes that the runtime makes of it, every BatchNorm computed as one; empty where
            that was not measured.
    """

    layers: tuple[LayerCost, ...]
    peak_bytes: int = 0
    times: tuple[LayerTime, ...] = ()

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all activations of one instance, each counted once."""
        return sum(layer.activation_bytes for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds of one instance."""
        return sum(layer.macs for layer in self.layers)

    @property
    def moved_bytes(self) -> int:
        """Bytes that all operators read and write for one instance."""
        return sum(layer.moved_bytes for layer in self.layers)

    @property
    def batch_norm_share(self) -> float:
        """Share of the bytes moved that BatchNorms move."""
        moved = sum(layer.moved_bytes for layer in self.layers if "batch_norm" in layer.operator)
        return moved / self.moved_bytes if self.moved_bytes else 0.0

    @property
    def seconds(self) -> float:
        """Of all nodes together, for one picture; 0 where it was not measured."""
        return sum(each.seconds for each in self.times)

    @property
    def batch_norm_time_share(self) -> float:
        """Share of the measured time that BatchNorms take."""
        spent = sum(each.seconds for each in self.times if each.is_batch_norm)
        return spent / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class CostComparison:
    """A network's cost as it is trained, and as it is served."""

    before: CostTable
    after: CostTable


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """One split of a data set: how many pictures, and how many of them show each label."""

    name: str
    instances: int
    by_label: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What a network was trained, judged and measured on."""

    name: str
    splits: tuple[SplitSummary, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice of the planner.

    Attributes:
        subject: What was decided: ``conv1``, ``momentum``, ``loss``, …
        choice: What for, in words.
        reason: The numbers that it follows from.
    """

    subject: str
    choice: str
    reason: str


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Normalisation and loss, fitted to one network, one data set and one batch size.

    Attributes:
        placements: Where the BatchNorm of each layer that can have one stands, by the layer's name; empty
            where the architecture decides that itself.
        momentum: The share of the old moving average that a batch leaves (Keras's convention).
        epsilon: Added to every variance; None: as the architecture has it.
        class_weights: As in the configuration of training.
        label_smoothing: Likewise.
        decisions: Every choice with its reason.
    """

    placements: Mapping[str, Placement]
    momentum: float
    epsilon: float | None
    class_weights: Literal["none", "balanced"]
    label_smoothing: float
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of training. Losses are means over instances; the learning rate is that of its end."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainingHistory:
    """All epochs of one training run, in order."""

    epochs: tuple[EpochRecord, ...]


@dataclass(frozen=True, slots=True)
class AccuracyResult:
    """Accuracy of one form of the network on one split."""

    form: str  # "unfolded", "folded", "onnx", …
    dataset: str
    split: str
    instances: int
    value: float


@dataclass(frozen=True, slots=True)
class ParityCheck:
    """Two forms of the network compared: max|Δ| / max|reference| against its bound."""

    check: str
    error: float
    tolerance: float
    instances: int

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the bound."""
        return self.error <= self.tolerance  # False for NaN


@dataclass(frozen=True, slots=True)
class FoldOutcome:
    """A fold in plain records: what the report and the metadata say about it.

    Attributes:
        objective: What was asked for.
        fates: One a BatchNorm.
        affine_maps_left: Per-channel affine maps that the folded program still computes.
        error: max|Δ| / max|reference| of the outputs, both programs run in float64.
        saved_operations: Multiplications and additions of affine maps for one instance that are gone.
        constant_channels: Channels that never change, over all layers.
    """

    objective: Objective
    fates: tuple[Fate, ...]
    affine_maps_left: int
    error: float
    saved_operations: int = 0
    constant_channels: int = 0

    def count(self, outcome: Outcome) -> int:
        """How many BatchNorms had this outcome."""
        return sum(fate.outcome == outcome for fate in self.fates)


@dataclass(frozen=True, slots=True)
class LabelQuality:
    """How the served file answers where one label is right, or is answered.

    Attributes:
        instances: Held-back pictures that show it.
        found: Of these, those that got it as an answer.
        answered: Pictures that got it as an answer, rightly or not.
    """

    instances: int
    found: int
    answered: int

    @property
    def recall(self) -> float | None:
        """Share of its pictures that were found; None where there is none."""
        return self.found / self.instances if self.instances else None

    @property
    def precision(self) -> float | None:
        """Share of its answers that were right; None where there is none."""
        return self.found / self.answered if self.answered else None


@dataclass(frozen=True, slots=True)
class AnswerQuality:
    """How the served file answers on the held-back split.

    Attributes:
        labels: One a label, in their order.
        confusion: Instances by [true label][predicted label]; empty for multi-label tasks.
        confidence: Mean top probability of the instances in each tenth of confidence; 0 where empty.
        right: Share of right answers in each tenth.
        instances: How many instances are in each tenth.
        calibration_error: Mean |confidence − right|, weighted by instances (ECE, ten bins).
    """

    labels: tuple[LabelQuality, ...]
    confusion: tuple[tuple[int, ...], ...]
    confidence: tuple[float, ...]
    right: tuple[float, ...]
    instances: tuple[int, ...]
    calibration_error: float


@dataclass(frozen=True, slots=True)
class Verification:
    """Everything that was proven and measured about one model file.

    Attributes:
        checks: All passed.
        accuracy: Of each form of the network; empty where no pictures had labels.
        quality: Of the file's answers; None where no pictures had labels.
    """

    checks: tuple[ParityCheck, ...]
    accuracy: tuple[AccuracyResult, ...]
    quality: AnswerQuality | None


@dataclass(frozen=True, slots=True)
class CalibrationOutcome:
    """What estimating the running statistics anew brought.

    Attributes:
        source: Whose pictures they were estimated from.
        instances: How many.
        judged: How many other pictures, of the validation split, the accuracies are of.
        before: Accuracy with the statistics that training left.
        after: With the new ones.
        is_taken: Whether the new ones were kept: they are not worse, or fit another place on purpose.
        is_adapted: Whether the pictures are from where the model will be used.
    """

    source: str
    instances: int
    judged: int
    before: float
    after: float
    is_taken: bool
    is_adapted: bool


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """What one layer alone does to the logits in int8: max|Δ| / max|reference|."""

    layer: str
    error: float


@dataclass(frozen=True, slots=True)
class QuantizationOutcome:
    """How a file of another precision was made.

    Attributes:
        precision: ``int8`` or ``fp16``.
        kept: Layers that stayed in float.
        is_reduced: Weights use 7 of their 8 bits, since the exporting CPU's products saturate.
        drop: Points of accuracy lost on the validation split.
        sensitivities: Of every layer, the largest first; empty where none had to be measured.
    """

    precision: Literal["int8", "fp16"]
    kept: tuple[str, ...]
    is_reduced: bool
    drop: float
    sensitivities: tuple[LayerSensitivity, ...]


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """How many times as fast one file is as another: the median of interleaved pairs.

    Attributes:
        median: Time of the other file over its own.
        low: The interval holds the true median with at least 95 %.
        high: Its upper end.
    """

    median: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the two can be told apart by more than what is left to the clock, 2 %."""
        return self.low > 1.02 or self.high < 0.98

    def __str__(self) -> str:
        interval = f"{self.low:.2f} – {self.high:.2f}"
        if self.is_clear:
            return f"{self.median:.2f} times as fast ({interval})"
        return f"no difference in speed ({interval} times as fast)"


@dataclass(frozen=True, slots=True)
class PrecisionOutcome:
    """One file of another precision, made and proven.

    Attributes:
        made: How.
        verification: Its proofs and its accuracy.
        bytes: Of the file.
        float_bytes: Of the float32 file.
        speed_up: Beside the float32 file, for the same batch on the exporting machine's CPU.
    """

    made: QuantizationOutcome
    verification: Verification
    bytes: int
    float_bytes: int
    speed_up: SpeedUp
