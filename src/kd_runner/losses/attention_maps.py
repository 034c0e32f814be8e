"""Distillation of attention maps to a student with fewer heads."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-6  # smallest probability; bounds the gradient with respect to a map by 1e6


class AttentionKL(nn.Module):
    """KL divergence of attention distributions, softened by a temperature.

        loss = T^2 * mean over levels, rows, heads and queries of KL(t_T || s_T),  p_T = softmax(log(p) / T)

    A mask leaves padding tokens of windows out of the mean over queries. (At 40 x 40 tokens and windows of 16 x 16 they
    are 30.6 % of the queries.) As keys they take part in the attention of both nets and count.

    Maps p are probabilities over the keys, so log(p) are the attention logits up to a constant, and T acts as in
    Hinton et al. 2015. T = 1 with all heads is the attention transfer of MiniLM.

    Memory: a global block of 1600 tokens and 16 heads takes 164 MB of float32 per image and net, windows of 256 tokens
    a sixth of that.

    Args:
        temperature: T > 0.

    Raises:
        ValueError: the temperature is not positive.

    Source:
        Wang et al., "MiniLM", NeurIPS 2020, equation 1.
    """

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self.temperature = temperature

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], kept_heads: Sequence[Tensor] | None = None,
        query_mask: Sequence[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Compute the loss.

        Args:
            student: maps of the levels, each `(rows, h, N, N)`, probabilities over the last axis. A row is an image or
                a window of one.
            teacher: likewise, `(rows, H, N, N)`.
            kept_heads: per level `(h,)` int64, the teacher head that each student head was cut from. None if no head
                was removed.
            query_mask: per level `(rows, N)` bool, False for padding. None if there is none.

        Returns:
            Scalar, in nats times T^2.

        Raises:
            ValueError: levels, sizes or heads do not fit.
        """
        if len(student) != len(teacher) or (kept_heads is not None and len(kept_heads) != len(student)):
            lists = "" if kept_heads is None else f", {len(kept_heads)} lists of kept heads"
            raise ValueError(f"{len(student)} student levels, {len(teacher)} teacher levels{lists}")
        if query_mask is not None and len(query_mask) != len(student):
            raise ValueError(f"{len(student)} student levels, {len(query_mask)} query masks")
        levels = []
        for level, (student_map, teacher_map) in enumerate(zip(student, teacher)):
            heads = range(teacher_map.shape[1]) if kept_heads is None else kept_heads[level]
            heads = torch.as_tensor(heads, device=teacher_map.device)
            teacher_map = _select_heads(level, student_map, teacher_map.detach(), heads)
            student_log, teacher_log = self._log_soft(student_map), self._log_soft(teacher_map)
            divergence = (teacher_log.exp() * (teacher_log - student_log)).sum(-1)
            levels.append(_mean_of_queries(level, divergence, None if query_mask is None else query_mask[level]))
        return self.temperature**2 * torch.stack(levels).mean()

    def _log_soft(self, maps: Tensor) -> Tensor:
        """Logarithm of the softened maps."""
        return F.log_softmax(maps.float().clamp(min=_EPS).log() / self.temperature, dim=-1)


def _mean_of_queries(level: int, divergence: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `divergence (rows, h, N)` over the queries in `mask (rows, N)`."""
    if mask is None:
        return divergence.mean()
    rows, _, queries = divergence.shape
    if mask.shape != (rows, queries):
        raise ValueError(f"level {level}: query mask {tuple(mask.shape)}, {rows} rows of {queries} queries")
    return divergence.transpose(1, 2)[mask].mean()


def _select_heads(level: int, student: Tensor, teacher: Tensor, heads: Tensor) -> Tensor:
    """The teacher's maps of `heads`, in this order, after all shapes are checked."""
    shapes = f"level {level}: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
    if student.ndim != 4 or teacher.ndim != 4:
        raise ValueError(f"{shapes}; maps (rows, heads, queries, keys) needed")
    if student.shape[:1] + student.shape[2:] != teacher.shape[:1] + teacher.shape[2:]:
        raise ValueError(f"{shapes}; they may differ in the number of heads only")
    if len(heads) != student.shape[1]:
        raise ValueError(
            f"{shapes}, but kept_heads names {len(heads)} heads; it needs one teacher head per student head"
        )
    if len(heads.unique()) != len(heads) or ((heads < 0) | (heads >= teacher.shape[1])).any():
        raise ValueError(
            f"{shapes}: kept_heads {heads.tolist()} must be different numbers from 0 to {teacher.shape[1] - 1}"
        )
    return teacher.index_select(1, heads)
