"""Embeddings of past samples: one row per sample (bank), or the most recent ones (queue).

Both hold `student` and `teacher` (N, D), L2-normalized rows, and `keys` (N,) int64: rows of equal key are never
each other's negatives. A key is the sample's group where that is known (>= 0), else -1 - index.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def random_rows(size: int, dim: int, generator: torch.Generator) -> Tensor:
    """Initial rows as in the authors' code: uniform in +-1/sqrt(D/3), so of length 1 on average.

    Args:
        size: number of rows.
        dim: length D of a row.
        generator: of the random numbers.

    Returns:
        `(size, dim)`.
    """
    return (2 * torch.rand(size, dim, generator=generator) - 1) * (dim / 3) ** -0.5


class MemoryBank(nn.Module):
    """One row per training sample: a running mean of its embeddings, for student and teacher.

    The positive of an embedding is the other net's row of the same sample.

    Args:
        size: number of training samples.
        dim: length of an embedding.
        momentum: weight of the old row in the running mean, in 0..1.
        generator: for the initial rows.

    Source:
        Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
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
        """Keys of samples.

        Args:
            index: (B,) int64 sample numbers.
            group: (B,) int64, negative where unknown; or None.

        Returns:
            (B,) int64.

        Raises:
            ValueError: an index outside of the bank, or one seen before with another group: the same number now
                means another sample.
        """
        size = len(self.keys)
        outside = (index < 0) | (index >= size)
        known = self.keys[index.clamp(0, size - 1)]
        keys = known if group is None else torch.where(group >= 0, group, known)
        changed = (known >= 0) & (known != keys)
        if (outside | changed).any():
            if outside.any():
                raise ValueError(
                    f"index {int(index[outside][0])} is not a row of the bank of n_data={size}: give the number of "
                    "training samples (labeled and unlabeled) as n_data, and a sample's own number 0..n_data-1 as index"
                )
            raise ValueError(
                f"index {int(index[changed][0])} was in group {int(known[changed][0])} and now comes with "
                f"{int(keys[changed][0])}: index must be the sample's own number, the same in every epoch"
            )
        return keys

    def learn(self, index: Tensor, keys: Tensor) -> None:
        """Store the keys of samples.

        Args:
            index: (B,) int64 sample numbers.
            keys: (B,) int64.
        """
        if (self.keys[index] != keys).any():
            self.keys[index] = keys

    def ordered(self) -> tuple[Tensor, Tensor]:
        """Sorted keys and the rows in that order; cached until the keys change."""
        if self._sorted is None or self._sorted[0] is not self.keys or self._sorted[1] != self.keys._version:
            self._sorted = (self.keys, self.keys._version, *torch.sort(self.keys))
        return self._sorted[2:]

    def positives(self, index: Tensor, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Positives of embeddings: the other net's rows.

        Args:
            index: (B,) int64 sample numbers.
            student: (B, D), not used.
            teacher: (B, D), not used.

        Returns:
            Positives (B, D) of the student's and of the teacher's embeddings.
        """
        return self.teacher[index], self.student[index]

    def write(self, index: Tensor, keys: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Average new embeddings into their rows. A sample that occurs twice counts once, by its mean.

        Args:
            index: (B,) int64 sample numbers.
            keys: (B,) int64, not used.
            student: (B, D).
            teacher: (B, D).
        """
        same = index[:, None] == index
        # All copies of a sample write the same value, so the order of the writes does not matter.
        first = same.to(student.dtype).argmax(1)
        average = same / same.sum(1, keepdim=True)
        for rows, new in ((self.student, student), (self.teacher, teacher)):
            mean = (average @ new)[first]
            rows[index] = F.normalize(self.momentum * rows[index] + (1 - self.momentum) * mean, dim=1)


class Queue(nn.Module):
    """FIFO queue of recent embeddings, for data sets where one row per sample is too many.

    It keeps no past embedding of the same sample, so the positive is the other net's current embedding.

    Args:
        size: number of embeddings kept.
        dim: length of an embedding.
        generator: for the initial rows.

    Source:
        He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020.
    """

    student: Tensor
    teacher: Tensor
    keys: Tensor
    head: Tensor

    def __init__(self, size: int, dim: int, generator: torch.Generator):
        super().__init__()
        self.register_buffer("student", random_rows(size, dim, generator))
        self.register_buffer("teacher", random_rows(size, dim, generator))
        # Initial rows have keys that no sample has.
        self.register_buffer("keys", -(2**62) - torch.arange(size))
        self.register_buffer("head", torch.zeros((), dtype=torch.int64))

    def keys_of(self, index: Tensor, group: Tensor | None) -> Tensor:
        """Keys of samples.

        Args:
            index: (B,) int64 sample numbers.
            group: (B,) int64, negative where unknown; or None.

        Returns:
            (B,) int64.

        Raises:
            ValueError: a negative index.
        """
        if (index < 0).any():
            raise ValueError(f"index {int(index.min())} is below 0: give the sample's own number")
        return -1 - index if group is None else torch.where(group >= 0, group, -1 - index)

    def learn(self, index: Tensor, keys: Tensor) -> None:
        """Does nothing: keys are stored by `write`.

        Args:
            index: not used.
            keys: not used.
        """

    def ordered(self) -> tuple[Tensor, Tensor]:
        """Sorted keys and the rows in that order."""
        ordered, order = torch.sort(self.keys)
        return ordered, order

    def positives(self, index: Tensor, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Positives of embeddings: the other net's current ones.

        Args:
            index: not used.
            student: (B, D).
            teacher: (B, D).

        Returns:
            Positives (B, D) of the student's and of the teacher's embeddings.
        """
        return teacher, student

    def write(self, index: Tensor, keys: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Replace the oldest rows.

        Args:
            index: not used.
            keys: (B,) int64.
            student: (B, D).
            teacher: (B, D).
        """
        size = len(self.keys)
        keys, student, teacher = keys[-size:], student[-size:], teacher[-size:]
        rows = (self.head + torch.arange(len(keys), device=keys.device)) % size
        self.keys[rows], self.student[rows], self.teacher[rows] = keys, student, teacher
        self.head.copy_((self.head + len(keys)) % size)
