"""Temporal memory: compared with a queue in world coordinates, and when it starts empty."""

import pytest
import torch
from torch import Tensor

from kd_runner.models.orion.memory import Memory, initial_memory, push_queries
from kd_runner.models.orion.temporal_memory import FramePose, TemporalMemory

LENGTH = 5


def pose(x: float, y: float, yaw: float) -> Tensor:
    """LiDAR frame to world, `(1, 4, 4)` float64, of a car on a slope."""
    c, s = torch.tensor(yaw, dtype=torch.float64).cos(), torch.tensor(yaw, dtype=torch.float64).sin()
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = torch.stack((torch.stack((c, -s)), torch.stack((s, c))))
    tilt = torch.eye(4, dtype=torch.float64)
    tilt[1:3, 1:3] = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    matrix[:3, 3] = torch.tensor([x, y, 30.0])
    return (matrix @ tilt)[None]


def frame_pose(ego_pose: Tensor, time_s: float, scene: int = 0) -> FramePose:
    return FramePose(ego_pose, torch.tensor([time_s], dtype=torch.float64), torch.tensor([scene]))


def transform(matrix: Tensor, points: Tensor) -> Tensor:
    return points @ matrix[0, :3, :3].T + matrix[0, :3, 3]


POSES = [pose(4000.0, -6000.0, 0.3), pose(4003.0, -6002.0, 0.5), pose(4005.5, -6003.0, 0.9), pose(4006.0, -6003.0, 1.0)]
TIMES = [1000.0, 1000.5, 1000.9, 1002.4]


def test_static_points_stay_in_place_while_the_car_moves() -> None:
    torch.manual_seed(0)
    world = POSES[0][0, :3, 3] + torch.randn(1, LENGTH, 2, 3, dtype=torch.float64) * 30
    temporal, initial = TemporalMemory(), initial_memory(1, 8, LENGTH, torch.zeros(0, 2, 3))
    predicted = transform(torch.linalg.inv(POSES[0]), world).float()
    memory = push_queries(
        initial, torch.randn(1, LENGTH, 8), predicted, torch.arange(LENGTH).float().flip(0)[None], LENGTH
    )
    for i in range(1, 4):
        temporal.write(frame_pose(POSES[i - 1], TIMES[i - 1]), (memory,))
        (memory,) = temporal.read(frame_pose(POSES[i], TIMES[i]), (initial,))
        assert memory.references.dtype == memory.motion.dtype == torch.float32
        assert (transform(POSES[i], memory.references.double()) - world).abs().max() < 1e-4
        torch.testing.assert_close(memory.age_s, torch.full((1, LENGTH, 1), TIMES[i] - TIMES[0]))
        expected = (torch.linalg.inv(POSES[i]) @ POSES[0]).float().expand(LENGTH, 4, 4)
        torch.testing.assert_close(memory.motion[0], expected, atol=2e-5, rtol=0)


def test_equals_a_queue_in_world_coordinates() -> None:
    """The reference stores points and poses in the world frame and absolute times, as the public code does."""
    torch.manual_seed(0)
    pseudo = torch.randn(3, 1, 3)
    initial, temporal, number = initial_memory(1, 8, LENGTH, pseudo), TemporalMemory(), 2
    references = transform(POSES[0], torch.cat((pseudo, torch.zeros(2, 1, 3))).double())
    poses = torch.cat((POSES[0].expand(3, 4, 4), torch.zeros(2, 4, 4)))  # empty entries have no pose
    clock, contents = torch.full((LENGTH,), TIMES[0], dtype=torch.float64), torch.zeros(LENGTH, 8)
    for ego_pose, time_s in zip(POSES, TIMES):
        now, back = frame_pose(ego_pose, time_s), torch.linalg.inv(ego_pose)
        (memory,) = temporal.read(now, (initial,))
        torch.testing.assert_close(memory.embedding[0], contents)
        torch.testing.assert_close(memory.references[0].double(), transform(back, references), atol=1e-4, rtol=0)
        torch.testing.assert_close(memory.motion[0].double(), back @ poses, atol=2e-5, rtol=0)
        torch.testing.assert_close(memory.age_s[0, :, 0].double(), time_s - clock, atol=1e-5, rtol=0)
        queries, predicted, scores = torch.randn(1, 7, 8), torch.randn(1, 7, 1, 3) * 20, torch.randn(1, 7)
        temporal.write(now, (push_queries(memory, queries, predicted, scores, number),))
        best = scores[0].sort(descending=True).indices[:number]
        contents = torch.cat((queries[0, best], contents))[:LENGTH]
        references = torch.cat((transform(ego_pose, predicted[0, best].double()), references))[:LENGTH]
        poses = torch.cat((ego_pose.expand(number, 4, 4), poses))[:LENGTH]
        clock = torch.cat((torch.full((number,), time_s, dtype=torch.float64), clock))[:LENGTH]


