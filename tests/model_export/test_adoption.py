"""Classifiers from elsewhere give the same answers when they are served, or are refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from model_export import export
from model_export.command_line import main
from model_export.config import AdoptConfig, DataConfig, ModelConfig, QuantizeConfig, RunConfig
from model_export.data import encode_png
from model_export.errors import InvalidConfig, ModelError
from model_export.evaluation import open_session
from model_export.pipeline import adopt
from service.artifact import Task

CLASSES = 3
QUIET = Console(quiet=True)


def linear(
    path: Path,
    shape: Sequence[int | str | None],
    *,
    classes: int = CLASSES,
    tail: Sequence[onnx.NodeProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    kind: int = TensorProto.FLOAT,
    opset: int = 20,
    reshape: Sequence[int] = (0, -1),
) -> Path:
    """An ONNX file: ``x`` of ``shape`` → flatten → matrix → ``y`` [N, classes], then ``tail``."""
    size = int(np.prod([each for each in shape[1:] if isinstance(each, int)]))
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weight = np.random.default_rng(0).normal(size=(size, classes)).astype(dtype)
    nodes = [
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
        *tail,
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", kind, shape)],
        outputs or [helper.make_tensor_value_info("y", kind, [None, classes])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.asarray(reshape), "target")],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def config(tmp_path: Path, **data: Any) -> RunConfig:
    return RunConfig(name="adopted", repository=tmp_path / "models", data=DataConfig(**data))


def pictures(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (4, height, width, channels), dtype=np.uint8)


Arrangement = Callable[[NDArray[np.floating]], NDArray[np.floating]]

LAYOUTS: dict[str, tuple[tuple[int | str | None, ...], Arrangement]] = {
    "channels first": (("N", 3, 6, 5), lambda x: x.transpose(0, 3, 1, 2)),
    "channels last": (("N", 6, 5, 3), lambda x: x),
    "flat": (("N", 90), lambda x: x.reshape(len(x), -1)),
    "gray, first": (("N", 1, 6, 5), lambda x: x.transpose(0, 3, 1, 2)),
    "gray, last": ((None, 6, 5, 1), lambda x: x),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_every_layout_and_float_type_gives_the_same_answers(layout: str, kind: int, tmp_path: Path) -> None:
    shape, arrange = LAYOUTS[layout]
    channels = 1 if "gray" in layout else 3
    path = linear(tmp_path / "linear.onnx", shape, kind=kind)
    mean, std = tuple(0.1 * (c + 1) for c in range(channels)), tuple(0.5 + c for c in range(channels))
    settings = config(tmp_path, input=(channels, 6, 5), mean=mean, std=std)
    folder = adopt(settings, AdoptConfig(path, "logits"), has_dataset=False, console=QUIET)

    images = pictures(6, 5, channels)
    normalised = ((images / 255 - mean) / std).astype(helper.tensor_dtype_to_np_dtype(kind))
    (expected,) = ort.InferenceSession(path).run(None, {"x": np.ascontiguousarray(arrange(normalised))})
    logits, probabilities = open_session(folder / "model.onnx").run(None, {"images": images})
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    powers = np.exp(expected - expected.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(("task", "activation"), [("multiclass", "Softmax"), ("multilabel", "Sigmoid")])
def test_probabilities_stay_and_their_logarithm_becomes_the_logits(
    task: Any, activation: str, tmp_path: Path
) -> None:
    output = helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, CLASSES])
    tail = [helper.make_node(activation, ["y"], ["p"])]
    path = linear(tmp_path / "p.onnx", ("N", 1, 4, 4), tail=tail, outputs=[output])
    adoption = AdoptConfig(path, "probabilities", task=task)
    folder = adopt(config(tmp_path), adoption, has_dataset=False, console=QUIET)

    images = pictures(4, 4, 1)
    feed = {"x": (images / 255).astype(np.float32).transpose(0, 3, 1, 2)}
    (expected,) = ort.InferenceSession(path).run(None, feed)
    logits, probabilities = open_session(folder / "model.onnx").run(None, {"images": images})
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    odds = expected if task == "multiclass" else expected / (1 - expected)
    np.testing.assert_allclose(logits, np.log(odds), atol=1e-4)
    assert export.read_model_file(folder / "model.onnx")[1].task is Task(task)


def test_a_probability_of_zero_has_a_logit(tmp_path: Path) -> None:
    """A tree that is certain gives exact zeros."""
    best = helper.make_node("Hardmax", ["y"], ["p"])
    output = helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, CLASSES])
    path = linear(tmp_path / "p.onnx", ("N", 1, 4, 4), tail=[best], outputs=[output])
    adoption = AdoptConfig(path, "probabilities")
    folder = adopt(config(tmp_path), adoption, has_dataset=False, console=QUIET)
    logits, probabilities = open_session(folder / "model.onnx").run(None, {"images": pictures(4, 4, 1)})
    assert np.isfinite(logits).all()
    assert set(probabilities.ravel()) == {0.0, 1.0}


def test_several_labels_that_are_certain_have_logits_that_float32_can_tell_apart(tmp_path: Path) -> None:
    """One rounding of a probability next to 0 or 1 must not decide between a logit of 17 and one of 87."""
    tail = [
        helper.make_node("Constant", [], ["steep"], value_float=20.0),
        helper.make_node("Mul", ["y", "steep"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["p"]),
    ]
    output = helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, CLASSES])
    path = linear(tmp_path / "p.onnx", ("N", 1, 4, 4), tail=tail, outputs=[output])
    adoption = AdoptConfig(path, "probabilities", task="multilabel")
    folder = adopt(config(tmp_path), adoption, has_dataset=False, console=QUIET)
    generator = np.random.default_rng(2)
    images = generator.integers(0, 256, (64, 4, 4, 1), dtype=np.uint8)
    logits, probabilities = open_session(folder / "model.onnx").run(None, {"images": images})
    assert 16 < np.abs(logits).max() < 17
    np.testing.assert_allclose(1 / (1 + np.exp(-logits.astype(np.float64))), probabilities, atol=1e-6)


def zip_map() -> tuple[list[onnx.NodeProto], list[onnx.ValueInfoProto]]:
    """What scikit-learn's converter appends: the best label, and one map a picture."""
    tail = [
        helper.make_node("Softmax", ["y"], ["p"]),
        helper.make_node("ArgMax", ["p"], ["output_label"], axis=1, keepdims=0),
        helper.make_node(
            "ZipMap",
            ["p"],
            ["output_probability"],
            domain="ai.onnx.ml",
            classlabels_strings=["ant", "bee", "cat"],
        ),
    ]
    mapping = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(1, []))
    outputs = [
        helper.make_tensor_value_info("output_label", TensorProto.INT64, [None]),
        helper.make_value_info("output_probability", helper.make_sequence_type_proto(mapping)),
    ]
    return tail, outputs


