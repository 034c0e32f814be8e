"""What a net costs, by hand."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.student_file import save_student
from kd_runner.profiling import costs

BATCH = {"image": torch.zeros(4, 3, 10, 12), "target": torch.zeros(4)}


INPUTS = {"input": BATCH["image"][:1]}


class Attention(nn.MultiheadAttention):
    """2 heads of 3 channels over `(B, 5, 6)`."""

    def __init__(self) -> None:
        super().__init__(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, x, x, need_weights=False)[0]


class FusedAttention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize(("net", "projections"), [(Attention(), 4 * 5 * 6 * 6), (FusedAttention(), 0)])
def test_the_products_inside_attention_count(net: nn.Module, projections: int) -> None:
    batch = {"image": torch.zeros(4, 5, 6) if projections else torch.zeros(4, 2, 5, 3)}
    assert costs.static(net, {"x": batch["image"][:1]})["macs"] == projections + 2 * 2 * 5 * 5 * 3


@pytest.mark.parametrize(
    ("net", "macs", "parameters"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), 10 * 12 * 8 * 3 * 9, 8 * 3 * 9 + 8),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), 5 * 6 * 8 * 3 * 9, 8 * 3 * 9),
        (nn.Conv2d(3, 6, 3, padding=1, groups=3), 10 * 12 * 6 * 9, 6 * 9 + 6),
        (nn.Sequential(nn.Flatten(), nn.Linear(360, 7)), 360 * 7, 360 * 7 + 7),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU()), 10 * 12 * 2 * 3, 2 * 3 + 2 + 4),
    ],
)
def test_multiply_adds_and_parameters_of_one_sample(net: nn.Module, macs: int, parameters: int) -> None:
    cost = costs.static(net, INPUTS)
    assert (cost["macs"], cost["parameters"]) == (macs, parameters)
    assert cost["input"] == {"input": [1, 3, 10, 12]}


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    save_student(net, tmp_path / "x.safetensors")
    assert costs.static(net, INPUTS)["weights_bytes"] == (tmp_path / "x.safetensors").stat().st_size


def test_measuring_leaves_the_net_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    costs.static(net, INPUTS)
    costs.torch_call(net, INPUTS)()
    assert net.training and net[1].training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_call_is_one_sample_in_eval_mode_without_gradients() -> None:
    seen: list[tuple[tuple[int, ...], bool, bool]] = []

    class Net(nn.Module):
        def forward(self, image: Tensor, label: Tensor) -> Tensor:
            seen.append((tuple(image.shape + label.shape), self.training, torch.is_grad_enabled()))
            return image

    net = FeatureExtractor(Net(), {"image": "image", "label": "target"}, {}, role="student")
    costs.torch_call(net.net, net.one_sample(BATCH))()
    assert seen == [((1, 3, 10, 12, 1), False, False)]


def test_latency_is_the_median_in_milliseconds_measured_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that the calls move: a takes 1, 2, 3 .. seconds, b always 10; the first 2 turns warm up."""
    clock, calls = [0.0], []
    monkeypatch.setattr(costs.time, "perf_counter", lambda: clock[0])

    def run(name: str) -> None:
        calls.append(name)
        clock[0] += calls.count("a") if name == "a" else 10

    cost = costs.latency({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=3, warmup=2)
    assert calls == ["a", "b"] * 5
    assert cost == {"a": 4000.0, "b": 10_000.0}