def test_all_queries_are_stored_if_fewer_than_num_queries() -> None:
    initial = initial_memory(2, 4, LENGTH, torch.zeros(0, 1, 3))
    memory = push_queries(initial, torch.ones(2, 3, 4), torch.ones(2, 3, 1, 3), torch.rand(2, 3), num_queries=300)
    assert memory.embedding[..., 0].tolist() == [[1, 1, 1, 0, 0]] * 2
    assert torch.equal(memory.motion[:, :3], torch.eye(4).expand(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("scenes", "gap_s", "remembered"),
    [
        ([4, 7], [0.5, 1.99], [True, True]),
        ([4, 8], [0.5, 0.5], [True, False]),
        ([7, 4], [0.5, 0.5], [False, False]),  # the drives are swapped
        ([4, 7], [2.01, 0.5], [False, True]),
        ([4, 7], [-0.5, 0.0], [False, False]),
    ],
)
def test_each_row_restarts_on_its_own(scenes: list[int], gap_s: list[float], remembered: list[bool]) -> None:
    temporal, initial = TemporalMemory(), initial_memory(2, 4, LENGTH, torch.zeros(0, 1, 3))
    poses, start = torch.cat(POSES[:2]), torch.tensor([10.0, 90.0], dtype=torch.float64)
    old = Memory(torch.ones(2, LENGTH, 4), initial.references + 1, initial.age_s, initial.motion + 1)
    temporal.write(FramePose(poses, start, torch.tensor([4, 7])), (old,))
    now = FramePose(poses, start + torch.tensor(gap_s, dtype=torch.float64), torch.tensor(scenes))
    (memory,) = temporal.read(now, (initial,))
    for row in range(2):
        assert torch.equal(memory.embedding[row], (old if remembered[row] else initial).embedding[row])
        for name in ("references", "age_s", "motion"):
            restarted = torch.equal(getattr(memory, name)[row], getattr(initial, name)[row])
            assert restarted is not remembered[row]


def test_another_batch_size_or_a_reset_empties_it() -> None:
    temporal, initial = TemporalMemory(), (initial_memory(1, 4, LENGTH, torch.zeros(0, 1, 3)),)
    kept = (push_queries(*initial, torch.ones(1, 1, 4), torch.ones(1, 1, 1, 3), torch.ones(1, 1), 1),)
    later, two = (
        frame_pose(POSES[1], 0.1),
        FramePose(torch.cat(POSES[:2]), torch.ones(2).double(), torch.tensor([0, 1])),
    )
    temporal.write(frame_pose(POSES[0], 0.0), kept)
    assert temporal.read(later, initial)[0].embedding.any()
    assert temporal.read(two, initial) is initial
    temporal.reset()
    assert temporal.read(later, initial) is initial


def test_unusable_poses_are_refused() -> None:
    poses, times = torch.cat(POSES[:2]), torch.tensor([0.0, 0.5], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"drives \[3, 3\]; .*batches of one frame"):
        FramePose(poses, times, torch.tensor([3, 3]))
    with pytest.raises(ValueError, match=r"ego_pose: float64 is needed .* got torch\.float32"):
        FramePose(poses.float(), times, torch.tensor([3, 4]))
    with pytest.raises(ValueError, match=r"timestamp: float64 is needed"):
        FramePose(poses, times.float(), torch.tensor([3, 4]))
