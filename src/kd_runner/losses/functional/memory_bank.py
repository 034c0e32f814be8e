"""Embeddings of past samples: one row per sample (bank), or the last ones (queue).

Both hold `student` and `teacher` (N, D), L2-normalized rows, and `keys` (N,) int64: rows of equal key are never
each other's negatives. A key is the sample's group where that is known (>= 0), else -1 - index, its own.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def random_rows(size: int, dim: int, generator: torch.Generator) -> Tensor:
    """Uniform in +-1/sqrt(D/3), hence of length 1 on average (the authors' initial bank)."""
    return (2 * torch.rand(size, dim, generator=generator) - 1) * (dim / 3) ** -0.5


class MemoryBank(nn.Module):
    """Row y is a running mean of sample y's embeddings (Wu et al. 2018, "Unsupervised Feature Learning via
    Non-Parametric Instance Discrimination"; CRD keeps one for each net). The positive is the past of the same sample.

    Args:
        size: number of training samples.
        dim: length of an embedding.
        momentum: share of the old row.
        generator: of the initial rows.
    """

    student: Tensor
    teacher: Tensor
    keys: Tensor

    def __init__(self, size: int, dim: int, momentum: float, generator: torch.Generator):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("student", random_rows(size, dim, generator))
        self.register_buffer("teacher", random_rows(size, dim, generator))
        self.register_buffer("keys", -1 - torch.arange(size))
        self._sorted: tuple[Tensor, int, Tensor, Tensor] | None = None

    def keys_of(self, index: Tensor, group: Tensor | None) -> Tensor:
        """Keys (B,) of samples.

        Raises:
            ValueError: an index outside of the bank, or that of a row which belongs to another group: the same
                number now stands for another sample.
        """
        size = len(self.keys)
        outside = (index < 0) | (index >= size)
        known = self.keys[index.clamp(0, size - 1)]
        keys = known if group is None else torch.where(group >= 0, group, known)
        changed = (known >= 0) & (known != keys)
        if (outside | changed).any():
            if outside.any():
                raise ValueError(
                    f"index {int(index[outside][0])} is no row of a bank of n_data={size}: give the number of training "
                    "samples (labeled and unlabeled) as n_data, and a sample's own number 0..n_data-1 as index"
                )
            raise ValueError(
                f"index {int(index[changed][0])} was in group {int(known[changed][0])} and now comes with "
                f"{int(keys[changed][0])}: index must be the sample's own number, the same in every epoch"
            )
        return keys

    def learn(self, index: Tensor, keys: Tensor) -> None:
        """Remember the groups of samples."""
        if (self.keys[index] != keys).any():
            self.keys[index] = keys

    def ordered(self) -> tuple[Tensor, Tensor]:
        """Sorted keys and the rows in that order; sorted anew only when keys have changed."""
        if self._sorted is None or self._sorted[0] is not self.keys or self._sorted[1] != self.keys._version:
            self._sorted = (self.keys, self.keys._version, *torch.sort(self.keys))
        return self._sorted[2:]

    def positives(self, index: Tensor, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (B, D) that the student's and the teacher's embeddings are drawn to: each the other net's."""
        return self.teacher[index], self.student[index]

    def write(self, index: Tensor, keys: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Blend new embeddings (B, D) in. A sample that is there twice counts once, by its mean."""
        same = index[:, None] == index
        # The row of the first one, for all: writing a row twice is harmless when both writes agree.
        first = same.to(student.dtype).argmax(1)
        share = same / same.sum(1, keepdim=True)
        for rows, new in ((self.student, student), (self.teacher, teacher)):
            mean = (share @ new)[first]
            rows[index] = F.normalize(self.momentum * rows[index] + (1 - self.momentum) * mean, dim=1)


class Queue(nn.Module):
    """The last embeddings, whosever they were (He et al. 2020, "Momentum Contrast"), where a row for every sample is
    too many. There is no past of the same sample, so the positive is the other net's embedding of now.

    Args:
        size: number of embeddings kept.
        dim: length of an embedding.
        generator: of the initial rows.
    """

    student: Tensor
    teacher: Tensor
    keys: Tensor
    head: Tensor

    def __init__(self, size: int, dim: int, generator: torch.Generator):
        super().__init__()
        self.register_buffer("student", random_rows(size, dim, generator))
        self.register_buffer("teacher", random_rows(size, dim, generator))
        # Keys that no sample has.
        self.register_buffer("keys", -(2**62) - torch.arange(size))
        self.register_buffer("head", torch.zeros((), dtype=torch.int64))

    def keys_of(self, index: Tensor, group: Tensor | None) -> Tensor:
        """Keys (B,) of samples.

        Raises:
            ValueError: a negative index.
        """
        if (index < 0).any():
            raise ValueError(f"index {int(index.min())} is below 0: give the sample's own number")
        return -1 - index if group is None else torch.where(group >= 0, group, -1 - index)

    def learn(self, index: Tensor, keys: Tensor) -> None:
        """Nothing: a sample has no row before it is written."""

    def ordered(self) -> tuple[Tensor, Tensor]:
        """Sorted keys and the rows in that order."""
        ordered, order = torch.sort(self.keys)
        return ordered, order

    def positives(self, index: Tensor, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) that the student's and the teacher's are drawn to: each the other net's."""
        return teacher, student

    def write(self, index: Tensor, keys: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Replace the oldest rows."""
        size = len(self.keys)
        keys, student, teacher = keys[-size:], student[-size:], teacher[-size:]
        places = (self.head + torch.arange(len(keys), device=keys.device)) % size
        self.keys[places], self.student[places], self.teacher[places] = keys, student, teacher
        self.head.copy_((self.head + len(keys)) % size)
