"""Cross-image relational distillation within a batch: which pixels of other images resemble a pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.logits import check_temperature
from kd_runner.losses.functional.maps import hide, matched


class CrossImageRelations(nn.Module):
    """KL divergence of the pixel-to-pixel similarities between every two images of a batch.

    With rows of S_ij the softmax over the pixels of image j of the cosine to each pixel of image i, divided by T,

        loss = mean over pairs of images i, j of mean over pixels of i of KL(S_ij(teacher) || S_ij(student))

    There is no T^2, as in the authors' code; their T is 1 and their weight 1. Maps are averaged over 2 x 2 cells first,
    over the valid pixels of a cell. The numbers of channels may differ. Pairs (i, i) are among the pairs. Under DDP the
    batch is that of one process.

    Memory: (images * cells)^2 numbers for each net.

    Args:
        temperature: T > 0.
        pool: average over 2 x 2 cells first.

    Raises:
        ValueError: temperature is not above 0.

    Source:
        Yang et al., "Cross-Image Relational Knowledge Distillation for Semantic Segmentation", CVPR 2022, equations 3
        and 4; CIRKD's losses/cirkd_mini_batch.py.
    """

    def __init__(self, temperature: float = 1.0, pool: bool = True):
        super().__init__()
        self.temperature, self.pool = check_temperature(temperature), pool

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: maps (B, C, H, W). The teacher's is resized bilinearly to the student's grid.
            teacher: likewise.
            mask: (B, H, W) bool of any size, False where a pixel is ignored (its gradient is exactly 0). Images without
                a valid pixel do not count.

        Returns:
            Scalar in nats; 0 if no pixel counts.

        Raises:
            ValueError: not one map each.
        """
        ((maps, target, valid),) = matched(student, teacher, mask)
        if valid is None:
            valid = torch.ones_like(maps[:, 0], dtype=torch.bool)
        own, other = hide(maps, valid), hide(target, valid)
        if self.pool:
            # The zeros of void pixels shorten a mean, and only its direction counts.
            own, other = (F.avg_pool2d(m, 2, ceil_mode=True) for m in (own, other))
            valid = F.max_pool2d(valid[:, None].float(), 2, ceil_mode=True)[:, 0].bool()
        cells = valid.flatten(1)
        present = cells.any(1)
        own, other, cells = (m[present] for m in (own, other, cells))
        if len(cells) == 0:
            return own.sum()
        vectors_s, vectors_t = (F.normalize(m, dim=1).flatten(2) for m in (own, other))
        values = [self._relations(vectors_s, vectors_t, cells, image) for image in range(len(cells))]
        return torch.stack(values).mean()

    def _relations(self, student: Tensor, teacher: Tensor, cells: Tensor, image: int) -> Tensor:
        """Mean over the valid cells of one image and over all images of the divergence.

        Args:
            student: unit vectors (B, C, P).
            teacher: likewise.
            cells: (B, P) bool.
        """
        own, other = (_similarities(vectors, cells, image) / self.temperature for vectors in (student, teacher))
        void = ~cells[:, None]
        log_own, log_other = (F.log_softmax(s.masked_fill(void, -torch.inf), 2) for s in (own, other))
        difference = log_other.masked_fill(void, 0.0) - log_own.masked_fill(void, 0.0)
        return (log_other.exp() * difference).sum(2).mean()


def _similarities(vectors: Tensor, cells: Tensor, image: int) -> Tensor:
    """Cosines (B, valid cells of the image, P) to the cells of every image."""
    return vectors[image][:, cells[image]].T @ vectors
