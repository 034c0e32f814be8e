"""The detector with its memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kd_runner.models.orion.detector import Orion

Build = Callable[..., Orion]
Frame = dict[str, Tensor]


def at(frame: Frame, time_s: float, scenes: tuple[int, int] = (0, 1)) -> Frame:
    """The frame with what the memory needs; the cars drive 10 m/s."""
    ego_pose = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    ego_pose[:, :2, 3] = torch.tensor([[10.0, 0], [0, -10]], dtype=torch.float64) * time_s + 3000
    return frame | {
        "ego_pose": ego_pose,
        "timestamp": torch.full((2,), time_s, dtype=torch.float64),
        "scene": torch.tensor(scenes),
    }


def equal(one: Frame, two: Frame, row: int | None = None) -> bool:
    names = ("logits", "codes", "line_logits", "lines")
    return all(torch.equal(*(f[name] if row is None else f[name][:, row] for f in (one, two))) for name in names)


@pytest.mark.parametrize("training", [True, False])
def test_a_first_frame_is_the_single_frame(small: Build, frame: Frame, training: bool) -> None:
    net, single = small(temporal=True).train(training), small().train(training)
    found = []
    for one, arguments in ((net, at(frame, 0.0)), (single, frame)):
        torch.manual_seed(3)  # of noisy copies
        found.append(one(**arguments))
    assert all(torch.equal(found[0][name], value) for name, value in found[1].items())
    assert net.state_dict().keys() == single.state_dict().keys()
    net.load_state_dict(single.state_dict())  # with a memory at hand


def test_what_was_seen_changes_both_heads_until_a_row_begins_anew(small: Build, frame: Frame) -> None:
    net, single = small(temporal=True).eval(), small().eval()
    plain = single(**frame)
    net(**at(frame, 0.0))
    later = net(**at(frame, 0.5))
    for name in ("codes", "lines"):
        assert (later[name] - plain[name]).abs().amax(dim=(0, 2, 3)).min() > 1e-4
    changed = net(**at(frame, 1.0, scenes=(0, 2)))
    assert equal(changed, plain, row=1) and not equal(changed, plain, row=0)
    assert equal(net(**at(frame, 3.5, scenes=(0, 2))), plain)
    net(**at(frame, 4.0, scenes=(0, 2)))
    net.forget()
    assert equal(net(**at(frame, 4.5, scenes=(0, 2))), plain)


def test_best_queries_are_propagated_with_their_places(small: Build, frame: Frame) -> None:
    net = small(temporal=True, num_remembered=3).eval()
    before = net(**at(frame, 0.0))
    last = net.pts_bbox_head.reg_branches[0][-1]
    last.weight.data.zero_(), last.bias.data.zero_()  # boxes stay at their reference points
    after = net(**at(frame, 0.5))
    best = before["logits"][-1].amax(-1).topk(3).indices
    step = torch.tensor([[5.0, 0, 0], [0, -5, 0]])
    expected = before["codes"][-1].take_along_dim(best[..., None], 1)[..., :3] - step[:, None]
    expected = expected.clamp(*net.pts_bbox_head.bounds.view(2, 3))
    torch.testing.assert_close(after["codes"][-1, :, 6:, :3], expected, atol=1e-2, rtol=0)


def test_noisy_copies_and_one_to_many_lines_are_not_remembered(small: Build, frame: Frame) -> None:
    """With them in training, and without them, the next frame is the same."""
    net = small(temporal=True, num_remembered=5).train()
    truth = {"gt_boxes", "gt_labels", "gt_mask"}
    plain = {name: value for name, value in frame.items() if name not in truth}
    found = []
    for first in (frame, plain):
        net.forget()
        net(**at(first, 0.0))
        _, _, (_, lines) = net._stream._last  # type: ignore[misc]
        assert lines.embedding[:, :4].any(2).all() and not lines.embedding[:, 4:].any()  # there are four lines
        found.append(net(**at(plain, 0.5)))
    for name in ("logits", "codes", "lines"):
        torch.testing.assert_close(found[0][name], found[1][name])


def test_no_gradient_reaches_the_past(small: Build, frame: Frame) -> None:
    net = small(temporal=True).train()
    past, now = (at(frame | {"images": frame["images"].clone().requires_grad_()}, t) for t in (0.0, 0.5))
    net(**past)
    found = net(**now)
    (found["codes"].sum() + found["lines"].sum()).backward()
    assert past["images"].grad is None and now["images"].grad.abs().max() > 0  # type: ignore[union-attr]
    assert net.ego_pose_pe.gamma.weight.grad.abs().max() > 0  # type: ignore[union-attr, operator]


def test_the_same_drive_twice_gives_the_same_numbers(small: Build, frame: Frame) -> None:
    net = small(temporal=True).eval()
    drives = [[net(**at(frame, t)) for t in (0.0, 0.5, 1.0)] for _ in range(2)]  # time runs back in between
    assert all(equal(*pair) for pair in zip(*drives, strict=True))


def test_a_student_with_the_teachers_heads_has_its_own_memory(small: Build, frame: Frame) -> None:
    teacher, student = small(temporal=True).eval(), small(temporal=True).eval()
    student.pts_bbox_head, student.map_head = teacher.pts_bbox_head, teacher.map_head
    teacher(**at(frame, 0.0))
    assert equal(student(**at(frame, 0.5)), small().eval()(**frame))


def test_what_the_memory_needs_is_named(small: Build, frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    net = small(temporal=True).eval()
    with pytest.raises(ValueError, match=r"ego_pose, timestamp and scene .* temporal=True"):
        net(**frame)
    with pytest.raises(ValueError, match=r"scene: .* \[5, 5\]"):
        net(**at(frame, 0.0, scenes=(5, 5)))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    with pytest.raises(ValueError, match="temporal=False"):
        net(**at(frame, 0.0))
