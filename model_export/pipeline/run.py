"""One run, stage by stage. A stage reads the work folder, writes to it, and knows no other stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from rich.console import Console
from safetensors.torch import load_model, save_model
from torch import nn

from model_export import architectures, cost, data, export, report, training, verification
from model_export.config import RunConfig
from model_export.data import ImageDataset
from model_export.evaluation import open_session, predict
from model_export.pipeline import summaries
from model_export.pipeline.proofs import fold_network, trace_network, verify_file
from model_export.pipeline.publication import next_version, publish
from model_export.pipeline.workdir import WorkDir
from model_export.records import (
    AccuracyResult,
    CostTable,
    FoldOutcome,
    ParityCheck,
    TrainingHistory,
    Verification,
)
from service.artifact import (
    Accuracy,
    FoldSummary,
    ModelMetadata,
    Parity,
    Precision,
    ReferenceDistributions,
    Task,
)

SELF_TEST_INSTANCES = 4  # small in the file, and each replay costs start-up time
REFERENCE_INSTANCES = 2048  # a share of 1 % is then known to ±0.2 %


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
        """Every stage in order.

        Returns:
            The published version's folder.
        """
        self.train()
        self.cost()
        self.fold()
        self.export()
        self.verify()
        return self.publish()

    def train(self) -> TrainingHistory:
        """Trains the network, unless 0 epochs were asked for: then it is taken as it came."""
        self.workdir.begin("train")
        checkpoint = self.workdir / "checkpoint.pt"
        if not self.resume:
            checkpoint.unlink(missing_ok=True)
        network = architectures.load(
            self.config.model,
            input_shape=self.dataset.input_shape,
            classes=len(self.dataset.labels),
            seed=self.config.train.seed,
        )
        history = TrainingHistory(())
        if self.config.train.epochs > 0:
            history = training.train(
                network, self.dataset, self.config.train, checkpoint=checkpoint, console=self.console
            )
        save_model(network, str(self.workdir / "weights.safetensors"))  # tied weights stay tied
        self.workdir.write("history.json", history)
        summaries.print_training(history, self.console)
        return history

    def cost(self) -> CostTable:
        """Counts what the network costs as it was trained."""
        self.workdir.begin("cost")
        table = cost.count(trace_network(self._network(), self.dataset))
        self.workdir.write("cost.json", table)
        cost.print_table(table, self.console, title=f"{self._architecture}: cost of one picture")
        return table

    def fold(self) -> FoldOutcome:
        """Folds away every BatchNorm that can be.

        Raises:
            FoldRefused: One is no constant affine map.
        """
        self.workdir.begin("fold")
        result = fold_network(self._network(), self.dataset, self.config.objective)
        outcome = FoldOutcome(
            objective=result.report.objective,
            fates=tuple(result.report),
            affine_maps_left=result.report.affine_maps_left,
            error=result.report.error,
        )
        torch.export.save(result.program, self.workdir / "folded.pt2")
        self.workdir.write("fold.json", outcome)
        self.workdir.write("folded_cost.json", cost.count(result.program))
        summaries.print_fold(outcome, self.console)
        return outcome

    def export(self) -> Path:
        """Writes the model file, complete but for what only its proofs can tell."""
        self.workdir.begin("export")
        program = torch.export.load(self.workdir.require("folded.pt2"))
        network = export.network_graph(program)
        export.lower(network)
        graph = export.served_graph(network, self.dataset.contract, self.task, len(self.dataset.labels))
        path = self.workdir / Precision.FP32.file_name
        export.write_model_file(graph, path)  # to be measured: its own logits go into its self-test
        export.write_model_file(graph, path, self._metadata(graph, path))
        return path

    def verify(self) -> Verification:
        """Proves the file, and writes into it what was proven.

        Raises:
            VerificationFailed: A proof did not hold.
        """
        self.workdir.begin("verify")
        path = self.workdir.require(Precision.FP32.file_name)
        graph, metadata = export.read_model_file(path)
        found = verify_file(
            path,
            metadata,
            network=self._network(),
            folded=torch.export.load(self.workdir.require("folded.pt2")),
            dataset=self.dataset,
            objective=self.config.objective,
        )
        proven = metadata.model_copy(
            update={"parity": _parities(found.checks), "accuracy": _accuracies(found.accuracy)}
        )
        export.write_model_file(graph, path, proven)
        self.workdir.write("verification.json", found)
        summaries.print_verification(found, self.console)
        return found

    def publish(self) -> Path:
        """Takes the verified file into the model repository as the next version.

        Returns:
            The version's folder.

        Raises:
            PublishFailed: The repository could not take it.
        """
        graph, metadata = export.read_model_file(self.workdir.require(Precision.FP32.file_name))
        facts = self._facts()

        def write(folder: Path, version: int) -> None:
            final = metadata.model_copy(update={"version": str(version), "created_at": datetime.now(UTC)})
            path = folder / Precision.FP32.file_name
            digest = export.write_model_file(graph, path, final)
            verification.require([verification.self_test_replay(path, final)])
            report.write(facts, final, digest, folder)

        folder = publish(self.config.repository, self.config.name, write)
        self.console.print(f"published [bold]{folder}[/]", soft_wrap=True)
        return folder

    @cached_property
    def dataset(self) -> ImageDataset:
        """The pictures, read once."""
        return data.load_dataset(self.config.data, labels=self.config.model.labels, console=self.console)

    @property
    def task(self) -> Task:
        """One label a picture, or any number of them."""
        return Task.MULTICLASS if self.dataset.test.targets.ndim == 1 else Task.MULTILABEL

    @property
    def _architecture(self) -> str:
        return self.config.model.model or self.config.model.architecture

    def _network(self) -> nn.Module:
        """The trained network, evaluating."""
        network = architectures.load(
            replace(self.config.model, weights=None),
            input_shape=self.dataset.input_shape,
            classes=len(self.dataset.labels),
        )
        load_model(network, self.workdir.require("weights.safetensors"))
        return network.eval()

    def _metadata(self, graph: ir.Model, path: Path) -> ModelMetadata:
        folded = self.workdir.read("fold.json", FoldOutcome)
        images = export.self_test_images(
            self.dataset.test.images[:SELF_TEST_INSTANCES], self.dataset.contract
        )
        return ModelMetadata(
            name=self.config.name,
            version=str(next_version(self.config.repository, self.config.name)),
            created_at=datetime.now(UTC),
            task=self.task,
            labels=self.dataset.labels,
            input=self.dataset.contract,
            precision=Precision.FP32,
            architecture=self._architecture,
            fold=FoldSummary(
                objective=folded.objective,
                batch_norms=len(folded.fates),
                folded=folded.count("folded"),
                kept=folded.count("kept"),
                affine_maps_left=folded.affine_maps_left,
                error=folded.error,
            ),
            reference=self._reference(path),
            producer=export.producer(graph),
            selftest=export.make_self_test(path, images, self.dataset.contract),
        )

    def _reference(self, path: Path) -> ReferenceDistributions:
        train = self.dataset.train
        step = -(-len(train) // REFERENCE_INSTANCES)
        images = np.ascontiguousarray(train.images[::step])
        logits = predict(open_session(path), images, self.dataset.contract)
        sizes = None if train.sizes is None else train.sizes[::step]
        return export.reference_distributions(images, verification.activate(logits, self.task), sizes)

    def _facts(self) -> report.Facts:
        return report.Facts(
            config=self.config,
            history=self.workdir.read("history.json", TrainingHistory),
            cost=self.workdir.read("cost.json", CostTable),
            folded_cost=self.workdir.read("folded_cost.json", CostTable),
            fold=self.workdir.read("fold.json", FoldOutcome),
            verification=self.workdir.read("verification.json", Verification),
        )


def _parities(checks: Sequence[ParityCheck]) -> tuple[Parity, ...]:
    return tuple(
        Parity(check=each.check, error=each.error, tolerance=each.tolerance, instances=each.instances)
        for each in checks
    )


def _accuracies(results: Sequence[AccuracyResult]) -> tuple[Accuracy, ...]:
    return tuple(
        Accuracy(dataset=each.dataset, split=each.split, instances=each.instances, value=each.value)
        for each in results
        if each.form == "onnx"
    )
