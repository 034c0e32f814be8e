"""Start a narrow student from its wide teacher's weights.

Source: Yang et al., "Towards Efficient 3D Object Detection with Knowledge Distillation", NeurIPS 2022, arXiv
2205.15156, section 4.3.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kd_runner.models.bevfusion.detector import BEVFusionLidar

log = logging.getLogger(__name__)


@dataclass
class Remapped:
    """Names of tensors that were copied whole, cut down, or left as they were."""

    copied: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{len(self.copied)} copied, {len(self.cut)} cut, {len(self.kept)} left as initialized"


# (part of a name, dimension) to the widths, in the student and in the teacher, of the pieces side by side there.
Pieces = Mapping[tuple[str, int], tuple[Sequence[int], Sequence[int]]]


def remap(student: nn.Module, teacher_state: Mapping[str, Tensor], pieces: Pieces | None = None) -> Remapped:
    """Fill the student with the leading slices of the teacher's tensors of the same name.

    Leading channels are the same channels in every layer, so what one layer writes the next one reads. A dimension that
    joins several maps is cut piece by piece. A tensor stays as it is if the teacher has none of its name, or if a
    dimension is wider in the student.

    Args:
        student: filled in place.
        teacher_state: the teacher's state dict.
        pieces: the joined dimensions; see `fpn_pieces`. The three projections of `in_proj` are known.

    Returns:
        Which tensors were copied, cut or left.

    Raises:
        ValueError: pieces that do not add up to the dimension.
    """
    report, filled = Remapped(), {}
    for name, target in student.state_dict().items():
        source = teacher_state.get(name)
        if source is None or source.ndim != target.ndim or any(o > t for o, t in zip(target.shape, source.shape)):
            report.kept.append(name)
            continue
        (report.copied if source.shape == target.shape else report.cut).append(name)
        for dimension in range(target.ndim):
            rows = _rows(name, dimension, target.shape[dimension], source.shape[dimension], pieces or {})
            source = source.index_select(dimension, rows.to(source.device))
        filled[name] = source
    student.load_state_dict(filled, strict=False)
    return report


def from_teacher(student: BEVFusionLidar, teacher: BEVFusionLidar) -> None:
    """Start a student from its teacher's weights, as `student.init`: `remap` with `fpn_pieces`, logged.

    Args:
        student: filled in place.
        teacher: a net with channels no fewer than the student's.
    """
    report = remap(student, teacher.state_dict(), fpn_pieces(student, teacher))
    log.info("student from the teacher's weights: %s", report)


def fpn_pieces(student: BEVFusionLidar, teacher: BEVFusionLidar) -> Pieces:
    """The one place where BEVFusion joins maps: the head's first convolution reads all levels of the pyramid.

    Args:
        student: the narrow net.
        teacher: the wide net.

    Returns:
        The joined dimension, for `remap`.
    """
    widths = student.pts_neck.out_channels, teacher.pts_neck.out_channels
    return {("bbox_head.shared_conv.weight", 1): widths}


def _rows(name: str, dimension: int, target: int, source: int, pieces: Pieces) -> Tensor:
    narrow, wide = [target], [source]
    if "in_proj" in name and dimension == 0:
        narrow, wide = [target // 3] * 3, [source // 3] * 3
    for (part, where), widths in pieces.items():
        if part in name and where == dimension:
            narrow, wide = list(widths[0]), list(widths[1])
    if sum(narrow) != target or sum(wide) != source or any(n > w for n, w in zip(narrow, wide, strict=True)):
        raise ValueError(
            f"pieces of {name}, dimension {dimension}: {narrow} of {wide} for {target} of {source} channels"
        )
    starts = torch.tensor([0, *wide[:-1]]).cumsum(0).tolist()
    return torch.cat([torch.arange(start, start + width) for start, width in zip(starts, narrow)])
