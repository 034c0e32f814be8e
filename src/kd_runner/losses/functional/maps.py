"""Features of student and teacher in one form: maps (B, C, H, W) on the student's grid, with a mask (B, H, W)."""

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor

from kd_runner.losses.functional.pooling import levels

Features = Tensor | Sequence[Tensor]
"""One level or several of them."""
Level = tuple[Tensor, Tensor, Tensor | None]
"""Maps of student and teacher, and the mask of valid locations."""


def full_precision(values: Tensor) -> Tensor:
    """Half precision becomes float32.

    Args:
        values: floating point numbers.

    Returns:
        float32 or float64 of the same shape.
    """
    return values.float() if values.element_size() < 4 else values


def as_maps(features: Tensor, channel_dim: int = 1) -> Tensor:
    """Features as maps of float32 or float64.

    Args:
        features: vectors (B, C), become (B, C, 1, 1); tokens (B, T, C) with `channel_dim` -1, become (B, C, 1, T);
            maps (B, C, H, W), or (B, H, W, C) with `channel_dim` -1.
        channel_dim: 1 or -1.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: another number of dimensions.
    """
    if features.ndim not in (2, 3, 4):
        raise ValueError(f"vectors (B, C), tokens (B, T, C) or maps (B, C, H, W) needed, not {tuple(features.shape)}")
    maps = full_precision(features).movedim(channel_dim, 1)
    return maps if maps.ndim == 4 else maps.unsqueeze(2) if maps.ndim == 3 else maps[:, :, None, None]


def mask_on_grid(mask: Tensor | None, maps: Tensor) -> Tensor | None:
    """The mask of maps: at each location the nearest pixel of a mask of any size.

    Args:
        mask: bool, (B,), (B, T) or (B, H, W); None if all counts.
        maps: (B, C, H, W).

    Returns:
        (B, H, W) bool, or None.

    Raises:
        ValueError: a mask that is not (B,), (B, T) or (B, H, W).
    """
    if mask is None:
        return None
    if mask.ndim not in (1, 2, 3) or len(mask) != len(maps):
        raise ValueError(f"mask {tuple(mask.shape)} for {len(maps)} samples: (B,), (B, T) or (B, H, W) needed")
    grid = mask if mask.ndim == 3 else mask[:, None] if mask.ndim == 2 else mask[:, None, None]
    if grid.shape[1:] == maps.shape[2:]:
        return grid
    return F.interpolate(grid[:, None].float(), maps.shape[2:], mode="nearest-exact")[:, 0].bool()


def matched(
    student: Features, teacher: Features, mask: Tensor | None = None, channel_dim: int = 1, resize: bool = True
) -> Iterator[Level]:
    """Match the features of student and teacher level by level.

    Args:
        student: features as for `as_maps`, one level or several.
        teacher: likewise.
        mask: bool, True where a location counts; see `mask_on_grid`.
        channel_dim: 1, or -1 for tokens and token grids.
        resize: False leaves the teacher's maps on their own grid.

    Yields:
        The student's maps, the teacher's, detached and resized bilinearly to the student's grid, and the mask on it.

    Raises:
        ValueError: numbers of levels or of samples differ; tokens of different number.
    """
    students, teachers = levels(student), levels(teacher)
    if len(students) != len(teachers):
        raise ValueError(f"{len(students)} student levels, {len(teachers)} teacher levels")
    for number, (student_level, teacher_level) in enumerate(zip(students, teachers)):
        maps, target = as_maps(student_level, channel_dim), as_maps(teacher_level.detach(), channel_dim)
        if len(maps) != len(target):
            raise ValueError(f"level {number}: {len(maps)} samples of the student, {len(target)} of the teacher")
        if resize and target.shape[2:] != maps.shape[2:]:
            if student_level.ndim != 4 or teacher_level.ndim != 4:
                shapes = f"student {tuple(student_level.shape)}, teacher {tuple(teacher_level.shape)}"
                raise ValueError(f"level {number}: {shapes}: tokens and vectors cannot be resized")
            target = F.interpolate(target, maps.shape[2:], mode="bilinear", align_corners=False)
        yield maps, target, mask_on_grid(mask, maps)


def rows(maps: Tensor, mask: Tensor | None) -> Tensor:
    """The channel vectors of the valid locations.

    Args:
        maps: (B, C, ...).
        mask: (B, ...) bool, or None.

    Returns:
        (M, C).

    Raises:
        ValueError: the mask has another size.
    """
    vectors = maps.movedim(1, -1)
    if mask is None:
        return vectors.flatten(0, -2)
    if mask.shape != vectors.shape[:-1]:
        raise ValueError(f"spatial mismatch: mask {tuple(mask.shape)}, maps {tuple(maps.shape)}")
    return vectors[mask]


def hide(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Set void locations to 0.

    Args:
        maps: (B, C, H, W).
        mask: (B, H, W) bool, or None.

    Returns:
        The maps; the gradient is exactly 0 where the mask is False.
    """
    return maps if mask is None else maps.masked_fill(~mask[:, None], 0.0)


def check_channels(student: Tensor, teacher: Tensor) -> None:
    """Refuse maps of different numbers of channels.

    Args:
        student: (B, C, ...).
        teacher: likewise.

    Raises:
        ValueError: they differ.
    """
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(f"channel mismatch: student has {student.shape[1]}, teacher {teacher.shape[1]}")
