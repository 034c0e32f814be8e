"""Contrastive representation distillation (Tian, Krishnan, Isola 2020, "Contrastive Representation Distillation")."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional import ranks
from kd_runner.losses.functional.memory_bank import MemoryBank, Queue
from kd_runner.losses.functional.nce import attach, nce, similarities
from kd_runner.losses.functional.negatives import draw, seeded
from kd_runner.losses.functional.pooling import at_points, global_average

Features = Tensor | Sequence[Tensor]


class CRD(nn.Module):
    """Draws the student's embedding of a sample to the teacher's of the same one, away from those of others.

    Each net has an embedding (linear and L2, both trained) and a memory bank. The student's embedding is scored against
    the teacher's bank, the teacher's against the student's; the value is the sum of both sides, each summed over the
    negatives and averaged over the batch (so it is large; the authors' weight is 0.8). The rows of the batch are then
    blended into the banks, and with the first batch the normalizers Z are fixed, over all processes alike.

    Banks, Z and the position in the random numbers change only in training mode with gradients on, and are buffers:
    a resumed run goes on as it would have. Every process does the same updates, with all processes' samples.

    Args:
        n_data: number of training samples, labeled and unlabeled: the rows of the bank. None with a queue.
        queue: length of a queue of the last embeddings in place of the bank, for data sets of a million and more.
        num_negatives: K, of each sample.
        dim: length of an embedding.
        temperature: T > 0.
        momentum: share of the old row when the bank is updated.
        seed: of the banks' initial rows and of the negatives.

    Raises:
        ValueError: neither or both of n_data and queue, more negatives than rows, a temperature of 0 or below.
    """

    z: Tensor
    steps: Tensor

    def __init__(
        self,
        n_data: int | None = None,
        queue: int | None = None,
        num_negatives: int = 16384,
        dim: int = 128,
        temperature: float = 0.07,
        momentum: float = 0.5,
        seed: int = 0,
    ):
        super().__init__()
        if (n_data is None) == (queue is None):
            raise ValueError("give n_data, the number of training samples, or the length of a queue, and not both")
        size = n_data or queue or 0
        if not 0 < num_negatives <= size:
            raise ValueError(f"num_negatives={num_negatives} must be above 0 and at most the {size} rows of the memory")
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self.n_data, self.num_negatives, self.dim = n_data, num_negatives, dim
        self.temperature, self.seed = temperature, seed
        generator = torch.Generator().manual_seed(seed)
        self.memory = MemoryBank(size, dim, momentum, generator) if n_data else Queue(size, dim, generator)
        self.embed_s: nn.Linear | None = None
        self.embed_t: nn.Linear | None = None
        self.register_buffer("z", torch.zeros(2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def build(self, student: Features, teacher: Features, **rest: Tensor) -> None:
        """Make the embeddings from example features."""
        self.embed_s = nn.Linear(global_average(student).shape[1], self.dim)
        self.embed_t = nn.Linear(global_average(teacher).shape[1], self.dim)

    def forward(
        self,
        student: Features,
        teacher: Features,
        index: Tensor,
        group: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> Tensor:
        """Value in nats.

        Args:
            student, teacher: maps (B, C, H, W), pooled by their mean, or vectors (B, C); of several levels, joined.
            index: (B,) int64, the sample's own number, the same in every epoch.
            group: (B,) int64, below 0 where unknown. Rows of one group are never each other's negatives: classes (the
                authors' choice where there are labels), or scenes, whose neighboring frames are near duplicates. A
                row's group is known once the sample has been seen. Without, only the sample's own row is left out.
            negatives: (B, K) int64 rows, in place of those drawn.

        Raises:
            ValueError: an index that is no row, or that comes with another group than before; no batch of vectors.
        """
        if self.embed_s is None or self.embed_t is None:
            raise ValueError("the embeddings are not there: call build with example features first")
        with torch.autocast(index.device.type, enabled=False):  # exp(1 / 0.07) overflows float16
            ours = F.normalize(self.embed_s(global_average(student).float()), dim=1)
            theirs = F.normalize(self.embed_t(global_average(teacher).detach().float()), dim=1)
            if len(index) != len(ours) or len(index) != len(theirs):
                raise ValueError(f"{len(ours)} student and {len(theirs)} teacher vectors, {len(index)} indices")
            return self._contrast(ours, theirs, index, group, negatives)

    def _contrast(
        self, ours: Tensor, theirs: Tensor, index: Tensor, group: Tensor | None, negatives: Tensor | None
    ) -> Tensor:
        # Not in validation, nor when the loss is built and shown on an example before training.
        trains = self.training and torch.is_grad_enabled()
        with torch.no_grad():
            keys = self.memory.keys_of(index, group)
            if trains:
                known = ranks.gather(torch.stack([index, keys], dim=1))
                self.memory.learn(known[:, 0], known[:, 1])
            step = int(self.steps)
            if negatives is None:
                generator = seeded(index.device, self.seed, step, ranks.rank())
                negatives = draw(*self.memory.ordered(), keys, self.num_negatives, generator)
            positives = self.memory.positives(index, ours, theirs)
            sides = [(ours, positives[0], self.memory.teacher), (theirs, positives[1], self.memory.student)]
            scores = [similarities(anchor, positive, rows, negatives) for anchor, positive, rows in sides]
            z = self._normalizers(scores, everywhere=trains) if step == 0 else self.z
            values = [
                nce(score, negatives, rows, positive, z[side], self.temperature)
                for side, (score, (_, positive, rows)) in enumerate(zip(scores, sides))
            ]
            if trains and len(known):
                self.z.copy_(z)
                self.steps += 1
                new = ranks.gather(torch.cat([ours, theirs], dim=1))
                self.memory.write(known[:, 0], known[:, 1], *new.split(self.dim, dim=1))
        first, second = (attach(*value, anchor) for value, (anchor, _, _) in zip(values, sides))
        return first + second

    def _normalizers(self, scores: list[Tensor], everywhere: bool) -> Tensor:
        """N times the mean of exp(score / T), for each side: of all processes, where all of them are here."""
        means = torch.stack([(score / self.temperature).exp_().mean(1) for score in scores], dim=1)
        return (ranks.gather(means) if everywhere else means).mean(0) * len(self.memory.keys)


class ObjectCRD(nn.Module):
    """CRD of objects: a row of the bank is an annotation, its features are those at the box's center on the BEV map,
    and the negatives are objects of other classes. A scene pooled as a whole is mostly empty ground, and has no class.

    Args:
        crd: the loss, with n_data the number of annotations, or a queue.
        bev_range: x_min, y_min, x_max, y_max in meters of the maps' outer edges.
    """

    def __init__(self, crd: CRD, bev_range: Sequence[float]):
        super().__init__()
        self.crd, self.bev_range = crd, tuple(bev_range)

    def build(self, student: Features, teacher: Features, boxes: Tensor, **rest: Tensor) -> None:
        """Make the embeddings from example maps."""
        centers = boxes[..., :2]
        ours, theirs = (at_points(maps, centers, self.bev_range).flatten(0, 1) for maps in (student, teacher))
        self.crd.build(ours, theirs)

    def forward(
        self, student: Features, teacher: Features, boxes: Tensor, index: Tensor, label: Tensor, mask: Tensor
    ) -> Tensor:
        """student, teacher: maps (B, C, X, Y), dim 2 along x, or levels of them; boxes (B, M, 2 or more), x and y
        first, in meters; index (B, M) int64, the annotation's own number; label (B, M) int64; mask (B, M) bool, False
        where there is no box. Boxes centerd outside of the range do not count.

        Returns a scalar in nats, mean over the objects; 0 where there are none.

        Raises:
            ValueError: as CRD.
        """
        centers = boxes[..., :2].float()
        low, high = centers.new_tensor(self.bev_range[:2]), centers.new_tensor(self.bev_range[2:])
        counts = mask & ((centers >= low) & (centers < high)).all(-1)
        ours, theirs = (at_points(maps, centers, self.bev_range)[counts] for maps in (student, teacher))
        return self.crd(ours, theirs, index[counts], group=label[counts])
