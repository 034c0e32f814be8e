import pytest
import torch

from kd_runner.losses.functional.masked import masked_mean


@pytest.mark.parametrize(("mask", "expected"), [([0, 0, 1], 9.0), ([1, 1, 0], 2.0), ([0, 0, 0], 0.0)])
def test_mean_of_what_the_mask_keeps(mask: list[int], expected: float) -> None:
    value = torch.tensor([1.0, 3.0, 9.0], requires_grad=True)
    mean = masked_mean(value, torch.tensor(mask).bool())
    mean.backward()
    assert mean.item() == expected
    assert value.grad is not None and (value.grad != 0).tolist() == [bool(m) for m in mask]


def test_without_a_mask_all_count() -> None:
    assert masked_mean(torch.tensor([1.0, 3.0, 8.0]), None).item() == 4.0
