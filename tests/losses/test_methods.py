"""What every distillation method keeps to: masks, the teacher's gradient, common layouts, half precision."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd_runner.losses.attention_transfer import AttentionTransfer
from kd_runner.losses.cirkd import CrossImageRelations
from kd_runner.losses.cirkd_memory import QueueRelations
from kd_runner.losses.cwd import CWD
from kd_runner.losses.dist import DIST
from kd_runner.losses.dkd import DKD
from kd_runner.losses.hint import Hint
from kd_runner.losses.lskd import StandardizedKL
from kd_runner.losses.mgd import MGD
from kd_runner.losses.multi_teacher import MultiTeacher
from kd_runner.losses.pkd import PKD
from kd_runner.losses.pkt import PKT
from kd_runner.losses.review_kd import ReviewKD
from kd_runner.losses.rkd import RKD
from kd_runner.losses.similarity_preserving import SimilarityPreserving
from kd_runner.losses.vid import VID
from tests.losses.references import built, features, leaf

B, H, W = 4, 6, 5
TARGET = torch.randint(5, (B, H, W), generator=torch.Generator().manual_seed(9))
LOGITS: dict[str, Callable[[], nn.Module]] = {"lskd": StandardizedKL, "dist": DIST, "dkd": DKD}
MAPS: dict[str, Callable[[], nn.Module]] = {
    "cwd": CWD,
    "pkd": PKD,
    "mgd": MGD,
    "hint": Hint,
    "attention_transfer": AttentionTransfer,
    "similarity_preserving": SimilarityPreserving,
    "rkd": RKD,
    "pkt": PKT,
    "vid": VID,
    "cirkd": CrossImageRelations,
    "cirkd_memory": lambda: QueueRelations(5, 30, 10, 8, 4),
    "review_kd": ReviewKD,
    "multi_teacher": lambda: MultiTeacher(steps=2),
}
LEARNS = ("mgd", "hint", "vid", "cirkd_memory", "review_kd", "multi_teacher")


def arguments(name: str, student: Tensor, teacher: Tensor) -> dict[str, Any]:
    if name in LOGITS or name == "cwd":
        teacher = teacher[:, : student.shape[1]]
    if name == "multi_teacher":
        return {"student": student, "teachers": [teacher, 128 * teacher[:, :4]]}
    target = {"target": TARGET} if name in ("dkd", "cirkd_memory") else {}
    return {"student": student, "teacher": teacher, **target}


def made(name: str, given: dict[str, Any]) -> Any:
    loss = (LOGITS | MAPS)[name]()
    return built(loss, *given.values()) if hasattr(loss, "build") else loss.double()


@pytest.mark.parametrize("name", [*LOGITS, *MAPS])
def test_void_pixels_have_no_gradient_and_do_not_change_the_value(name: str) -> None:
    """Whatever the student says there: the value is the same, and its gradient exactly 0."""
    student, teacher = features(B, 5, H, W, seed=1), features(B, 8, H, W, seed=2)
    mask = features(B, H, W, seed=3) > -0.5
    mask[3] = False  # an image without a valid pixel
    given = arguments(name, student, teacher)
    loss = made(name, given)
    values = []
    for huge in (1.0, 1e6):
        own = leaf(torch.where(mask[:, None], student, huge * student))
        fresh = copy.deepcopy(loss)
        value = fresh(**{**given, "student": own}, mask=mask)
        value.backward()
        values.append(value.detach())
        gradient = own.grad.movedim(1, -1)
        assert (gradient[~mask] == 0).all()
        assert gradient.isfinite().all() and (gradient[mask] != 0).any()
    assert torch.equal(*values)


@pytest.mark.parametrize("name", [*LOGITS, *MAPS])
def test_nothing_valid_is_zero_with_zero_gradient(name: str) -> None:
    student, teacher = leaf(features(B, 5, H, W, seed=1)), features(B, 8, H, W, seed=2)
    given = arguments(name, student, teacher)
    value = made(name, given)(**given, mask=torch.zeros(B, H, W, dtype=torch.bool))
    value.backward()
    assert value == 0
    assert student.grad is not None and (student.grad == 0).all()


@pytest.mark.parametrize("name", [*LOGITS, *MAPS])
def test_the_teacher_gets_no_gradient_and_the_layers_learn(name: str) -> None:
    student, teacher = leaf(features(B, 5, H, W, seed=1)), leaf(features(B, 8, H, W, seed=2))
    given = arguments(name, student, teacher)
    loss = made(name, given)
    loss(**given).backward()
    assert teacher.grad is None and student.grad is not None and student.grad.abs().sum() > 0
    gradients = [p.grad for p in loss.parameters()]
    assert all(g is not None and g.abs().sum() > 0 for g in gradients)
    assert bool(gradients) == (name in (*LEARNS, "pkd"))


@pytest.mark.parametrize("name", ["pkd", "hint", "rkd", "pkt", "vid", "similarity_preserving", "multi_teacher"])
def test_vectors_are_maps_of_one_pixel(name: str) -> None:
    student, teacher = features(B, 5, seed=1), features(B, 8, seed=2)
    given = arguments(name, student, teacher)
    as_maps = arguments(name, student[:, :, None, None], teacher[:, :, None, None])
    torch.testing.assert_close(made(name, given)(**given), made(name, as_maps)(**as_maps))


@pytest.mark.parametrize("name", ["cwd", "pkd", "hint", "attention_transfer", "rkd", "vid", "similarity_preserving"])
def test_tokens_are_the_pixels_of_a_map(name: str) -> None:
    """Tokens (B, T, C) with `channel_dim=-1`, and a mask (B, T)."""
    student, teacher = features(B, 5, 1, 6, seed=1), features(B, 8, 1, 6, seed=2)
    mask = features(B, 1, 6, seed=3) > -0.5
    given = arguments(name, student, teacher)
    expected = made(name, given)(**given, mask=mask)
    tokens = {role: maps.squeeze(2).transpose(1, 2) for role, maps in given.items()}
    loss: Any = MAPS[name]
    loss = loss(channel_dim=-1)
    loss = built(loss, *tokens.values()) if hasattr(loss, "build") else loss
    torch.testing.assert_close(loss(**tokens, mask=mask.squeeze(1)), expected)


@pytest.mark.parametrize("name", [*LOGITS, *MAPS])
def test_half_precision_is_compared_in_float32(name: str) -> None:
    student, teacher = features(B, 5, H, W, seed=1).bfloat16(), features(B, 8, H, W, seed=2).bfloat16()
    given = arguments(name, student, teacher)
    loss = made(name, given).float()
    value = copy.deepcopy(loss)(**given)
    full = copy.deepcopy(loss)(**arguments(name, student.float(), teacher.float()))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, full)


@pytest.mark.parametrize("name", [n for n in MAPS if n not in ("cwd", "multi_teacher", "review_kd")])
def test_a_teacher_of_another_size_that_is_not_square(name: str) -> None:
    """A constant map stays itself when it is resized; a mask of the image's size counts by its nearest pixel."""
    student = features(B, 5, H, W, seed=1)
    small, large = (features(B, 8, 1, 1, seed=2).expand(B, 8, *size).contiguous() for size in ((3, 9), (H, W)))
    mask = torch.ones(B, 2 * H, 2 * W, dtype=torch.bool)
    mask[:, : 2 * 2] = False
    given = arguments(name, student, small)
    if name != "similarity_preserving":  # compares each net with itself, on its own grid
        loss = made(name, given)
        expected = copy.deepcopy(loss)(**arguments(name, student, large), mask=mask)
        torch.testing.assert_close(loss(**given, mask=mask), expected)


