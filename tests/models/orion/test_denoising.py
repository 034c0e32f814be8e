"""Denoising queries: their displacement, the label of displaced ones, and the attention mask."""

import math

import torch
from torch import Tensor

from kd_runner.models.orion.denoising import DenoisingQueries, denoising_queries
from kd_runner.models.orion.encodings import denormalize_points

BOUNDS = torch.tensor([-50.0, -50, -5, 50, 50, 3])


def build(boxes: Tensor, labels: Tensor, mask: Tensor, groups: int = 2, split: float = 0.75) -> DenoisingQueries:
    torch.manual_seed(0)
    return denoising_queries(
        boxes, labels, mask, num_groups=groups, noise_scale=1.0, split=split, num_classes=9, bounds=BOUNDS
    )


def test_centers_move_by_up_to_half_a_size_and_far_ones_become_background() -> None:
    box = torch.tensor([10.0, -20, 0, 2, 4, 1.5, 0.3, 1, 1])
    queries = build(box.expand(1, 1000, 9), torch.full((1, 1000), 3), torch.ones(1, 1000).bool())
    moved = (denormalize_points(queries.references, BOUNDS) - box[:3]) / (box[[4, 3, 5]] / 2)  # width along x
    assert 0.99 < moved.abs().max() <= 1.0001
    assert ((moved.norm(dim=-1) > 0.75) == (queries.labels == 9)).float().mean() > 0.999
    assert abs((queries.labels == 3).float().mean().item() - math.pi / 6 * 0.75**3) < 0.03


def test_only_as_many_rows_as_the_fullest_frame_has_objects() -> None:
    mask = torch.tensor([[False, True, False, True], [False, False, True, False]])
    boxes = torch.arange(8.0).view(2, 4, 1).repeat(1, 1, 9)
    queries = build(boxes, torch.arange(8).view(2, 4), mask, groups=3, split=9.0)
    assert queries.mask.tolist() == [[True] * 6, [True, False] * 3]
    assert queries.labels[0].tolist() == [1, 3] * 3 and queries.labels[1, ::2].tolist() == [6] * 3
    assert queries.boxes[0, :, 0].tolist() == [1, 3] * 3


def test_frames_without_objects() -> None:
    queries = build(torch.zeros(2, 4, 9), torch.full((2, 4), -1), torch.zeros(2, 4).bool())
    assert queries.references.shape == (2, 0, 3)
    assert queries.attention_mask(5, 2).all() and queries.attention_mask(5, 2).shape == (2, 1, 5, 7)


def test_only_their_own_group_attends_to_denoising_queries() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    attn_mask = build(torch.ones(2, 2, 9), torch.ones(2, 2).long(), mask).attention_mask(3, 1)
    assert attn_mask.shape == (2, 1, 7, 8)
    assert attn_mask[0, 0, 0].int().tolist() == [1, 1, 0, 0, 1, 1, 1, 1]
    assert attn_mask[0, 0, 3].int().tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert attn_mask[1, 0, 0].int().tolist() == [1, 0, 0, 0, 1, 1, 1, 1]  # its second row is padding
    assert not attn_mask[:, :, 4:, :4].any() and attn_mask[:, :, :, 4:].all()
