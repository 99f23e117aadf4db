"""The command line: what is typed becomes settings, what goes wrong one line and an exit code."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from model_export import command_line
from model_export.command_line import main, run_for
from model_export.command_line.flags import parser
from model_export.command_line.stages import STAGES
from model_export.config import RunConfig, TrainConfig
from model_export.pipeline import Run, WorkDir


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own, since ``runs`` and ``models`` are relative."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(*arguments: str) -> RunConfig:
    return run_for(parser().parse_args(arguments), Console(quiet=True)).config


def test_the_defaults_are_those_of_the_design() -> None:
    config = config_of("run")
    assert (config.name, config.repository, config.objective) == ("digits", Path("models"), "speed")
    assert (config.model.architecture, config.train.epochs) == ("article_cnn", 10)
    assert Path("runs/digits/config.json").is_file()


def test_every_flag_reaches_its_setting() -> None:
    config = config_of(
        *("run", "--dataset", "imagefolder", "--data-dir", "d", "--limit", "9", "--input", "3x32x48"),
        *("--resize", "shorter_side", "--resize-to", "64", "--interpolation", "bicubic", "--channels", "bgr"),
        *("--mean", "0.1,0.2,0.3", "--std", "1,2,3", "--model", "a.b:c", "--labels", "l.txt"),
        *("--epochs", "3", "--batch-size", "7", "--learning-rate", "0.5", "--seed", "4"),
        *("--objective", "fewest", "--name", "n", "--repository", "r", "--workdir", "w"),
    )
    data, model, train = config.data, config.model, config.train
    assert (data.dataset, data.data_dir, data.limit, data.input) == ("imagefolder", Path("d"), 9, (3, 32, 48))
    assert (data.resize, data.resize_to, data.interpolation, data.channels) == (
        "shorter_side",
        64,
        "bicubic",
        "bgr",
    )
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (1, 2, 3))
    assert (model.model, model.labels) == ("a.b:c", Path("l.txt"))
    assert (train.epochs, train.batch_size, train.learning_rate, train.seed) == (3, 7, 0.5, 4)
    assert (config.objective, config.name, config.repository) == ("fewest", "n", Path("r"))
    assert data.seed == 0, "the split stays the same whatever the seed of the training"


def test_the_name_is_that_of_the_data_set_unless_given() -> None:
    assert config_of("run", "--dataset", "mnist").name == "mnist"
    assert config_of("run", "--dataset", "mnist", "--name", "x").name == "x"


def test_a_network_with_weights_is_not_trained_unless_asked() -> None:
    assert config_of("run", "--weights", "w.pt").train.epochs == 0
    assert config_of("run", "--weights", "w.pt", "--epochs", "2").train.epochs == 2


def test_an_interrupted_training_goes_on_with_its_settings() -> None:
    config_of("train", "--name", "x", "--epochs", "3")
    assert config_of("train", "--name", "x", "--resume").train.epochs == 3


def test_going_on_with_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--name", "x", "--resume", "--epochs", "0"]) == 0
    assert "runs/x/checkpoint.pt is not there: the training begins anew" in capsys.readouterr().out


def test_every_setting_of_a_training_has_its_flag() -> None:
    flags = vars(parser().parse_args(["run", "--mixed-precision", *training_flags()]))
    assert set(TrainConfig.__dataclass_fields__) <= set(flags)


def training_flags() -> list[str]:
    flags = [
        "--normalization=planned",
        "--epochs=1",
        "--seed=1",
        "--batch-size=1",
        "--learning-rate=1",
        "--weight-decay=1",
    ]
    flags += ["--optimizer=sgd", "--schedule=cosine", "--warmup-epochs=1", "--augmentation=shift"]
    return [
        *flags,
        "--patience=1",
        "--fold-aware-epochs=1",
        "--label-smoothing=0.1",
        "--class-weights=balanced",
        "--device=cpu",
    ]


def test_later_stages_take_their_settings_from_the_work_folder() -> None:
    config_of("train", "--dataset", "mnist", "--name", "x", "--epochs", "3", "--objective", "fewest")
    fold = config_of("fold", "--name", "x")
    assert (fold.data.dataset, fold.train.epochs, fold.objective) == ("mnist", 3, "fewest")
    assert config_of("fold", "--name", "x", "--objective", "speed").objective == "speed"
    assert config_of("export", "--name", "x").objective == "speed", "a flag given again is remembered"
    assert config_of("run", "--name", "x").data.dataset == "digits", "a whole run starts afresh"


def test_a_training_after_a_plan_follows_it() -> None:
    config_of("plan", "--name", "x", "--epochs", "3")
    train = config_of("train", "--name", "x").train
    assert (train.normalization, train.epochs) == ("planned", 3)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "--input", "28x28"], "not of the form CxHxW"),
        (["run", "--mean", "a,b"], "not a list like"),
        (["run", "--dataset", "imagenet"], "invalid choice"),
        (["run", "--architecture", "transformer"], "invalid choice"),
        (["run", "--architecture", "resnet18", "--model", "a:b"], "not allowed with"),
        (["deploy"], "invalid choice"),
        ([], "STAGE"),
    ],
)
def test_a_wrong_command_line_is_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == command_line.EXIT_USAGE
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["run", "--epochs", "-1"], 2, "--epochs -1: must be zero or more"),
        (["fold", "--name", "unknown"], 2, "run `python -m model_export train` first"),
        (["publish", "--name", "unknown"], 2, "run `python -m model_export train` first"),
        (["run", "--dataset", "mnist", "--data-dir", "nowhere"], 1, "nowhere"),
        (["run", "--model", "no.such:thing"], 1, "cannot import no.such"),
        (["run", "--weights", "missing.pt"], 1, "missing.pt"),
        (["run", "--name", "../escape", "--workdir", "w", "--epochs", "0"], 2, "--name '../escape'"),
        (["run", "--workdir", "/dev/null/w"], 2, "--workdir /dev/null/w: cannot be made"),
        # All of these would otherwise be found out after the training.
        (["run", "--repository", "/dev/null"], 1, "--repository /dev/null: /dev/null is not a folder"),
        (["run", "--calibrate-on", "nowhere"], 2, "--calibrate-on nowhere: no such file or folder"),
        (["run", "--calibrate-on", "."], 2, "--calibrate-on .: no pictures (files ending in .jpg"),
        (
            ["run", "--model", f"{__name__}:without_statistics"],
            1,
            "error: 1: no running statistics; train it",
        ),
        (
            ["run", "--model", f"{__name__}:beyond_onnx"],
            1,
            "cannot be written as ONNX: No ONNX function found",
        ),
        # As it was said, and in one line, whatever others raise.
        (["run", "--model", f"{__name__}:boom"], 1, "boom: boom() failed: ValueError: one; two"),
        (["cost", "--input", "3x32x32", "--picture", "no/x.svg"], 2, "no is no folder; make it first"),
        (["cost", "--input", "3x32x32", "--classes", "0"], 2, "--classes 0: must be at least 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch copies its own deprecated classes
def test_a_failure_is_one_clear_line_and_an_exit_code(
    arguments: list[str], code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert complaint in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not Path("models").exists()


def without_statistics() -> nn.Module:
    norm = nn.BatchNorm2d(1, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(1, 1, 3), norm, nn.Flatten(), nn.Linear(36, 10))


class Inverse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        inverse: Tensor = torch.linalg.inv(x + 100 * torch.eye(8))
        return inverse.flatten(1)[:, :10]


def beyond_onnx() -> nn.Module:
    return Inverse()


def boom() -> nn.Module:
    raise ValueError("one\n\n two")


def test_a_full_disk_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(run: Run) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/digits/weights.safetensors")

    stages = {**STAGES, "train": replace(STAGES["train"], work=full)}
    monkeypatch.setattr(command_line, "STAGES", stages)
    assert main(["train"]) == 1
    assert capsys.readouterr().err == "error: runs/digits/weights.safetensors: No space left on device\n"


@pytest.mark.parametrize(
    ("damaged", "stage", "complaint"),
    [
        ("calibrated.safetensors", "fold", "not the weights of article_cnn for 1x8x8 pictures of 10 labels"),
        ("folded.pt2", "export", "folded.pt2: damaged; run `python -m model_export fold` again"),
        ("model.onnx", "verify", "model.onnx: not an ONNX file"),
        ("fold.json", "export", "fold.json: Invalid JSON"),
        ("config.json", "fold", "config.json: Invalid JSON"),
        ("checkpoint.pt", "train --resume", "checkpoint.pt: a damaged checkpoint"),
    ],
)
def test_a_damaged_file_of_the_work_folder_is_named(
    damaged: str,
    stage: str,
    complaint: str,
    finished: Run,
    elsewhere: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = elsewhere / "copy"
    shutil.copytree(finished.workdir.path, copy)
    (copy / damaged).write_bytes(b"junk")
    assert main([*stage.split(), "--workdir", str(copy)]) in (1, 2)
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_other_flags_than_those_of_the_training_are_named(
    finished: Run, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.workdir.path, elsewhere / "copy")
    assert main(["fold", "--workdir", "copy", "--input", "1x16x16"]) == 2
    assert "not the weights of article_cnn for 1x16x16 pictures" in capsys.readouterr().err


def test_an_impossible_name_is_refused_before_any_work(elsewhere: Path) -> None:
    assert main(["run", "--name", "a/b"]) == command_line.EXIT_USAGE
    assert list(elsewhere.iterdir()) == []


def test_the_examples_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            main(arguments)
        return capsys.readouterr().out

    general, adopting = shown("--help"), shown("adopt", "--help")
    assert "python -m model_export run --dataset mnist" in general
    assert "--input 3x224x224 \\\n" in general, "a line that goes on says so"
    assert "python -m model_export adopt resnet50.onnx" in adopting


def test_every_stage_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {stage.summary}" in text for name, stage in STAGES.items())


@pytest.mark.parametrize("name", STAGES)
def test_the_help_of_a_stage_has_what_it_leaves_and_an_example_that_is_one(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    text = capsys.readouterr().out
    assert STAGES[name].leaves in text
    assert f"python -m model_export {name} {STAGES[name].example}" in text
    assert parser().parse_args([name, *STAGES[name].example.split()]).stage == name


def test_json_is_the_result_and_nothing_else(
    finished: Run, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["cost", "--json", "--workdir", str(finished.workdir.path)]) == 0
    layers = json.loads(capfdbinary.readouterr().out)["layers"]
    assert sum(layer["macs"] for layer in layers) > 100_000


@pytest.mark.usefixtures("one_thread")
def test_the_cost_of_a_network_needs_no_data_and_begins_no_run(
    elsewhere: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    words = ["--architecture", "cifar_resnet20", "--input", "3x32x32", "--classes", "10"]
    assert main(["cost", *words, "--json", "--picture", "cost.svg"]) == 0
    found = json.loads(capfdbinary.readouterr().out)
    before, after = found["before"], found["after"]
    assert sum(layer["parameters"] for layer in before["layers"]) == 272_474
    assert sum(layer["macs"] for layer in before["layers"]) == sum(layer["macs"] for layer in after["layers"])
    norms = [each for each in before["times"] if each["operator"] == "BatchNormalization"]
    assert len(norms) == 21, "each BatchNorm is timed, though the runtime could fold it away"
    assert not any(each["operator"] == "BatchNormalization" for each in after["times"])
    picture = Path("cost.svg").read_text()
    assert picture.count("<rect") > 2 * len(after["layers"])
    assert "before the fold: BatchNorms move" in picture
    assert [path.name for path in elsewhere.iterdir()] == ["cost.svg"]


def test_classes_go_with_a_network_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--classes", "10"]) == command_line.EXIT_USAGE
    assert "--classes: goes with --input" in capsys.readouterr().err


def test_stages_one_by_one_make_what_a_whole_run_makes(elsewhere: Path) -> None:
    for stage in ("train", "cost", "fold", "export", "verify", "publish"):
        flags = ["--epochs", "1", "--limit", "200"] if stage == "train" else []
        assert main([stage, *flags]) == 0, stage
    published = elsewhere / "models/digits/1"
    assert sorted(path.name for path in published.iterdir()) == [
        "model.onnx",
        "model.onnx.sha256",
        "report.html",
        "report.json",
    ]
    report = json.loads((published / "report.json").read_text())
    assert report["config"]["train"]["epochs"] == 1
    assert WorkDir(elsewhere / "runs/digits").read("config.json", RunConfig).data.limit == 200


def test_an_old_proof_does_not_outlive_what_it_proved(tmp_path: Path) -> None:
    workdir = WorkDir(tmp_path / "w")
    files = ("weights.safetensors", "cost.json", "folded.pt2", "model.onnx", "verification.json")

    def left_after(stage: str) -> list[str]:
        for name in files:
            (workdir / name).touch()
        workdir.begin(stage)
        return [name for name in files if workdir.has(name)]

    assert left_after("train") == []
    assert left_after("cost") == [name for name in files if name != "cost.json"]
    assert left_after("fold") == ["weights.safetensors", "cost.json"]
    assert left_after("export") == ["weights.safetensors", "cost.json", "folded.pt2"]
    assert left_after("verify") == ["weights.safetensors", "cost.json", "folded.pt2", "model.onnx"]


def test_a_file_of_the_work_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    workdir = WorkDir(tmp_path)

    def interrupted() -> None:
        with workdir.whole("weights.safetensors") as part:
            part.write_bytes(b"half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not workdir.has("weights.safetensors")
    with workdir.whole("weights.safetensors") as part:
        part.write_bytes(b"all of it")
    assert (workdir / "weights.safetensors").read_bytes() == b"all of it"


def test_nothing_is_published_without_its_proofs(finished: Run, tmp_path: Path) -> None:
    (finished.workdir / "verification.json").rename(tmp_path / "kept.json")
    try:
        assert main(["publish", "--workdir", str(finished.workdir.path), "--repository", "r"]) == 2
        assert not Path("r").exists()
    finally:
        (tmp_path / "kept.json").rename(finished.workdir / "verification.json")
