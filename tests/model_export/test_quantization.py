"""Other precisions: they answer as well, they name what hurts, and too much lost publishes nothing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from model_export import export, quantization
from model_export.config import QuantizeConfig
from model_export.errors import InvalidConfig, VerificationFailed
from model_export.evaluation import open_session, predict
from model_export.pipeline import Run, WorkDir
from model_export.quantization import Int8Plan, calibrated_ranges, layer_names, to_int8
from service.artifact import Precision
from service.engine import Engine, EngineOptions, Provider


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy of the finished run, to go on with."""
    shutil.copytree(finished.workdir.path, tmp_path / "run")
    config = replace(finished.config, repository=tmp_path / "models")
    return Run(config, WorkDir(tmp_path / "run"))


def with_quantization(run: Run, config: QuantizeConfig) -> Run:
    return Run(replace(run.config, quantize=config), run.workdir)


def test_int8_and_fp16_are_published_beside_float32(run: Run) -> None:
    run = with_quantization(run, QuantizeConfig(precisions=("int8", "fp16"), max_accuracy_drop=2))
    int8, fp16 = run.quantize()
    folder = run.publish()
    assert int8.bytes < 0.5 * int8.float_bytes
    assert fp16.bytes < 0.7 * fp16.float_bytes
    for precision in Precision:
        path = folder / precision.file_name
        outputs = [(each.name, each.type) for each in open_session(path).get_outputs()]
        assert outputs == [("logits", "tensor(float)"), ("probabilities", "tensor(float)")]
        _, metadata = export.read_model_file(path)
        assert metadata.precision is precision
        assert metadata.version == folder.name == "1"
        assert metadata.accuracy[0].value > 0.9
        assert Engine.load(path, EngineOptions(provider=Provider.CPU)).self_test().relative_error < 1e-3
    tolerances = [
        export.read_model_file(folder / each.file_name)[1].selftest.tolerance["cuda"]
        for each in (Precision.FP32, Precision.FP16, Precision.INT8)
    ]
    assert tolerances == sorted(tolerances)


def test_weights_are_int8_a_scale_a_channel_and_activations_uint8(finished: Run) -> None:
    path = finished.workdir / "model.onnx"
    ranges = calibrated_ranges(path, finished.dataset.train.images[:64])
    proto = onnx.load_from_string(serialized(path, ranges, Int8Plan()))
    initializers = {each.name: each for each in proto.graph.initializer}
    kernels = [each for each in initializers.values() if each.name.endswith("weight_quantized")]
    assert {each.data_type for each in kernels} == {onnx.TensorProto.INT8}
    # One scale a channel of conv1, conv2, dense1 and dense2.
    scales = [each.dims[0] for each in initializers.values() if each.name.endswith("weight_scale")]
    assert scales == [32, 64, 128, 10]
    points = [
        initializers[node.input[2]].data_type for node in proto.graph.node if node.op_type == "QuantizeLinear"
    ]
    assert set(points) == {onnx.TensorProto.UINT8}


def serialized(path: Path, ranges: object, plan: Int8Plan) -> bytes:
    data: bytes = ir.to_proto(to_int8(path, ranges, plan)).SerializeToString()
    return data


def test_a_kept_layer_stays_in_float(finished: Run) -> None:
    path = finished.workdir / "model.onnx"
    ranges = calibrated_ranges(path, finished.dataset.train.images[:64])
    first, *_, last = layer_names(path)
    graph = to_int8(path, ranges, Int8Plan(kept=frozenset({first, last})))
    assert {node.name for node in graph.graph if has_float_weight(node)} == {first, last}


def has_float_weight(node: ir.Node) -> bool:
    weight = node.inputs[1] if node.op_type in ("Conv", "Gemm") else None
    return weight is not None and weight.producer() is None


def test_reduced_weights_use_seven_bits(finished: Run) -> None:
    path = finished.workdir / "model.onnx"
    ranges = calibrated_ranges(path, finished.dataset.train.images[:64])
    for is_reduced, limit in ((False, 127), (True, 64)):
        proto = onnx.load_from_string(serialized(path, ranges, Int8Plan(is_reduced=is_reduced)))
        largest = max(
            int(np.abs(onnx.numpy_helper.to_array(each).astype(int)).max())
            for each in proto.graph.initializer
            if each.name.endswith("weight_quantized")
        )
        assert largest == limit


