"""The networks against what is published of them, and the loading of weights and of strangers."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model_export import architectures
from model_export.config import ModelConfig
from model_export.errors import ModelError

pytestmark = pytest.mark.usefixtures("one_thread")

LARGE = (3, 224, 224)
SMALL = (3, 32, 32)

# Learnable numbers with 1,000 classes (10 for the small ones). torchvision's documentation; for
# repvgg_a0 the paper's table 4 (9.11 M while training); for the CIFAR networks their checkpoints' authors.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
    "densenet121": 7_978_856,
    "vgg11_bn": 132_868_840,
    "repvgg_a0": 9_108_968,
    "cifar_resnet20": 272_474,
    "cifar_resnet32": 466_906,
    "cifar_resnet56": 855_770,
    "preact_resnet18": 11_171_146 + 2 * 512,  # the usual count, and the paper's last BatchNorm
    "article_cnn": 896 + 18_496 + 524_416 + 1_290 + 2 * (32 + 64 + 128),
}

# SHA-256 of the lines "key shape" of torchvision 0.29's state dicts, in their order.
TORCHVISION_KEYS = {
    "resnet18": "84fb10d9c6905a1cbb020b284537dc97c4f4ec55fb2a780a41152a23a2dd0e9d",
    "resnet34": "28f9096d5130749948981c6900083e57b19456b8b835829b8bdfe415bddc3f32",
    "resnet50": "d7e4f8bb0a5363446a59c81c3887ccf66900a11651a0ae2dec96d1bb1eb6ea81",
    "mobilenet_v2": "37bbbce8932fd0c49fe8e941719a7aa7b25b60c17b428749b72562f754135844",
    "densenet121": "aa0fd9923b0003b813430af55d9350bcf2555273dedae08042b92025727ccac8",
    "vgg11_bn": "8b6717e727c0ecf99bdc89d1a1d45e7bce7bd02440836869a4ef8b7c9897db70",
}


def outline(name: str) -> nn.Module:
    """The network in its usual size, without memory for its weights."""
    large = name in TORCHVISION_KEYS or name == "repvgg_a0"
    with torch.device("meta"):
        return architectures.build(name, input_shape=LARGE if large else SMALL, classes=1000 if large else 10)


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_parameters_are_as_many_as_published(name: str) -> None:
    assert sum(parameter.numel() for parameter in outline(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", TORCHVISION_KEYS)
def test_keys_and_shapes_are_those_of_torchvision(name: str) -> None:
    lines = [f"{key} {tuple(value.shape)}" for key, value in outline(name).state_dict().items()]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == TORCHVISION_KEYS[name]


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_an_instance_does_not_depend_on_its_batch_mates(name: str) -> None:
    if name == "vgg11_bn":
        pytest.skip("half a gigabyte of weights; its parts are those of the others")
    torch.manual_seed(0)
    model = architectures.build(name, input_shape=SMALL, classes=4).eval()
    x = torch.randn(3, *SMALL)
    with torch.inference_mode():
        together = model(x)
        alone = torch.cat([model(instance[None]) for instance in x])
    assert together.shape == (3, 4)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["resnet18", "cifar_resnet20", "mobilenet_v2", "repvgg_a0", "preact_resnet18"]
)
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    model = architectures.build(name, input_shape=SMALL, classes=4).train()
    model(torch.randn(4, *SMALL)).square().sum().backward()
    idle = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert idle == []


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> Tensor:
        config = ModelConfig(architecture="cifar_resnet20")
        model = architectures.load(config, input_shape=SMALL, classes=10, seed=seed)
        return nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"no architecture 'alexnet'; there are article_cnn, resnet18"):
        architectures.build("alexnet", input_shape=SMALL, classes=10)


@pytest.mark.parametrize(("name", "shape"), [("article_cnn", (1, 3, 8)), ("densenet121", (3, 16, 16))])
def test_pictures_that_are_too_small_are_refused(name: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(ModelError, match=name):
        architectures.build(name, input_shape=shape, classes=10)


# Strangers' networks ----------------------------------------------------------------------------


class Stranger(nn.Module):
    """A network that no room of this project knows."""

    def __init__(self, outputs: int = 10) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x).mean(dim=(2, 3)))
        return logits


def stranger() -> Stranger:
    return Stranger()


def with_too_few_outputs() -> Stranger:
    return Stranger(outputs=9)


def with_a_tuple() -> nn.Module:
    class Pair(Stranger):
        def forward(self, x: Tensor) -> Tensor:
            return (super().forward(x), x)  # type: ignore[return-value]  # wrong on purpose

    return Pair()


def with_dropout() -> nn.Module:
    class Forgetful(Stranger):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(super().forward(x))  # also while it evaluates

    return Forgetful()


def compiled() -> nn.Module:
    wrapped = torch.compile(nn.DataParallel(stranger()), backend="eager")
    assert isinstance(wrapped, nn.Module)
    return wrapped


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(10))


def with_a_softmax() -> nn.Module:
    return nn.Sequential(Stranger(), nn.Softmax(dim=1))


def failing() -> nn.Module:
    raise OSError("no disk")


def for_gray_pictures() -> nn.Module:
    return nn.Conv2d(1, 10, 3)


def text() -> str:
    return "a network"


constant = 3


def load(name: str, weights: Path | None = None) -> nn.Module:
    config = ModelConfig(model=f"{__name__}:{name}", weights=weights)
    return architectures.load(config, input_shape=SMALL, classes=10)


def in_half_precision() -> nn.Module:
    return stranger().half()


def test_a_stranger_computes_in_float32_whatever_it_keeps() -> None:
    network = load("in_half_precision")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_what_is_wrapped_around_a_stranger_is_taken_off() -> None:
    assert type(load("compiled")) is Stranger


def test_lazy_layers_can_learn() -> None:
    network = load("lazy")
    network(torch.randn(2, *SMALL)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_stranger_keeps_its_mode() -> None:
    assert load("stranger").training
    assert isinstance(load("stranger"), Stranger)


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("resnet18", "write it as package.module:factory"),
        (":factory", "write it as package.module:factory"),
        ("no_such_package:factory", "cannot import no_such_package"),
        (f"{__name__}:missing", "has no callable 'missing'"),
        (f"{__name__}:constant", "has no callable 'constant'"),
        (f"{__name__}:failing", r"failing\(\) failed: OSError: no disk"),
        (f"{__name__}:text", "gave a str, not an nn.Module"),
        (f"{__name__}:for_gray_pictures", "cannot take 3x32x32 pictures: RuntimeError"),
        (f"{__name__}:with_too_few_outputs", r"shape \(N, 10\).*: \(2, 9\)"),
        (f"{__name__}:with_dropout", "another answer each time"),
        (f"{__name__}:with_a_softmax", r"returns probabilities .*leave its softmax out"),
        ("tests.model_export.broken_stranger:factory", "importing .* failed: SystemExit: usage: train DATA"),
        (f"{__name__}:with_a_tuple", "for N = 2: a tuple"),
    ],
)
def test_a_stranger_that_is_no_classifier_is_refused(path: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        architectures.load(ModelConfig(model=path), input_shape=SMALL, classes=10)


# Weights ----------------------------------------------------------------------------------------


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(7)
    return {
        key: torch.randn_like(value.float()).to(value.dtype) for key, value in stranger().state_dict().items()
    }


WRAPPINGS = {"plain": "", "parallel": "module.", "compiled": "_orig_mod.", "both": "_orig_mod.module."}


def assert_loaded(model: nn.Module, state: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_weights_come_from_safetensors(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    assert_loaded(load("stranger", tmp_path / "weights.safetensors"), state)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_come_from_torch_files(
    state: dict[str, Tensor], tmp_path: Path, wrapping: str, place: str | None, zipped: bool
) -> None:
    keys = {f"{WRAPPINGS[wrapping]}{key}": value for key, value in state.items()}
    content = keys if place is None else {place: keys, "epoch": 3}
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    assert_loaded(load("stranger", tmp_path / "weights.pt"), state)


def test_torchvision_s_old_spelling_of_densenet_is_understood() -> None:
    torch.manual_seed(0)
    source = architectures.build("densenet121", input_shape=SMALL, classes=4)
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", key): value
           for key, value in source.state_dict().items()}  # fmt: skip
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    target = architectures.build("densenet121", input_shape=SMALL, classes=4)
    target.load_state_dict(old)
    assert_loaded(target, source.state_dict())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"head.weight": None}, r"missing: head\.weight$"),
        ({"tail.weight": torch.zeros(1)}, r"unexpected: tail\.weight$"),
        ({f"extra{n}": torch.zeros(1) for n in range(7)}, r"extra4 and 2 more$"),
        (
            {"head.weight": torch.zeros(7, 3)},
            r"shape: head\.weight \(7, 3\) for \(10, 3\); .* --labels",
        ),
        ({"epoch": 3}, "'epoch' is no tensor"),
        ({"head.bias": torch.full((10,), torch.nan)}, r"are no numbers: head\.bias; its training diverged"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    state: dict[str, Tensor], tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    content = {key: value for key, value in {**state, **change}.items() if value is not None}
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=complaint):
        load("stranger", tmp_path / "weights.pt")


def test_a_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(stranger(), tmp_path / "network.pt")
    with pytest.raises(ModelError, match=r"network\.pt.*save its state_dict\(\) instead"):
        load("stranger", tmp_path / "network.pt")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\x80\x02\x8a\x0ajunk", "not a file of plain weights"),
        (b"no weights at all", "neither a safetensors nor a torch file"),
        (b"", "neither a safetensors nor a torch file"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    file = tmp_path / "weights.bin"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=complaint):
        load("stranger", file)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {}, torch.zeros(2)])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="not a state dict"):
        load("stranger", tmp_path / "other.pt")
