"""Loss terms and their sum."""

import pytest
import torch
from torch import Tensor, nn

from kd_runner.distillation.loss_terms import LossTerm, weighted_total
from kd_runner.errors import ConfigError
from kd_runner.losses.task_ce import CrossEntropy


def term(name: str, weight: float, *inputs: str) -> LossTerm:
    return LossTerm(name, nn.Identity(), {str(i): spec for i, spec in enumerate(inputs)}, weight)


TERMS = [
    term("ce", 1.0, "student.logits", "batch.target"),
    term("edge", 0.25, "student.logits"),
    term("kl", 0.5, "student.logits", "teacher.logits"),
    term("cosine", 2.0, "student.low", "teacher.low"),
]
# Sums of powers of two: float arithmetic on them is exact.
VALUES = {"ce": 4.0, "edge": 8.0, "kl": 16.0, "cosine": 0.5}


def tensors() -> dict[str, Tensor]:
    return {name: torch.tensor(value, requires_grad=True) for name, value in VALUES.items()}


def test_without_alpha_it_is_the_weighted_sum() -> None:
    assert weighted_total(TERMS, tensors(), None).item() == 1.0 * 4 + 0.25 * 8 + 0.5 * 16 + 2 * 0.5


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_alpha_is_the_fraction_of_distillation(alpha: float) -> None:
    task, distilled = 1.0 * 4 + 0.25 * 8, 0.5 * 16 + 2 * 0.5
    values = tensors()
    total = weighted_total(TERMS, values, alpha)
    total.backward()
    assert total.item() == alpha * distilled + (1 - alpha) * task
    assert values["kl"].grad.item() == alpha * 0.5
    assert values["ce"].grad.item() == 1 - alpha


def test_alpha_zero_is_the_undistilled_total() -> None:
    undistilled = [t for t in TERMS if not t.uses_teacher]
    values = {name: torch.rand((), generator=torch.Generator().manual_seed(len(name))) for name in VALUES}
    assert torch.equal(weighted_total(TERMS, values, 0.0), weighted_total(undistilled, values, None))


@pytest.mark.parametrize(
    ("inputs", "uses_teacher"),
    [
        ({"logits": "student.logits", "target": "batch.teacher"}, False),
        ({"student": "student.teacher"}, False),
        ({"student": ["student.low"], "teacher": ["teacher.low", "teacher.high"]}, True),
        ({"maps": {"student": "student.low", "teacher": ["teacher.low"]}}, True),
    ],
)
def test_a_term_distills_when_any_input_reads_the_teacher(inputs: dict, uses_teacher: bool) -> None:
    assert LossTerm("x", nn.Identity(), inputs).uses_teacher is uses_teacher


def test_a_term_reads_its_inputs_by_name() -> None:
    logits, target = torch.randn(2, 3), torch.tensor([0, 2])
    ce = LossTerm("ce", CrossEntropy(), {"logits": "student.out", "target": "batch.label"}, weight=3.0)
    value = ce.value({"student": {"out": logits}, "batch": {"label": target}})
    assert torch.equal(value, CrossEntropy()(logits, target))  # the weight is applied by weighted_total


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: x, r"it returned a tensor of shape \(2,\); a loss returns one number"),
        (lambda x: 0.5, "it returned a float; a loss returns a tensor of one number"),
        (lambda x: x @ torch.zeros(5), r"RuntimeError: .* \(test_loss_terms\.py, line \d+\)"),
        (lambda y: y, r"TypeError: .*unexpected keyword argument 'x'"),
    ],
)
def test_what_is_no_loss_is_named(fn, message: str) -> None:
    bad = LossTerm("mine", fn, {"x": "batch.x"})
    with pytest.raises(ConfigError, match=rf"^loss\.mine: {message}") as caught:
        bad.value({"batch": {"x": torch.ones(2)}})
    assert "\n" not in str(caught.value)


def test_a_total_of_no_terms_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one loss term"):
        weighted_total([], {}, None)
