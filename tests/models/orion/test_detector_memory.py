"""The detector with temporal memory, in evaluation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kd_runner.models.orion.detector import Orion
from kd_runner.models.orion.memory import Memory, push_queries

Build = Callable[..., Orion]
Frame = dict[str, Tensor]


def with_pose(frame: Frame, time_s: float, scenes: tuple[int, int] = (0, 1)) -> Frame:
    """The frame with poses, times and scenes; the cars drive 10 m/s."""
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


def test_a_first_frame_equals_the_net_without_memory(small: Build, frame: Frame) -> None:
    temporal, single = small(temporal=True).eval(), small().eval()
    outputs, expected = temporal(**with_pose(frame, 0.0)), single(**frame)
    assert all(torch.equal(outputs[name], value) for name, value in expected.items())
    assert temporal.state_dict().keys() == single.state_dict().keys()


def test_memory_changes_both_heads_until_a_row_restarts(small: Build, frame: Frame) -> None:
    net, single = small(temporal=True).eval(), small().eval()
    plain = single(**frame)
    net(**with_pose(frame, 0.0))
    later = net(**with_pose(frame, 0.5))
    for name in ("codes", "lines"):
        assert (later[name] - plain[name]).abs().amax(dim=(0, 2, 3)).min() > 1e-4
    changed = net(**with_pose(frame, 1.0, scenes=(0, 2)))
    assert equal(changed, plain, row=1) and not equal(changed, plain, row=0)
    assert equal(net(**with_pose(frame, 3.5, scenes=(0, 2))), plain)
    net(**with_pose(frame, 4.0, scenes=(0, 2)))
    net.reset_memory()
    assert equal(net(**with_pose(frame, 4.5, scenes=(0, 2))), plain)


def test_best_queries_are_propagated_with_their_reference_points(small: Build, frame: Frame) -> None:
    net = small(temporal=True, num_remembered=3).eval()
    before = net(**with_pose(frame, 0.0))
    last = net.pts_bbox_head.reg_branches[0][-1]
    last.weight.data.zero_(), last.bias.data.zero_()  # boxes stay at their reference points
    after = net(**with_pose(frame, 0.5))
    best = before["logits"][-1].amax(-1).topk(3).indices
    step = torch.tensor([[5.0, 0, 0], [0, -5, 0]])
    expected = before["codes"][-1].take_along_dim(best[..., None], 1)[..., :3] - step[:, None]
    expected = expected.clamp(*net.pts_bbox_head.bounds.view(2, 3))
    torch.testing.assert_close(after["codes"][-1, :, 6:, :3], expected, atol=1e-2, rtol=0)


def test_queries_are_ranked_by_their_best_class(small: Build, frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    ranked: list[Tensor] = []

    def push(memory: Memory, queries: Tensor, references: Tensor, scores: Tensor, num_queries: int) -> Memory:
        ranked.append(scores)
        return push_queries(memory, queries, references, scores, num_queries)

    monkeypatch.setattr("kd_runner.models.orion.detector.push_queries", push)
    outputs = small(temporal=True, num_remembered=3).eval()(**with_pose(frame, 0.0))
    assert len(ranked) == 2
    for scores, logits in zip(ranked, (outputs["logits"][-1], outputs["line_logits"][-1])):
        best = [[max(query) for query in sample] for sample in logits.tolist()]
        torch.testing.assert_close(scores, torch.tensor(best))


def test_no_gradient_reaches_earlier_frames(small: Build, frame: Frame) -> None:
    net = small(temporal=True).eval()
    past, now = (with_pose(frame | {"images": frame["images"].clone().requires_grad_()}, t) for t in (0.0, 0.5))
    net(**past)
    outputs = net(**now)
    (outputs["codes"].sum() + outputs["lines"].sum()).backward()
    assert past["images"].grad is None and now["images"].grad.abs().max() > 0  # type: ignore[union-attr]


def test_the_same_drive_twice_gives_the_same_numbers(small: Build, frame: Frame) -> None:
    net = small(temporal=True).eval()
    drives = [[net(**with_pose(frame, t)) for t in (0.0, 0.5, 1.0)] for _ in range(2)]  # time decreases in between
    assert all(equal(*pair) for pair in zip(*drives, strict=True))


def test_a_student_that_shares_heads_has_its_own_memory(small: Build, frame: Frame) -> None:
    teacher, student = small(temporal=True).eval(), small(temporal=True).eval()
    student.pts_bbox_head, student.map_head = teacher.pts_bbox_head, teacher.map_head
    teacher(**with_pose(frame, 0.0))
    assert equal(student(**with_pose(frame, 0.5)), small().eval()(**frame))


def test_unusable_inputs_are_refused(small: Build, frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    net = small(temporal=True).eval()
    with pytest.raises(
        ValueError, match=r"temporal: .* for evaluation only .* needs the inputs ego_pose, timestamp and scene"
    ):
        net(**frame)
    with pytest.raises(ValueError, match=r"scene: .* \[5, 5\]"):
        net(**with_pose(frame, 0.0, scenes=(5, 5)))
    with pytest.raises(ValueError, match=r"temporal: training with temporal memory is not supported"):
        net.train()(**with_pose(frame, 0.0))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    with pytest.raises(ValueError, match="temporal=False"):
        net.eval()(**with_pose(frame, 0.0))