def test_a_map_of_probabilities_becomes_a_tensor_and_names_the_labels(tmp_path: Path) -> None:
    tail, outputs = zip_map()
    path = linear(tmp_path / "sk.onnx", (None, 16), tail=tail, outputs=outputs)
    settings = config(tmp_path, input=(1, 4, 4))
    folder = adopt(settings, AdoptConfig(path, "probabilities"), has_dataset=False, console=QUIET)
    graph, metadata = export.read_model_file(folder / "model.onnx")
    assert metadata.labels == ("ant", "bee", "cat")
    assert {"ZipMap", "ArgMax"}.isdisjoint(node.op_type for node in graph.graph)
    images = pictures(4, 4, 1)
    maps = ort.InferenceSession(path).run(
        ["output_probability"], {"x": (images / 255).astype(np.float32).reshape(4, -1)}
    )[0]
    probabilities = open_session(folder / "model.onnx").run(["probabilities"], {"images": images})[0]
    np.testing.assert_allclose(
        probabilities, [[each[label] for label in metadata.labels] for each in maps], atol=1e-6
    )


def test_a_data_set_measures_the_accuracy(tmp_path: Path) -> None:
    path = linear(tmp_path / "linear.onnx", ("N", 1, 8, 8), classes=10)
    folder = adopt(config(tmp_path), AdoptConfig(path, "logits"), has_dataset=True, console=QUIET)
    metadata = export.read_model_file(folder / "model.onnx")[1]
    assert metadata.labels == tuple("0123456789")
    assert (metadata.accuracy[0].dataset, metadata.accuracy[0].instances) == ("digits", 359)
    assert metadata.fold is None
    assert "right on 359 held-back pictures" in (folder / "report.html").read_text()


def test_an_old_opset_is_converted(tmp_path: Path) -> None:
    path = linear(tmp_path / "old.onnx", ("N", 1, 4, 4), opset=9)
    folder = adopt(config(tmp_path), AdoptConfig(path, "logits"), has_dataset=False, console=QUIET)
    assert export.read_model_file(folder / "model.onnx")[1].producer.opset >= 13


