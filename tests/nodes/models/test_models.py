"""The models that scenarios name."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import save
from safetensors.torch import load
from torch import nn

from nodes.data.shard import Shard
from nodes.models.base import MODELS, Fit, predictions, spelled_out
from nodes.runtime.errors import ScenarioError
from nodes.training.settings import Adam, TrainingSettings


def test_names() -> None:
    assert MODELS.names() == ["ares-mlp", "custom", "feddef-dnn", "logistic", "mlp", "mnist-cnn"]


@pytest.mark.parametrize(
    ("choice", "num_features", "num_classes", "task", "shapes", "loss"),
    [
        ({"name": "mlp"}, 9, 2, "binary", [(128, 9), (128, 128), (1, 128)], "sigmoid"),
        ({"name": "mlp", "hidden": [5]}, 9, 4, "multiclass", [(5, 9), (4, 5)], "softmax"),
        ({"name": "ares-mlp"}, 39, 2, "binary", [(128, 39), (128, 128), (1, 128)], "sigmoid"),
        ({"name": "feddef-dnn"}, 10, 2, "binary", [(20, 10), (30, 20), (2, 30)], "softmax"),
        ({"name": "feddef-dnn"}, 10, 5, "multiclass", [(20, 10), (30, 20), (5, 30)], "softmax"),
        ({"name": "logistic"}, 3, 2, "binary", [(1, 3)], "sigmoid"),
        ({"name": "logistic"}, 3, 3, "multiclass", [(3, 3)], "softmax"),
    ],
)
def test_shapes(choice: dict, num_features: int, num_classes: int, task: str, shapes: list, loss: str) -> None:
    network = MODELS.get(choice["name"]).model_validate(choice).build(num_features, num_classes, task)
    assert [shape for name, shape in network.layout.tensors if name.endswith("weight")] == shapes
    assert network.loss == loss


def test_a_layout_loads_into_a_torch_module() -> None:
    network = MODELS.get("mlp").model_validate({"name": "mlp", "hidden": [8, 4]}).build(6, 3, "multiclass")
    params_D = network.initial(np.random.default_rng(0))
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
    module.load_state_dict(load(save(network.layout.split(params_D))))
    features_BF = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)
    expected_BC = module(torch.from_numpy(features_BF)).detach().numpy()
    np.testing.assert_allclose(network.logits(params_D, features_BF), expected_BC, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "num_features", "task", "message"),
    [
        ("ares-mlp", 49, "binary", r"model: got 'ares-mlp for 49 features', expected data with 39 features"),
        ("ares-mlp", 39, "multiclass", r"data\.task: got 'multiclass', expected 'binary'"),
        ("mnist-cnn", 39, "multiclass", "expected data with 784 features"),
    ],
)
def test_data_that_a_model_cannot_serve(name: str, num_features: int, task: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        MODELS.get(name)().build(num_features, 7, task)


@pytest.mark.parametrize("hidden", [[], [0], [1.5], ["3"], 7])
def test_hidden_widths_are_strict(hidden: object) -> None:
    with pytest.raises(ValidationError):
        MODELS.get("mlp").model_validate({"name": "mlp", "hidden": hidden})


def test_the_mnist_network_learns_bright_quadrants() -> None:
    network = MODELS.get("mnist-cnn").model_validate({"name": "mnist-cnn", "channels": 2}).build(784, 4, "multiclass")
    rng = np.random.default_rng(0)
    labels_B = rng.integers(0, 4, 400)
    images = rng.random((400, 2, 14, 2, 14), dtype=np.float32) * 0.2
    images[np.arange(400), labels_B // 2, :, labels_B % 2] += 0.8
    shard = Shard(images.reshape(400, 784), labels_B, labels_B)
    params_D = network.initial(rng)
    settings = TrainingSettings(epochs=8, batch_size=32, optimizer=Adam(lr=3e-3))
    report = network.fit(params_D, Fit(shard, settings, rng))
    assert report.last_loss < 0.2 < report.first_loss
    assert np.mean(predictions(network.logits(params_D, shard.features_BF), network.loss) == labels_B) > 0.95


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_models.py").write_text(
        "from torch import nn\n"
        "def net(num_features, num_outputs):\n    return nn.Linear(num_features, num_outputs)\n"
        "def narrow(num_features, num_outputs):\n    return nn.Linear(num_features, 1 + num_outputs)\n"
        "def nothing(num_features, num_outputs):\n    return None\n"
        "def broken(num_features, num_outputs):\n    raise KeyError('no')\n"
        "def wants_more(a, b, c):\n    pass\n"
        "number = 3\n"
    )
    (tmp_path / "faulty_models.py").write_text("def net(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_models", None)


@pytest.mark.usefixtures("own_models")
def test_a_module_of_the_user() -> None:
    config = MODELS.get("custom").model_validate(spelled_out("own_models:net"))
    network = config.build(5, 3, "multiclass")
    assert network.layout.tensors == (("weight", (3, 5)), ("bias", (3,)))
    assert config.build(5, 2, "binary").loss == "sigmoid"


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_module:net", "an importable module; no_such_module raised ModuleNotFoundError"),
        ("faulty_models:net", "faulty_models raised SyntaxError"),
        ("own_models:absent", "a callable named absent in the module own_models"),
        ("own_models:number", "a callable named number"),
        ("own_models:nothing", "returns a torch.nn.Module, not NoneType"),
        ("own_models:broken", "it raised KeyError"),
        ("own_models:wants_more", "it raised TypeError"),
        ("own_models:narrow", r"gives \[2, 3\] for two rows, not \[2, 4\]"),
    ],
)
def test_a_module_that_cannot_be_used(factory: str, message: str) -> None:
    config = MODELS.get("custom").model_validate({"name": "custom", "factory": factory})
    with pytest.raises(ScenarioError, match=message) as caught:
        config.build(5, 3, "multiclass")
    assert str(caught.value).startswith(f"model.factory: got '{factory}', expected ")


@pytest.mark.parametrize("factory", ["net", "a:", ":b", "a b:c", ""])
def test_a_factory_is_module_colon_callable(factory: str) -> None:
    with pytest.raises(ValidationError):
        MODELS.get("custom").model_validate({"name": "custom", "factory": factory})
