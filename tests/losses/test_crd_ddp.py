"""Two processes keep one bank."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from kd_runner.losses.crd import CRD
from kd_runner.runtime.processes import in_parallel

N, K, STEPS, CUT = 30, 8, 3, 2


def train(part: slice) -> tuple[list[float], dict[str, Tensor], Tensor]:
    """Values and state after some steps on a share of each batch, and a value with negatives that it drew."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    loss = CRD(n_data=N, num_negatives=K, dim=8)
    loss.build(torch.zeros(1, 5), torch.zeros(1, 7))
    values = []
    for _ in range(STEPS):
        student, teacher = (torch.randn(6, width, generator=generator) for width in (5, 7))
        # The first and the last are one sample, on different ranks.
        index = torch.randperm(N, generator=generator)[:6]
        index[5] = index[0]
        negatives = torch.randint(N, (6, K), generator=generator)
        given = (tensor[part] for tensor in (student, teacher, index, index % 4, negatives))
        value = loss(*given)
        value.backward()
        values.append(value.item())
    drawn = loss.eval()(student[:2], teacher[:2], torch.tensor([0, 1]))
    return values, loss.state_dict(), drawn.detach()


def rank(number: int, meeting: str) -> tuple[int, list[float], dict[str, Tensor], Tensor]:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=2)
    try:
        return number, *train(slice(0, CUT) if number == 0 else slice(CUT, 6))
    finally:
        dist.destroy_process_group()


def test_banks_are_equal_on_all_ranks_and_those_of_one_process(tmp_path: Path) -> None:
    """Shares of unlike size; a sample on both ranks. Gradients and values are means over a rank's own share."""
    calls = [(number, str(tmp_path / "meeting")) for number in (0, 1)]
    (_, first, one, drawn_one), (_, second, two, drawn_two) = sorted(in_parallel(rank, calls, workers=2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    values, alone, _ = train(slice(0, 6))
    assert torch.equal(one["memory.keys"], alone["memory.keys"])
    for key in ("memory.student", "memory.teacher"):
        assert (one[key] - alone[key]).abs().max() < 1e-6
    torch.testing.assert_close(one["z"], alone["z"])
    joined = [(CUT * a + (6 - CUT) * b) / 6 for a, b in zip(first, second)]
    assert joined == pytest.approx(values, rel=1e-5)
    assert drawn_one != drawn_two  # each rank draws negatives of its own