@pytest.mark.parametrize(
    ("shape", "data", "complaint"),
    [
        (("N", 64), {}, "flat (64 numbers a picture): say --input CxHxW"),
        (("N", 64), {"input": (1, 7, 7)}, "--input 1x7x7 has 49"),
        (("N", 3, 8, 8), {"input": (3, 9, 9)}, "--input says 3x9x9"),
        (
            ("N", 4, 8, 8),
            {},
            "shape [N,4,8,8], not [N, C, H, W] or [N, H, W, C] with 1 or 3 channels",
        ),
        (("N", 8, 8), {}, "what is needed is a float tensor"),
    ],
)
def test_an_input_that_cannot_be_pictures_is_refused(
    shape: tuple[Any, ...], data: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    path = linear(tmp_path / "linear.onnx", shape)
    with pytest.raises(ModelError) as error:
        adopt(config(tmp_path, **data), AdoptConfig(path, "logits"), has_dataset=False, console=QUIET)
    assert complaint in str(error.value)
    assert not (tmp_path / "models").exists()


def test_a_size_that_is_open_must_be_said(tmp_path: Path) -> None:
    node = helper.make_node("GlobalAveragePool", ["x"], ["y4"])
    flat = helper.make_node("Flatten", ["y4"], ["y"])
    graph = helper.make_graph(
        [node, flat],
        "open",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    path = tmp_path / "open.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8), path)
    adoption = AdoptConfig(path, "logits")
    with pytest.raises(InvalidConfig, match="say --input"):
        adopt(config(tmp_path), adoption, has_dataset=False, console=QUIET)
    sized = config(tmp_path, input=(3, 10, 12))
    assert adopt(sized, adoption, has_dataset=False, console=QUIET).name == "1"


def test_several_possible_outputs_have_to_be_named(tmp_path: Path) -> None:
    outputs = [helper.make_tensor_value_info(name, 1, [None, CLASSES]) for name in ("y", "p")]
    tail = [helper.make_node("Softmax", ["y"], ["p"])]
    path = linear(tmp_path / "two.onnx", ("N", 1, 4, 4), tail=tail, outputs=outputs)
    adoption = AdoptConfig(path, "logits")
    with pytest.raises(ModelError, match=r"\(y, p\), several can be the answer; name one with --output-name"):
        adopt(config(tmp_path), adoption, has_dataset=False, console=QUIET)
    named = replace(adoption, output_name="y")
    assert adopt(config(tmp_path), named, has_dataset=False, console=QUIET).name == "1"


def test_names_within_the_file_may_be_those_of_the_contract(tmp_path: Path) -> None:
    """Whatever its values and nodes are called, only what is put around them is ours."""
    tail = [
        helper.make_node("Identity", ["y"], ["logits"], name="normalise/logits"),
        helper.make_node("Identity", ["logits"], ["images"], name="probabilities"),
        helper.make_node("Softmax", ["images"], ["p"]),
    ]
    outputs = [helper.make_tensor_value_info(name, 1, [None, 10]) for name in ("logits", "p")]
    path = linear(tmp_path / "names.onnx", ("N", 1, 8, 8), classes=10, tail=tail, outputs=outputs)
    settings = replace(
        config(tmp_path), quantize=QuantizeConfig(precisions=("int8", "fp16"), max_accuracy_drop=100)
    )
    adoption = AdoptConfig(path, "probabilities", output_name="p")
    folder = adopt(settings, adoption, has_dataset=True, console=QUIET)
    images = pictures(8, 8, 1)
    feed = {"x": (images / 255).astype(np.float32).transpose(0, 3, 1, 2)}
    (expected,) = ort.InferenceSession(path).run(["p"], feed)
    for name, tolerance in (("model.onnx", 1e-6), ("model.fp16.onnx", 1e-2), ("model.int8.onnx", 0.1)):
        logits, probabilities = open_session(folder / name).run(None, {"images": images})
        np.testing.assert_allclose(probabilities, expected, atol=tolerance)
        np.testing.assert_allclose(np.exp(logits), probabilities, atol=1e-3)


@pytest.mark.parametrize("tail_shape", [[1, 1], [1]])
def test_an_output_that_was_pooled_to_a_point_becomes_a_row(tail_shape: list[int], tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.asarray([-1, CLASSES, *tail_shape]), "shape")
    tail = [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("Reshape", ["y", "shape"], ["pooled"]),
    ]
    output = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["N", CLASSES, *tail_shape])
    path = linear(tmp_path / "pooled.onnx", ("N", 1, 4, 4), tail=tail, outputs=[output])
    folder = adopt(config(tmp_path), AdoptConfig(path, "logits"), has_dataset=False, console=QUIET)
    images = pictures(4, 4, 1)
    feed = {"x": (images / 255).astype(np.float32).transpose(0, 3, 1, 2)}
    (expected,) = ort.InferenceSession(path).run(None, feed)
    logits = open_session(folder / "model.onnx").run(["logits"], {"images": images})[0]
    np.testing.assert_allclose(logits, expected.reshape(4, CLASSES), rtol=1e-4, atol=1e-5)


def test_an_output_that_cannot_be_the_answer_is_described(tmp_path: Path) -> None:
    output = helper.make_tensor_value_info("best", TensorProto.INT64, ["N"])
    tail = [helper.make_node("ArgMax", ["y"], ["best"], axis=1, keepdims=0)]
    path = linear(tmp_path / "best.onnx", ("N", 1, 4, 4), tail=tail, outputs=[output])
    adoption = AdoptConfig(path, "logits")
    with pytest.raises(
        ModelError, match=r"none of its outputs .* a float tensor \[N, K\].*: best \(int64 \[N\]\)"
    ):
        adopt(config(tmp_path), adoption, has_dataset=False, console=QUIET)
    with pytest.raises(ModelError, match="--output-name other: no such output; there are best"):
        adopt(config(tmp_path), replace(adoption, output_name="other"), has_dataset=False, console=QUIET)


def test_the_labels_of_the_file_decide_their_order(tmp_path: Path) -> None:
    """Folders are sorted as text, the labels of a classifier as numbers."""
    pictures_of = tmp_path / "pictures"
    for label in ("2", "10"):
        for number in range(4):
            place = pictures_of / label / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(encode_png(np.full((4, 4, 1), 50 * number + 9 * int(label), np.uint8)))
    tail = [
        helper.make_node("Softmax", ["y"], ["p"]),
        helper.make_node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[2, 10]),
    ]
    mapping = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(1, []))
    output = helper.make_value_info("maps", helper.make_sequence_type_proto(mapping))
    path = linear(tmp_path / "two.onnx", (None, 16), classes=2, tail=tail, outputs=[output])
    settings = config(tmp_path, dataset="imagefolder", data_dir=pictures_of, input=(1, 4, 4))
    folder = adopt(settings, AdoptConfig(path, "probabilities"), has_dataset=True, console=QUIET)
    metadata = export.read_model_file(folder / "model.onnx")[1]
    assert metadata.labels == ("2", "10")
    facts = json.loads((folder / "report.json").read_text())
    assert facts["data"]["splits"][2]["by_label"] == [1, 1]


