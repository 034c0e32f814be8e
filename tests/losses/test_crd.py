"""CRD against the paper's formulas in float64, sample by sample, and on a task with a known answer."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kd_runner.losses.crd import CRD
from kd_runner.losses.functional import nce

N, K, B = 40, 12, 6


def vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def built(student: Tensor, teacher: Tensor, **options: int) -> CRD:
    torch.manual_seed(0)
    loss = CRD(**({"n_data": N, "num_negatives": K, "dim": 16} | options))
    loss.build(student, teacher)
    return loss


def embedded(layer: torch.nn.Linear, features: Tensor) -> np.ndarray:
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    linear = features.double().numpy() @ weight.T + bias
    return linear / np.linalg.norm(linear, axis=1, keepdims=True)


def formula(anchors: np.ndarray, bank: np.ndarray, index: Tensor, negatives: Tensor, z: float | None):
    """One side of the loss, and Z."""
    dots = [[a @ bank[y], *(a @ bank[row] for row in rows)] for a, y, rows in zip(anchors, index, negatives)]
    scores = np.exp(np.array(dots) / 0.07)
    z = scores.mean() * len(bank) if z is None else z
    p, c, eps = scores / z, negatives.shape[1] / len(bank), 1e-7
    total = np.log(p[:, 0] / (p[:, 0] + c + eps)).sum() + np.log(c / (p[:, 1:] + c + eps)).sum()
    return -total / len(anchors), z


@pytest.mark.parametrize("dense", [1, 10**9], ids=["gather", "matmul"])
def test_value_bank_and_z_are_those_of_the_formulas(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over three steps: Z stays that of the first one."""
    monkeypatch.setattr(nce, "DENSE", dense)
    loss = built(vectors(B, 5), vectors(B, 7))
    z: list[float | None] = [None, None]
    for step in range(3):
        student, teacher = vectors(B, 5, seed=step), vectors(B, 7, seed=10 + step)
        index = torch.randperm(N, generator=torch.Generator().manual_seed(step))[:B]
        negatives = torch.randint(N, (B, K), generator=torch.Generator().manual_seed(step))
        student_rows, teacher_rows = embedded(loss.embed_s, student), embedded(loss.embed_t, teacher)
        banks = [bank.double().numpy() for bank in (loss.memory.student.clone(), loss.memory.teacher.clone())]
        first, z[0] = formula(student_rows, banks[1], index, negatives, z[0])
        second, z[1] = formula(teacher_rows, banks[0], index, negatives, z[1])
        value = loss(student, teacher, index, negatives=negatives)
        assert value.item() == pytest.approx(first + second, rel=1e-5)
        assert loss.z.tolist() == pytest.approx(z, rel=1e-5)
        for bank, after, new in zip(banks, (loss.memory.student, loss.memory.teacher), (student_rows, teacher_rows)):
            bank[index] = 0.5 * bank[index] + 0.5 * new
            bank[index] /= np.linalg.norm(bank[index], axis=1, keepdims=True)
            assert np.abs(bank - after.numpy()).max() < 1e-6


