"""What is not a number ends the run, with step and name."""

import functools

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.finite import LossCheck, NonFiniteError, check_metrics, check_weights
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.distillation.module import Distiller

pytestmark = pytest.mark.filterwarnings("ignore:.*(num_workers|does not have many workers|log_every_n_steps|_pytree).*")


class SquareUntil(nn.Module):
    """Mean square; from a call on, nan as a value or as a gradient."""

    def __init__(self, call: int = 99, gradient: bool = False):
        super().__init__()
        self.call, self.gradient, self.calls = call, gradient, -1  # one call builds

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls < self.call:
            return x.square().mean()
        if self.gradient:
            return (x - x.detach()).sum().sqrt() + x.square().mean()  # the root of 0 has an infinite slope
        return x.mean() * torch.nan


def distiller(*losses: nn.Module, lr: float = 0.1, weight: float = 1.0) -> Distiller:
    torch.manual_seed(0)
    student = FeatureExtractor(nn.Linear(3, 2), {"input": "x"}, {"out": ":"})
    terms = [LossTerm(f"term{i}", loss, {"x": "student.out"}, weight) for i, loss in enumerate(losses)]
    module = Distiller(student, terms=terms, optimizer=functools.partial(torch.optim.SGD, lr=lr))
    module.build_losses({"x": torch.ones(2, 3)})
    return module


def fit(module: Distiller) -> None:
    from lightning.pytorch import Trainer

    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader([{"x": torch.ones(3)}] * 12, batch_size=2))


def test_a_term_that_becomes_nan_is_named_with_its_step() -> None:
    module = distiller(SquareUntil(), SquareUntil(3))
    with pytest.raises(NonFiniteError, match=r"^loss\.term1 is nan at step 2: training has diverged"):
        fit(module)
    check_weights(module.net, 2)  # the weights were not touched by it


def test_a_weight_that_is_nan_is_named() -> None:
    with pytest.raises(NonFiniteError, match=r"^loss\.total is nan at step 0"):
        fit(distiller(SquareUntil(), weight=float("nan")))


def test_a_gradient_that_is_not_finite_is_named() -> None:
    with pytest.raises(NonFiniteError, match="gradient of weight and 1 other parameters is not finite at step 2"):
        fit(distiller(SquareUntil(3, gradient=True)))


def test_a_checkpoint_of_weights_that_are_not_finite_is_refused() -> None:
    module = distiller(SquareUntil())
    module.net.weight.data[0, 0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"1 weights are not finite after step 0, the first is weight"):
        module.on_save_checkpoint({})


def test_values_of_an_accelerator_are_read_together_and_the_first_step_is_named() -> None:
    check = LossCheck(interval=3)
    check._values, check._steps, check._names = [], [], ["ce"]
    for step, value in ((7, 1.0), (8, float("inf")), (9, float("nan"))):
        check._values.append(torch.tensor([value]))
        check._steps.append(step)
    with pytest.raises(NonFiniteError, match=r"loss\.ce is inf at step 8"):
        check.read()
    check.read()  # nothing is left


def test_only_the_metric_that_chooses_must_be_finite() -> None:
    check_metrics({"val/mIoU": 0.5, "val/iou/cat": float("nan")}, {"val/mIoU"}, 3)
    with pytest.raises(NonFiniteError, match=r"metric val/mIoU is nan after step 3"):
        check_metrics({"val/mIoU": float("nan")}, {"val/mIoU", "val/other"}, 3)