def test_a_file_for_one_batch_size_only_is_refused(tmp_path: Path) -> None:
    path = linear(tmp_path / "one.onnx", (1, 1, 4, 4), reshape=(1, 16))
    with pytest.raises(ModelError, match="dynamic batch"):
        adopt(config(tmp_path), AdoptConfig(path, "logits"), has_dataset=False, console=QUIET)


def test_labels_must_be_as_many_as_outputs(tmp_path: Path) -> None:
    path = linear(tmp_path / "linear.onnx", ("N", 1, 4, 4))
    (tmp_path / "labels.txt").write_text("a\nb\n")
    settings = replace(config(tmp_path), model=ModelConfig(labels=tmp_path / "labels.txt"))
    with pytest.raises(InvalidConfig, match="2 labels for 3 outputs"):
        adopt(settings, AdoptConfig(path, "logits"), has_dataset=False, console=QUIET)


@pytest.mark.parametrize(
    ("activation", "said", "task", "complaint"),
    [
        ("Softmax", "logits", "multiclass", "are probabilities; say --output probabilities"),
        ("Sigmoid", "logits", "multilabel", "are probabilities; say --output probabilities"),
        ("Identity", "probabilities", "multiclass", r"reach from -\d.* to \d.*; say --output logits"),
        ("Sigmoid", "probabilities", "multiclass", "sum to .*say --task multilabel"),
    ],
)
def test_an_output_that_is_said_to_be_another_kind_is_refused(
    activation: str, said: Any, task: Any, complaint: str, tmp_path: Path
) -> None:
    """The proofs compare numbers: only their meaning would be wrong."""
    output = helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, CLASSES])
    path = linear(
        tmp_path / "p.onnx",
        ("N", 1, 4, 4),
        tail=[helper.make_node(activation, ["y"], ["p"])],
        outputs=[output],
    )
    with pytest.raises(InvalidConfig, match=complaint):
        adopt(config(tmp_path), AdoptConfig(path, said, task=task), has_dataset=False, console=QUIET)


