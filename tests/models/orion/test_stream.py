"""Memories from frame to frame: against a queue kept in the world, and when a row begins anew."""

import pytest
import torch
from torch import Tensor

from kd_runner.models.orion.memory import Memory, first_frame, remember
from kd_runner.models.orion.stream import Moment, Stream

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


def moment(ego_pose: Tensor, time_s: float, scene: int = 0) -> Moment:
    return Moment(ego_pose, torch.tensor([time_s], dtype=torch.float64), torch.tensor([scene]))


def moved(matrix: Tensor, points: Tensor) -> Tensor:
    return points @ matrix[0, :3, :3].T + matrix[0, :3, 3]


POSES = [pose(4000.0, -6000.0, 0.3), pose(4003.0, -6002.0, 0.5), pose(4005.5, -6003.0, 0.9), pose(4006.0, -6003.0, 1.0)]
TIMES = [1000.0, 1000.5, 1000.9, 1002.4]


def test_a_point_of_the_world_stays_where_it_is_while_the_car_moves() -> None:
    torch.manual_seed(0)
    world = POSES[0][0, :3, 3] + torch.randn(1, LENGTH, 2, 3, dtype=torch.float64) * 30
    stream, first = Stream(), first_frame(1, 8, LENGTH, torch.zeros(0, 2, 3))
    seen = moved(torch.linalg.inv(POSES[0]), world).float()
    memory = remember(first, torch.randn(1, LENGTH, 8), seen, torch.arange(LENGTH).float().flip(0)[None], LENGTH)
    for i in range(1, 4):
        stream.keep(moment(POSES[i - 1], TIMES[i - 1]), False, (memory,))
        (memory,) = stream.recall(moment(POSES[i], TIMES[i]), False, (first,))
        assert memory.references.dtype == memory.motion.dtype == torch.float32
        assert (moved(POSES[i], memory.references.double()) - world).abs().max() < 1e-4
        torch.testing.assert_close(memory.age_s, torch.full((1, LENGTH, 1), TIMES[i] - TIMES[0]))
        expected = (torch.linalg.inv(POSES[i]) @ POSES[0]).float().expand(LENGTH, 4, 4)
        torch.testing.assert_close(memory.motion[0], expected, atol=2e-5, rtol=0)


def test_the_queue_is_that_of_a_memory_kept_in_the_world() -> None:
    """Places and poses in the world and times on the clock, as upstream stores them, here in float64."""
    torch.manual_seed(0)
    pseudo = torch.randn(3, 1, 3)
    first, stream, number = first_frame(1, 8, LENGTH, pseudo), Stream(), 2
    places = moved(POSES[0], torch.cat((pseudo, torch.zeros(2, 1, 3))).double())
    poses = torch.cat((POSES[0].expand(3, 4, 4), torch.zeros(2, 4, 4)))  # what was never filled has no pose
    clock, contents = torch.full((LENGTH,), TIMES[0], dtype=torch.float64), torch.zeros(LENGTH, 8)
    for ego_pose, time_s in zip(POSES, TIMES):
        now, back = moment(ego_pose, time_s), torch.linalg.inv(ego_pose)
        (memory,) = stream.recall(now, False, (first,))
        torch.testing.assert_close(memory.embedding[0], contents)
        torch.testing.assert_close(memory.references[0].double(), moved(back, places), atol=1e-4, rtol=0)
        torch.testing.assert_close(memory.motion[0].double(), back @ poses, atol=2e-5, rtol=0)
        torch.testing.assert_close(memory.age_s[0, :, 0].double(), time_s - clock, atol=1e-5, rtol=0)
        queries, seen, scores = torch.randn(1, 7, 8), torch.randn(1, 7, 1, 3) * 20, torch.randn(1, 7)
        stream.keep(now, False, (remember(memory, queries, seen, scores, number),))
        best = scores[0].sort(descending=True).indices[:number]
        contents = torch.cat((queries[0, best], contents))[:LENGTH]
        places = torch.cat((moved(ego_pose, seen[0, best].double()), places))[:LENGTH]
        poses = torch.cat((ego_pose.expand(number, 4, 4), poses))[:LENGTH]
        clock = torch.cat((torch.full((number,), time_s, dtype=torch.float64), clock))[:LENGTH]


def test_fewer_queries_than_are_wanted_are_all_remembered() -> None:
    first = first_frame(2, 4, LENGTH, torch.zeros(0, 1, 3))
    memory = remember(first, torch.ones(2, 3, 4), torch.ones(2, 3, 1, 3), torch.rand(2, 3), number=300)
    assert memory.embedding[..., 0].tolist() == [[1, 1, 1, 0, 0]] * 2
    assert torch.equal(memory.motion[:, :3], torch.eye(4).expand(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("scenes", "gap_s", "remembered"),
    [
        ([4, 7], [0.5, 1.99], [True, True]),
        ([4, 8], [0.5, 0.5], [True, False]),
        ([7, 4], [0.5, 0.5], [False, False]),  # the drives changed places
        ([4, 7], [2.01, 0.5], [False, True]),
        ([4, 7], [-0.5, 0.0], [False, False]),
    ],
)
def test_a_row_begins_anew_on_its_own(scenes: list[int], gap_s: list[float], remembered: list[bool]) -> None:
    stream, first = Stream(), first_frame(2, 4, LENGTH, torch.zeros(0, 1, 3))
    poses, start = torch.cat(POSES[:2]), torch.tensor([10.0, 90.0], dtype=torch.float64)
    old = Memory(torch.ones(2, LENGTH, 4), first.references + 1, first.age_s, first.motion + 1)
    stream.keep(Moment(poses, start, torch.tensor([4, 7])), True, (old,))
    now = Moment(poses, start + torch.tensor(gap_s, dtype=torch.float64), torch.tensor(scenes))
    (memory,) = stream.recall(now, True, (first,))
    for row in range(2):
        assert torch.equal(memory.embedding[row], (old if remembered[row] else first).embedding[row])
        for name in ("references", "age_s", "motion"):
            anew = torch.equal(getattr(memory, name)[row], getattr(first, name)[row])
            assert anew is not remembered[row]


def test_another_mode_or_batch_or_a_wish_empties_it() -> None:
    stream, first = Stream(), (first_frame(1, 4, LENGTH, torch.zeros(0, 1, 3)),)
    kept = (remember(*first, torch.ones(1, 1, 4), torch.ones(1, 1, 1, 3), torch.ones(1, 1), 1),)
    later, two = moment(POSES[1], 0.1), Moment(torch.cat(POSES[:2]), torch.ones(2).double(), torch.tensor([0, 1]))
    stream.keep(moment(POSES[0], 0.0), True, kept)
    assert stream.recall(later, True, first)[0].embedding.any()
    assert stream.recall(later, False, first) is first
    assert stream.recall(two, True, first) is first
    stream.forget()
    assert stream.recall(later, True, first) is first


def test_moments_that_cannot_be_followed_are_refused() -> None:
    poses, times = torch.cat(POSES[:2]), torch.tensor([0.0, 0.5], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"drives \[3, 3\]; .*batches of one frame"):
        Moment(poses, times, torch.tensor([3, 3]))
    with pytest.raises(ValueError, match=r"ego_pose: torch\.float32 .* float64 is needed"):
        Moment(poses.float(), times, torch.tensor([3, 4]))
    with pytest.raises(ValueError, match=r"timestamp: torch\.float32"):
        Moment(poses, times.float(), torch.tensor([3, 4]))
