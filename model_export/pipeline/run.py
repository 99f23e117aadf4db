"""One run, stage by stage. A stage reads the work folder, writes to it, and knows no other stage."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn
from torch.export import ExportedProgram

from model_export import (
    architectures,
    calibration,
    cost,
    data,
    export,
    planning,
    report,
    training,
)
from model_export.config import RunConfig
from model_export.data import ImageDataset, Split
from model_export.errors import DataError, InvalidConfig
from model_export.evaluation import accuracy
from model_export.pipeline import costs, metadata, networks, precisions, summaries
from model_export.pipeline.progress import shown, shows
from model_export.pipeline.proofs import verify_file
from model_export.pipeline.publication import next_version, require_writable
from model_export.pipeline.versions import publish_version
from model_export.pipeline.workdir import WorkDir
from model_export.records import (
    CalibrationOutcome,
    CostTable,
    DataSummary,
    FoldOutcome,
    LayerTime,
    PrecisionOutcome,
    TrainingHistory,
    TrainingPlan,
    Verification,
)
from service.artifact import Precision

# So many pictures have at least as many values a channel: its mean is then known to 1.6 % of its
# deviation, with the fewest to 3.1 %.
CALIBRATION_INSTANCES = 4096
FEWEST_CALIBRATION_INSTANCES = 1024


@dataclass
class Run:
    """The stages of one export, over one work folder.

    Attributes:
        config: What was asked for.
        workdir: Where stages leave their results.
        console: Where progress is shown.
        resume: A training that was interrupted goes on; else it starts afresh.
    """

    config: RunConfig
    workdir: WorkDir
    console: Console = field(default_factory=lambda: Console(quiet=True))
    resume: bool = False

    def all(self) -> Path:
        """Every stage in order; what can be known to fail at the end is refused at the beginning.

        Returns:
            The published version's folder.
        """
        self._look_ahead()
        if self.config.train.normalization == "planned":
            self.plan()
        self.train()
        # Statistics that came with their weights are not ours to change, unless that was asked for.
        if self.config.train.epochs > 0 or self.config.calibrate_on is not None:
            self.calibrate()
        self.cost(is_detailed=False)
        self.fold()
        self.export()
        self.verify()
        if self.config.quantize.precisions:
            self.quantize()
        return self.publish()

    def _look_ahead(self) -> None:
        """Tries what the last stages need, before hours of training.

        Raises:
            ExportError: Of the stage that would have failed.
        """
        require_writable(self.config.repository)
        if self.config.calibrate_on is not None:
            try:
                data.require_pictures(self.config.calibrate_on)
            except DataError as error:
                raise InvalidConfig(f"--calibrate-on {error}") from error
        if self.config.model.model is not None and self.config.train.epochs > 0:
            with shown(f"trying whether {self._architecture} can be folded and written", self.console):
                program = networks.folded(
                    self._build().eval(), self.dataset.input_shape, self.config.objective
                ).program
                export.network_graph(program)

    @shows("planning")
    def plan(self) -> TrainingPlan:
        """Decides how the network is normalised and what it minimises, each with its reason."""
        self.workdir.begin("plan")
        network = self._build()
        table = cost.count(networks.trace(network.eval(), self.dataset.input_shape))
        plan = planning.plan(self.config.model, self.dataset, self.config.train, table)
        self.workdir.write("plan.json", plan)
        summaries.print_plan(plan, self.console)
        return plan

    def train(self) -> TrainingHistory:
        """Trains the network, unless 0 epochs were asked for: then it is taken as it came."""
        self.workdir.begin("train")
        checkpoint = self.workdir / "checkpoint.pt"
        if not self.resume:
            checkpoint.unlink(missing_ok=True)
        elif not checkpoint.exists():
            self.console.print(f"{checkpoint} is not there: the training begins anew", soft_wrap=True)
        plan = self._plan()
        network = self._build(plan)
        config = self.config.train
        if plan is not None:
            config = replace(config, class_weights=plan.class_weights, label_smoothing=plan.label_smoothing)
        history = TrainingHistory(())
        if config.epochs > 0:
            history = training.train(
                network, self.dataset, config, checkpoint=checkpoint, console=self.console
            )
        with self.workdir.whole("weights.safetensors") as part:
            save_model(network, str(part))  # tied weights stay tied
        self.workdir.write("history.json", history)
        self.workdir.write("data.json", metadata.summarise(self.dataset))
        summaries.print_training(history, self.console)
        return history

    def calibrate(self) -> CalibrationOutcome:
        """Estimates the running statistics anew; keeps them unless the validation accuracy falls.

        One half of the validation pictures gives them, without labels; the other half judges. Those of
        pictures from elsewhere are kept in any case: they need not suit the validation split.
        """
        self.workdir.begin("calibrate")
        network = self.network()
        unseen, judges = _halves(self.dataset.validation)
        judged_on = replace(self.dataset, validation=judges)
        before = accuracy(network, judged_on, "validation", name="trained").value
        images, source = self._calibration_pictures(unseen)
        batches = calibration.PixelBatches(images, self.dataset.contract)
        calibration.recalibrate(network, batches, console=self.console)
        after = accuracy(network, judged_on, "validation", name="calibrated").value
        is_adapted = self.config.calibrate_on is not None
        outcome = CalibrationOutcome(
            source, len(images), len(judges), before, after, after >= before or is_adapted, is_adapted
        )
        if outcome.is_taken:
            with self.workdir.whole("calibrated.safetensors") as part:
                save_model(network, str(part))
        self.workdir.write("calibration.json", outcome)
        summaries.print_calibration(outcome, self.console)
        return outcome

    @shows("counting and timing what it costs")
    def cost(self, *, is_detailed: bool = True) -> CostTable:
        """Counts and times what the network costs as it was trained.

        Args:
            is_detailed: Show every layer.
        """
        self.workdir.begin("cost")
        table = costs.before_fold(
            self.network(), self.dataset.contract, self.dataset.test.images[0], self.console
        )
        self.workdir.write("cost.json", table)
        if is_detailed:
            cost.print_table(table, self.console, title=f"{self._architecture}: cost of one picture")
        return table

    @shows("folding")
    def fold(self) -> FoldOutcome:
        """Folds away every BatchNorm that can be.

        Raises:
            FoldRefused: One is no constant affine map.
        """
        self.workdir.begin("fold")
        result = networks.folded(self.network(), self.dataset.input_shape, self.config.objective)
        outcome = FoldOutcome(
            objective=result.report.objective,
            fates=tuple(result.report),
            affine_maps_left=result.report.affine_maps_left,
            error=result.report.error,
            saved_operations=result.report.savings.elementwise_operations,
            constant_channels=sum(len(dead.channels) for dead in result.report.dead_channels),
        )
        table = cost.count(result.program)
        with self.workdir.whole("folded.pt2") as part:
            torch.export.save(result.program, part)
        self.workdir.write("fold.json", outcome)
        with self.workdir.whole("fold.svg") as part:
            part.write_text(result.report.picture(), encoding="utf-8")
        self.workdir.write("folded_cost.json", table)
        summaries.print_fold(outcome, self.console)
        if self.workdir.has("cost.json"):
            cost.print_comparison(self.workdir.read("cost.json", CostTable), table, self.console)
        return outcome

    @shows("writing the model file")
    def export(self) -> Path:
        """Writes the model file, complete but for what only its proofs can tell."""
        self.workdir.begin("export")
        network = export.network_graph(self._program())
        export.lower(network)
        graph = export.served_graph(
            network, self.dataset.contract, metadata.task_of(self.dataset), len(self.dataset.labels)
        )
        path = self.workdir / Precision.FP32.file_name
        export.write_model_file(graph, path)  # to be measured: its own logits go into its self-test
        description = metadata.describe(
            graph,
            path,
            self.dataset,
            name=self.config.name,
            version=next_version(self.config.repository, self.config.name),
            architecture=self._architecture,
            fold=self.workdir.read("fold.json", FoldOutcome),
        )
        export.write_model_file(graph, path, description)
        self.console.print(f"wrote {path} ({path.stat().st_size:,} bytes)", soft_wrap=True)
        return path

    @shows("proving")
    def verify(self) -> Verification:
        """Proves the file, and writes into it what was proven.

        Raises:
            VerificationFailed: A proof did not hold.
        """
        self.workdir.begin("verify")
        path = self.workdir.require(Precision.FP32.file_name)
        graph, description = export.read_model_file(path)
        found = verify_file(
            path,
            description,
            network=self.network(),
            folded=self._program(),
            dataset=self.dataset,
            objective=self.config.objective,
        )
        export.write_model_file(graph, path, metadata.proven(description, found))
        self.workdir.write("verification.json", found)
        self.workdir.write("profile.json", cost.profile(path, self.dataset.test.images[0]))
        summaries.print_verification(found, self.console)
        return found

    def quantize(self) -> tuple[PrecisionOutcome, ...]:
        """Makes the other precisions that were asked for, int8 where none was.

        Raises:
            VerificationFailed: One loses too much accuracy, or a proof did not hold.
        """
        self.workdir.begin("quantize")
        self.workdir.require("verification.json")
        float_file = self.workdir.require(Precision.FP32.file_name)
        outcomes = tuple(
            precisions.make(
                float_file, Precision(precision), self.dataset, self.config.quantize, self.console
            )
            for precision in self.config.quantize.precisions or ("int8",)
        )
        self.workdir.write("quantization.json", outcomes)
        return outcomes

    @shows("publishing")
    def publish(self) -> Path:
        """Takes the verified files into the model repository as the next version.

        Returns:
            The version's folder.

        Raises:
            PublishFailed: The repository could not take it.
        """
        facts = self._facts()
        self.workdir.require(Precision.FP32.file_name)
        return publish_version(self.workdir.path, self.config, facts, self.console)

    def network(self) -> nn.Module:
        """The trained network, evaluating; calibrated, if it has been.

        Raises:
            InvalidConfig: It has not been trained yet.
        """
        network = architectures.load(
            replace(self.config.model, weights=None),
            input_shape=self.dataset.input_shape,
            classes=len(self.dataset.labels),
            plan=self._plan(),
        )
        is_calibrated = self.workdir.has("calibrated.safetensors")
        name = "calibrated.safetensors" if is_calibrated else "weights.safetensors"
        file = self.workdir.require(name)
        try:
            load_model(network, file)
        except (RuntimeError, SafetensorError) as error:
            channels, height, width = self.dataset.input_shape
            raise InvalidConfig(
                f"{file}: not the weights of {self._architecture} for {channels}x{height}x{width} pictures "
                f"of {len(self.dataset.labels)} labels; give the flags of its training, or train again"
            ) from error
        return network.eval()

    def _program(self) -> ExportedProgram:
        """What the fold left behind.

        Raises:
            InvalidConfig: It has not been folded yet, or the file is damaged.
        """
        file = self.workdir.require("folded.pt2")
        if not zipfile.is_zipfile(file):
            raise InvalidConfig(f"{file}: damaged; run `python -m model_export fold` again")
        return torch.export.load(file)

    @cached_property
    def dataset(self) -> ImageDataset:
        """The pictures, read once."""
        return data.load_dataset(self.config.data, labels=self.config.model.labels, console=self.console)

    @property
    def _architecture(self) -> str:
        return self.config.model.model or self.config.model.architecture

    def _plan(self) -> TrainingPlan | None:
        if self.config.train.normalization != "planned":
            return None
        return self.workdir.read("plan.json", TrainingPlan)

    def _build(self, plan: TrainingPlan | None = None) -> nn.Module:
        return architectures.load(
            self.config.model,
            input_shape=self.dataset.input_shape,
            classes=len(self.dataset.labels),
            seed=self.config.train.seed,
            plan=plan,
        )

    def _calibration_pictures(self, held_out: Split) -> tuple[NDArray[np.uint8], str]:
        folder = self.config.calibrate_on
        if folder is not None:
            return data.load_pictures(folder, self.dataset.contract, console=self.console), str(folder)
        # Pictures that were not learnt from: a network knows its training pictures by heart, and what
        # they cause inside it is not what others will.
        unseen = _spread(held_out.images, CALIBRATION_INSTANCES)
        missing = max(0, FEWEST_CALIBRATION_INSTANCES - len(unseen))
        if missing == 0:
            return unseen, f"{self.dataset.name}, validation"
        learnt = _spread(self.dataset.train.images, missing)
        return np.concatenate([unseen, learnt]), f"{self.dataset.name}, validation and train"

    def _facts(self) -> report.Facts:
        has_quantized = self.workdir.has("quantization.json")
        return report.Facts(
            config=self.config,
            data=self.workdir.read("data.json", DataSummary),
            plan=self._plan(),
            history=self.workdir.read("history.json", TrainingHistory),
            calibration=self.workdir.read("calibration.json", CalibrationOutcome)
            if self.workdir.has("calibration.json")
            else None,
            cost=self.workdir.read("cost.json", CostTable),
            folded_cost=self.workdir.read("folded_cost.json", CostTable),
            fold=self.workdir.read("fold.json", FoldOutcome),
            fold_picture=self.workdir.require("fold.svg").read_text(encoding="utf-8"),
            verification=self.workdir.read("verification.json", Verification),
            times=self.workdir.read("profile.json", tuple[LayerTime, ...]),
            precisions=self.workdir.read("quantization.json", tuple[PrecisionOutcome, ...])
            if has_quantized
            else (),
        )


def _halves(split: Split) -> tuple[Split, Split]:
    """What statistics come from, and what judges them: pictures that gave some would flatter them."""
    positions = np.arange(len(split))
    return split.take(positions[::2]), split.take(positions[1::2] if len(split) > 1 else positions)


def _spread(images: NDArray[np.uint8], limit: int) -> NDArray[np.uint8]:
    """At most ``limit`` pictures from all over ``images``, which may be sorted by class."""
    return images[np.linspace(0, len(images) - 1, min(limit, len(images))).astype(np.intp)]
