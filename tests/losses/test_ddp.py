"""Two processes keep one bank."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from kd_runner.losses.cirkd_memory import QueueRelations
from kd_runner.losses.crd import CRD
from kd_runner.losses.multi_teacher import MultiTeacher
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


def train_others(part: slice) -> list[dict[str, Tensor]]:
    """The queues of CIRKD and the teachers' statistics of PHI-S after three steps on a share of each batch."""
    size = 4, 3
    queues = QueueRelations(3, 12, 6, 5, 2, pixels_per_image=2)
    queues.build(torch.zeros(6, 3, *size), torch.zeros(6, 4, *size), torch.zeros(6, *size))
    several = MultiTeacher(steps=2)
    several.build(torch.zeros(6, 3, *size), [torch.zeros(6, 4, *size), torch.zeros(6, 8, *size)])
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        student, first, second = (torch.randn(6, channels, *size, generator=generator) for channels in (3, 4, 8))
        target = (torch.arange(6) % 3)[:, None, None].expand(6, *size)
        queues(student[part], first[part], target[part])
        several(student[part], [first[part] + 1, 5 * second[part]])
    return [queues.queues.state_dict(), several.normalizers.state_dict()]


def rank(number: int, meeting: str) -> tuple[int, list[float], dict[str, Tensor], Tensor, list[dict[str, Tensor]]]:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=2)
    try:
        part = slice(0, CUT) if number == 0 else slice(CUT, 6)
        return number, *train(part), train_others(part)
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    """What two processes return, in their order."""
    meeting = str(tmp_path_factory.mktemp("ranks") / "meeting")
    return sorted(in_parallel(rank, [(number, meeting) for number in (0, 1)], workers=2))


def test_banks_are_equal_on_all_ranks_and_those_of_one_process(ranks: list[tuple]) -> None:
    """Shares of unlike size; a sample on both ranks. Gradients and values are means over a rank's own share."""
    (_, first, one, drawn_one, _), (_, second, two, drawn_two, _) = ranks
    assert all(torch.equal(one[key], two[key]) for key in one)
    values, alone, _ = train(slice(0, 6))
    assert torch.equal(one["memory.keys"], alone["memory.keys"])
    for key in ("memory.student", "memory.teacher"):
        assert (one[key] - alone[key]).abs().max() < 1e-6
    torch.testing.assert_close(one["z"], alone["z"])
    joined = [(CUT * a + (6 - CUT) * b) / 6 for a, b in zip(first, second)]
    assert joined == pytest.approx(values, rel=1e-5)
    assert drawn_one != drawn_two  # each rank draws negatives of its own


def test_queues_and_statistics_are_equal_on_all_ranks_and_those_of_one_process(ranks: list[tuple]) -> None:
    """But for the pixels that each rank draws of its own images."""
    one, two = (results[-1] for results in ranks)
    for a, b in zip(one, two):
        assert all(torch.equal(a[key], b[key]) for key in a)
    queues, statistics = train_others(slice(0, 6))
    torch.testing.assert_close(one[0]["1.vectors"], queues["1.vectors"])
    assert torch.equal(one[0]["0.heads"], queues["0.heads"])
    for key in ("0.mean", "1.scatter", "0.count", "1.seen"):
        torch.testing.assert_close(one[1][key], statistics[key])
