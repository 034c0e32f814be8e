import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def step() -> ModuleType:
    spec = importlib.util.spec_from_file_location("step", Path(__file__).parents[2] / "benchmarks" / "step.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Net(nn.Sequential):
    """Calls its input `x`, as torchvision's nets do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


def net(width: int) -> Net:
    body = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return Net(*body, nn.Linear(width, 5))


def batches(count: int) -> list[dict[str, torch.Tensor]]:
    index = torch.arange(count * 4).view(-1, 4)
    return [{"image": torch.randn(4, 3, 8, 8), "target": torch.randint(5, (4,)), "index": i} for i in index]


def test_every_loop_does_the_same_work(step: ModuleType) -> None:
    torch.manual_seed(0)
    result = step.measure(net(8), net(4), batches(4), rounds=2)
    assert {"floor", "kd_runner", "kd_runner, cached logits"} <= set(result["off"])
    assert result["off"]["kd_runner, fast teacher"] < 1e-5 < result["moved"]
    assert {off for name, off in result["off"].items() if name != "kd_runner, fast teacher"} == {0.0}
    assert result["floors_apart"] < 1e-5 < result["moved"]
    assert all(len(rounds) == 2 for rounds in result["ms"].values())
    assert "| kd_runner |" in step.table(result)


def test_a_loop_that_moves_its_teacher_is_refused(step: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(teacher: nn.Module, *rest: object, **more: object) -> None:
        teacher.train()
        step.floor(teacher, *rest, **more)

    monkeypatch.setitem(step.LOOPS, "careless", careless)
    with pytest.raises(RuntimeError, match="careless moved its teacher"):
        step.measure(net(8), net(4), batches(2), rounds=1)