@pytest.mark.parametrize("name", ["mgd", "cirkd_memory", "multi_teacher", "vid", "hint", "review_kd"])
def test_state_restores_the_next_steps(name: str) -> None:
    """A loss whose state was saved after two steps goes on bit-equal."""

    def step(loss: Any, number: int) -> Tensor:
        student, teacher = features(B, 5, H, W, seed=number), features(B, 8, H, W, seed=50 + number)
        optimizer = torch.optim.SGD(loss.parameters(), lr=1e-2)
        value = loss(**arguments(name, student, teacher))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value.detach()

    given = arguments(name, features(B, 5, H, W), features(B, 8, H, W))
    one, two = made(name, given), made(name, given)
    for number in range(2):
        step(one, number)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    torch.rand(3)  # the random state of the process does not matter
    for number in range(2, 4):
        assert torch.equal(step(one, number), step(two, number))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))


@pytest.mark.parametrize("name", ["mgd", "cirkd_memory", "multi_teacher"])
def test_validation_and_trial_calls_change_no_state(name: str) -> None:
    given = arguments(name, features(B, 5, H, W), features(B, 8, H, W, seed=1))
    loss = made(name, given)
    loss(**given)
    before = copy.deepcopy(loss.state_dict())
    with torch.no_grad():
        loss.eval()(**given)
    loss.eval()(**given)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), loss.state_dict().values()))
