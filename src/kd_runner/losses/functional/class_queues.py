"""FIFO queues of embeddings, one per class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassQueues(nn.Module):
    """The latest unit vectors of each class, a ring: the oldest is overwritten first. Starts from random unit vectors.

    Args:
        classes: number of classes.
        size: vectors of each class.
        dim: length of a vector.
        generator: for the initial vectors.
    """

    vectors: Tensor
    heads: Tensor

    def __init__(self, classes: int, size: int, dim: int, generator: torch.Generator):
        super().__init__()
        self.register_buffer("vectors", F.normalize(torch.randn(classes, size, dim, generator=generator), dim=2))
        self.register_buffer("heads", torch.zeros(classes, dtype=torch.int64))

    @torch.no_grad()
    def write(self, new: Tensor, labels: Tensor) -> None:
        """Append vectors to the queues of their classes, in their order.

        Args:
            new: (M, D), of any length.
            labels: (M,) int64, the class of each.
        """
        size = self.vectors.shape[1]
        for label in labels.unique().tolist():
            latest = new[labels == label][-size:]
            slots = (self.heads[label] + torch.arange(len(latest), device=new.device)) % size
            self.vectors[label, slots] = F.normalize(latest, dim=1).to(self.vectors.dtype)
            self.heads[label] = (self.heads[label] + len(latest)) % size

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw the same slots of every class, without replacement.

        Args:
            count: number of slots.
            generator: on the device of the queues.

        Returns:
            (classes * count, D).
        """
        size = self.vectors.shape[1]
        slots = torch.randperm(size, generator=generator, device=self.vectors.device)[:count]
        return self.vectors[:, slots].flatten(0, 1)
