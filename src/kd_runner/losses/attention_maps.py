"""Distillation of attention maps between a net and itself with fewer heads."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-6  # a probability below it counts as it; the gradient by the map stays below 1e6


class AttentionKL(nn.Module):
    """T^2 * KL(teacher || student) of attention distributions, mean over levels, rows, heads and queries.

    Maps are distributions over the keys already: their logarithm, up to a constant the attention's logits, is divided
    by T and normalized again, so that T means what it does in Hinton et al. 2015. One query of one head is one
    distribution: neither heads, tokens nor images multiply the value. MiniLM (Wang et al. 2020, equation 1) is the
    case T = 1 with all heads.

    Memory: a global block of 1600 tokens and 16 heads holds 164 MB of float32 per image and net; windows of 256
    tokens a sixth of that.

    Args:
        temperature: T > 0.
    """

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self.temperature = temperature

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], kept: Sequence[Tensor] | None = None
    ) -> Tensor:
        """student (rows, h, N, N), teacher (rows, H, N, N) a level, each row over the keys summing to 1; a row is an
        image or a window of one. kept: int64 (h,) a level, the teacher's head that each student head was cut from; None
        where no head was removed.

        Returns a scalar in nats times T^2.

        Raises:
            ValueError: levels, sizes or heads do not fit.
        """
        if len(student) != len(teacher) or (kept is not None and len(kept) != len(student)):
            lists = "" if kept is None else f", {len(kept)} lists of kept heads"
            raise ValueError(f"{len(student)} student levels, {len(teacher)} teacher levels{lists}")
        levels = []
        for number, (ours, theirs) in enumerate(zip(student, teacher)):
            heads = range(theirs.shape[1]) if kept is None else kept[number]
            theirs = _chosen(number, ours, theirs.detach(), torch.as_tensor(heads, device=theirs.device))
            log_ours, log_theirs = self._log(ours), self._log(theirs)
            levels.append((log_theirs.exp() * (log_theirs - log_ours)).sum(-1).mean())
        return self.temperature**2 * torch.stack(levels).mean()

    def _log(self, maps: Tensor) -> Tensor:
        return F.log_softmax(maps.float().clamp(min=_EPS).log() / self.temperature, dim=-1)


def _chosen(level: int, student: Tensor, teacher: Tensor, heads: Tensor) -> Tensor:
    """The teacher's maps of these heads, in their order, once everything is known to fit."""
    shapes = f"level {level}: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
    if student.ndim != 4 or teacher.ndim != 4:
        raise ValueError(f"{shapes}; maps (rows, heads, queries, keys) needed")
    if student.shape[:1] + student.shape[2:] != teacher.shape[:1] + teacher.shape[2:]:
        raise ValueError(f"{shapes}; they may differ in the number of heads only")
    if len(heads) != student.shape[1]:
        raise ValueError(f"{shapes}, but kept names {len(heads)} heads; it needs one of the teacher's per student head")
    if len(heads.unique()) != len(heads) or ((heads < 0) | (heads >= teacher.shape[1])).any():
        raise ValueError(f"{shapes}: kept {heads.tolist()} must be different numbers from 0 to {teacher.shape[1] - 1}")
    return teacher.index_select(1, heads)