@pytest.mark.parametrize("dense", [1, 10**9], ids=["gather", "matmul"])
def test_gradients_are_those_of_autograd(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the student and in both embeddings, though the banks were written in between; none at the teacher."""
    monkeypatch.setattr(nce, "DENSE", dense)
    student, teacher = vectors(B, 5).requires_grad_(), vectors(B, 7).requires_grad_()
    index, negatives = torch.arange(B), torch.randint(N, (B, K), generator=torch.Generator().manual_seed(0))
    loss = built(student, teacher)
    inputs = [student, *loss.embed_s.parameters(), *loss.embed_t.parameters()]
    banks = loss.memory.student.clone(), loss.memory.teacher.clone()
    gradients = torch.autograd.grad(loss(student, teacher, index, negatives=negatives), inputs)
    rows, total = torch.cat([index[:, None], negatives], dim=1), torch.zeros(())
    for layer, features, bank in (
        (loss.embed_s, student, banks[1]),
        (loss.embed_t, teacher, banks[0]),
    ):
        scores = torch.einsum("bd,bkd->bk", F.normalize(layer(features), dim=1), bank[rows])
        p, c = (scores / 0.07).exp(), K / N
        p = p / (p.mean() * N).detach()
        total = total - (p[:, 0] / (p[:, 0] + c)).log().sum() / B - (c / (p[:, 1:] + c)).log().sum() / B
    for mine, expected in zip(gradients, torch.autograd.grad(total, inputs)):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)
    loss(student, teacher, index).backward()
    assert teacher.grad is None


def test_maps_are_pooled_and_levels_joined() -> None:
    levels = [vectors(B, 3, 4, 4), vectors(B, 5, 2, 2)]
    joined = torch.cat([level.mean((2, 3)) for level in levels], dim=1)
    loss = built(levels, vectors(B, 7))
    assert loss.embed_s.in_features == 8
    again, index = copy.deepcopy(loss), torch.arange(B)
    assert loss(levels, vectors(B, 7), index).item() == pytest.approx(again(joined, vectors(B, 7), index).item())
    with pytest.raises(ValueError, match=r"not \(6, 3, 4\)"):
        loss(vectors(B, 3, 4), vectors(B, 7), index)


def test_nothing_is_written_without_training() -> None:
    """Neither under no_grad, when the loss is built, nor in eval mode."""
    student, teacher, index = vectors(B, 5), vectors(B, 7), torch.arange(B)
    loss = built(student, teacher)
    before = copy.deepcopy(loss.state_dict())
    with torch.no_grad():
        loss(student, teacher, index)
    loss.eval()(student, teacher, index)
    after = loss.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    loss.train()(student, teacher, index)
    assert not any(torch.equal(before[key], after[key]) for key in ("z", "steps", "memory.student", "memory.teacher"))


def test_a_resumed_run_goes_on_as_it_would_have() -> None:
    index = torch.arange(B)
    loss = built(vectors(B, 5), vectors(B, 7))
    for step in range(2):
        loss(vectors(B, 5, seed=step), vectors(B, 7, seed=step), index + step, group=(index + step) % 3)
    other = built(vectors(B, 5), vectors(B, 7), seed=0)
    other.load_state_dict(copy.deepcopy(loss.state_dict()))
    values = [one(vectors(B, 5, seed=8), vectors(B, 7, seed=9), index + 5, group=None) for one in (loss, other)]
    assert torch.equal(*values)
    assert all(torch.equal(a, b) for a, b in zip(loss.state_dict().values(), other.state_dict().values()))


def test_half_precision_is_computed_in_float32() -> None:
    student, teacher, index = vectors(B, 5), vectors(B, 7), torch.arange(B)
    loss = built(student, teacher)
    other = copy.deepcopy(loss)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(student, teacher, index), other(student, teacher, index))


def test_a_sample_that_is_there_twice_counts_once_in_any_order() -> None:
    student, teacher = vectors(3, 5), vectors(3, 7)
    loss = built(student, teacher)
    other, old = copy.deepcopy(loss), loss.memory.student[4].double().numpy()
    loss(student, teacher, torch.tensor([4, 9, 4]))
    other(student.flip(0), teacher.flip(0), torch.tensor([4, 9, 4]))
    assert torch.allclose(loss.memory.student, other.memory.student, atol=1e-6)
    new = 0.5 * old + 0.5 * embedded(loss.embed_s, student)[[0, 2]].mean(0)
    assert np.abs(loss.memory.student[4].numpy() - new / np.linalg.norm(new)).max() < 1e-6


def test_an_index_that_is_none_or_changes_is_an_error() -> None:
    student, teacher = vectors(2, 5), vectors(2, 7)
    loss = built(student, teacher)
    with pytest.raises(ValueError, match="index 40 is not a row of the bank of n_data=40"):
        loss(student, teacher, torch.tensor([0, N]))
    loss(student, teacher, torch.tensor([3, 4]), group=torch.tensor([0, 1]))
    loss(student, teacher, torch.tensor([3, 5]), group=torch.tensor([0, -1]))  # an unknown group says nothing
    with pytest.raises(ValueError, match="index 4 was in group 1 and now comes with 0"):
        loss(student, teacher, torch.tensor([3, 4]), group=torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="3 student and 3 teacher vectors, 2 indices"):
        loss(vectors(3, 5), vectors(3, 7), torch.tensor([3, 4]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_data": None}, "give n_data"),
        ({"queue": 64}, "not both"),
        ({"num_negatives": N + 1}, "at most the 40 rows"),
        ({"temperature": 0}, "above 0"),
    ],
)
def test_what_cannot_work_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(vectors(B, 5), vectors(B, 7), **options)


@pytest.mark.parametrize("kind", ["own index", "random index", "queue"])
def test_embeddings_find_each_other_where_the_index_is_the_samples_own(kind: str) -> None:
    """512 samples, the student's features a noisy linear view of the teacher's.

    With random indices the loss is as finite, and nothing is learned: retrieval stays near 1/512.
    """
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(512, 32, generator=generator)
    view = torch.randn(32, 24, generator=generator) / math.sqrt(32)
    student = teacher @ view + 0.1 * torch.randn(512, 24, generator=generator)
    torch.manual_seed(0)
    loss = CRD(**({"queue": 512} if kind == "queue" else {"n_data": 512}), num_negatives=256)
    loss.build(student, teacher)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.05, momentum=0.9)
    for _ in range(30):
        for batch in torch.randperm(512, generator=generator).split(64):
            index = batch if kind != "random index" else torch.randint(512, (64,), generator=generator)
            value = loss(student[batch], teacher[batch], index)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    with torch.no_grad():
        student_rows, teacher_rows = (
            F.normalize(e(x), dim=1) for e, x in ((loss.embed_s, student), (loss.embed_t, teacher))
        )
    result = ((student_rows @ teacher_rows.T).argmax(1) == torch.arange(512)).float().mean().item()
    assert math.isfinite(value.item())
    assert result < 0.02 if kind == "random index" else result >= 0.95
