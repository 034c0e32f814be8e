import pytest
import torch

from kd_runner.losses.functional.pooling import global_average


def test_levels_stand_side_by_side() -> None:
    """Two maps and a vector of two samples."""
    first = torch.tensor([[[[1.0, 3.0]]], [[[5.0, 7.0]]]])
    second = torch.stack([torch.full((2, 2, 2), 4.0), torch.full((2, 2, 2), 8.0)])
    vector = torch.tensor([[0.5], [0.25]])
    assert global_average([first, second, vector]).tolist() == [[2.0, 4.0, 4.0, 0.5], [6.0, 8.0, 8.0, 0.25]]
    assert torch.equal(global_average(vector), vector)


def test_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not \(2, 3, 4\)"):
        global_average([torch.zeros(2, 3), torch.zeros(2, 3, 4)])