def test_too_much_lost_publishes_nothing_and_names_the_layers(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges of black pictures clip everything that matters: the mutant that must fail."""

    def narrow(path: Path, images: NDArray[np.uint8]) -> object:
        return calibrated_ranges(path, np.full_like(images, 28))

    monkeypatch.setattr("model_export.quantization.search.calibrated_ranges", narrow)
    run = with_quantization(run, QuantizeConfig(precisions=("int8",)))
    with pytest.raises(VerificationFailed, match=r"int8 loses .* what hurts most: .*nothing was published"):
        run.quantize()
    assert not run.workdir.has("quantization.json")


def overflow(run: Run, first: int, last: int) -> tuple[str, ...]:
    """Makes what is between two layers 10⁶ times as large; the names of all layers that meet it."""
    path = run.workdir / "model.onnx"
    graph, description = export.read_model_file(path)
    layers = [node for node in graph.graph if node.op_type in ("Conv", "Gemm")][first : last + 1]
    scaled = [(layers[0].inputs[1], 1e6), (layers[-1].inputs[1], 1e-6)]
    scaled += [(layer.inputs[2], 1e6) for layer in layers[:-1]]
    for value, factor in scaled:
        assert value is not None
        assert value.const_value is not None
        numbers = value.const_value.numpy()
        value.const_value = ir.tensor((factor * numbers).astype(numbers.dtype), name=value.name)
    export.write_model_file(graph, path, description)
    return tuple(str(layer.name) for layer in layers)


def test_layers_that_overflow_in_half_precision_stay_in_float(run: Run) -> None:
    meeting = overflow(run, 1, 2)
    run = with_quantization(run, QuantizeConfig(precisions=("fp16",)))
    (outcome,) = run.quantize()
    assert outcome.made.kept == tuple(sorted(meeting))
    assert outcome.made.drop <= 0.5


def test_too_much_that_overflows_publishes_nothing_and_names_the_layers(run: Run) -> None:
    meeting = overflow(run, 0, 2)
    run = with_quantization(run, QuantizeConfig(precisions=("fp16",)))
    with pytest.raises(VerificationFailed, match=r"fp16 loses .*nothing was published") as error:
        run.quantize()
    assert all(layer in str(error.value) for layer in meeting)
    assert not run.workdir.has("quantization.json")


def test_the_last_layer_in_float_is_a_file_that_runs(run: Run) -> None:
    run = with_quantization(run, QuantizeConfig(precisions=("fp16",), keep_last=True, max_accuracy_drop=2))
    (outcome,) = run.quantize()
    assert outcome.made.kept == layer_names(run.workdir / "model.onnx")[-1:]


def test_a_layer_in_float_is_no_half_one(finished: Run) -> None:
    path = finished.workdir / "model.onnx"
    first, *_ = layer_names(path)
    graph = quantization.to_fp16(path, frozenset({first}))
    kinds = {
        node.name: weight.dtype
        for node in graph.graph
        if node.op_type in ("Conv", "Gemm") and (weight := node.inputs[1]) is not None
    }
    assert kinds.pop(first) == ir.DataType.FLOAT
    assert set(kinds.values()) == {ir.DataType.FLOAT16}


def test_only_as_many_layers_as_needed_stay_in_float(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer's weights are spoiled in int8: that one is found, and kept."""
    path = finished.workdir / "model.onnx"
    spoiled = layer_names(path)[1]
    true_int8 = quantization.to_int8

    def spoil(path: Path, ranges: object, plan: Int8Plan) -> object:
        graph = true_int8(path, ranges, plan)
        for node in graph.graph:
            producer = node.inputs[1].producer() if len(node.inputs) > 1 and node.inputs[1] else None
            if node.name == spoiled and producer is not None:
                scale = producer.inputs[1]
                assert scale is not None
                assert scale.const_value is not None
                scale.const_value = ir.tensor(-scale.const_value.numpy(), name=scale.name)
        return graph

    monkeypatch.setattr("model_export.quantization.search.to_int8", spoil)
    _, outcome = quantization.quantize_int8(path, finished.dataset, QuantizeConfig(max_accuracy_drop=2))
    assert outcome.kept == (spoiled,)
    assert outcome.sensitivities[0].layer == spoiled
    assert outcome.drop <= 2


def test_quantized_answers_do_not_depend_on_batch_mates(run: Run) -> None:
    run = with_quantization(run, QuantizeConfig(precisions=("int8",), max_accuracy_drop=2))
    (outcome,) = run.quantize()
    checks = {check.check: check for check in outcome.verification.checks}
    assert checks["int8.batch_mates"].passed
    assert checks["int8.accuracy_drop"].tolerance == 0.02
    session = open_session(run.workdir / "model.int8.onnx")
    images = run.dataset.test.images[:8]
    together = predict(session, images, run.dataset.contract)
    alone = predict(session, images[3:4], run.dataset.contract)
    np.testing.assert_allclose(alone[0], together[3], rtol=1e-2, atol=1e-2)


def test_this_machine_knows_whether_its_products_saturate() -> None:
    assert isinstance(quantization.products_saturate(), bool)


@pytest.mark.parametrize("changes", [{"max_accuracy_drop": -1}, {"calibration_instances": 0}])
def test_settings_that_cannot_be_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(InvalidConfig):
        QuantizeConfig(**changes)  # type: ignore[arg-type]  # that is the point