@pytest.mark.parametrize(
    ("operator", "constant", "complaint"),
    [
        ("Mul", 0.0, "the same answer to 32 different pictures"),
        ("Div", 0.0, "not every answer is a finite number"),
    ],
)
def test_answers_to_nothing_are_refused(
    operator: str, constant: float, complaint: str, tmp_path: Path
) -> None:
    tail = [
        helper.make_node("Constant", [], ["c"], value_float=constant),
        helper.make_node(operator, ["y", "c"], ["p"]),
    ]
    output = helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, CLASSES])
    path = linear(tmp_path / "p.onnx", ("N", 1, 4, 4), tail=tail, outputs=[output])
    with pytest.raises(ModelError, match=complaint):
        adopt(config(tmp_path), AdoptConfig(path, "logits"), has_dataset=False, console=QUIET)


def test_one_number_a_picture_is_no_classifier(tmp_path: Path) -> None:
    path = linear(tmp_path / "one.onnx", ("N", 1, 4, 4), classes=1)
    with pytest.raises(ModelError, match="one number a picture"):
        adopt(config(tmp_path), AdoptConfig(path, "logits"), has_dataset=False, console=QUIET)


def test_other_precisions_need_pictures_to_judge_them(tmp_path: Path) -> None:
    path = linear(tmp_path / "linear.onnx", ("N", 1, 8, 8), classes=10)
    settings = replace(config(tmp_path), quantize=QuantizeConfig(precisions=("int8",)))
    with pytest.raises(InvalidConfig, match="name a data set with --dataset"):
        adopt(settings, AdoptConfig(path, "logits"), has_dataset=False, console=QUIET)


def test_an_operator_that_cannot_be_halved_is_one_clear_refusal(tmp_path: Path) -> None:
    """scikit-learn's scaler is no operator of ONNX itself, and its output has no declared type."""
    second = numpy_helper.from_array(np.eye(10, dtype=np.float32), "second")
    tail = [
        helper.make_node("Scaler", ["y"], ["z"], domain="ai.onnx.ml", scale=[1.0] * 10, offset=[0.0] * 10),
        helper.make_node("Constant", [], ["second"], value=second),
        helper.make_node("MatMul", ["z", "second"], ["p"]),
    ]
    output = helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 10])
    path = linear(tmp_path / "scaled.onnx", ("N", 1, 8, 8), classes=10, tail=tail, outputs=[output])
    settings = replace(config(tmp_path), quantize=QuantizeConfig(precisions=("fp16",)))
    complaint = r"--precisions fp16: .* not known to the converter .*leave fp16 out"
    with pytest.raises(InvalidConfig, match=complaint):
        adopt(settings, AdoptConfig(path, "logits"), has_dataset=True, console=QUIET)
    assert not (tmp_path / "models").exists()


def test_a_file_that_is_quantized_already_stays_as_it_is(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["y", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["z"]),
        helper.make_node("Identity", ["z"], ["logits"]),
    ]
    constants = [
        helper.make_node("Constant", [], ["scale"], value_float=0.1),
        helper.make_node(
            "Constant", [], ["zero"], value=helper.make_tensor("", TensorProto.UINT8, [], [128])
        ),
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 10])
    path = linear(
        tmp_path / "q.onnx", ("N", 1, 8, 8), classes=10, tail=[*constants, *nodes], outputs=[output]
    )
    settings = replace(config(tmp_path), quantize=QuantizeConfig(precisions=("int8",)))
    with pytest.raises(InvalidConfig, match="is quantized already"):
        adopt(settings, AdoptConfig(path, "logits"), has_dataset=True, console=QUIET)


@pytest.mark.parametrize("content", [None, b"", b"not an onnx file"])
def test_a_file_that_is_none_is_one_clear_line(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("m.onnx").write_bytes(content)
    assert main(["adopt", "m.onnx", "--output", "logits"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: m.onnx: ")
    assert error.count("\n") == 1
