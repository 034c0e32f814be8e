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
    """Contrastive loss: pulls student and teacher embeddings of a sample together and pushes other samples away.

    With f the L2-normalized linear embedding of either net, m the row of the other net's memory bank, c = K / N and
    p = exp(f . m / T) / Z, one side is, per sample,

        -log(p_pos / (p_pos + c)) - sum over K negatives of log(c / (p_neg + c))

    The loss is the sum of both sides (student against the teacher's bank, teacher against the student's), averaged
    over the batch. It is summed over the negatives and so it is large; the authors' weight is 0.8. After each step the
    new embeddings are averaged into the banks. The normalizers Z are set from the first batch of all processes.

    The banks, Z and the step counter are buffers and change only in training mode with gradients enabled, so a resumed
    run continues exactly. All processes make the same updates, from the samples of all processes.

    Args:
        n_data: number of training samples, labeled and unlabeled: the rows of the bank. None with a queue.
        queue: length of a FIFO queue of recent embeddings in place of the bank, for data sets of a million and more.
        num_negatives: K, negatives of each sample.
        dim: length of an embedding.
        temperature: T > 0.
        momentum: weight of the old row when the bank is updated, in 0..1.
        seed: seed of the banks' initial rows and of the negatives.

    Raises:
        ValueError: neither or both of n_data and queue; more negatives than rows; a temperature of 0 or below.

    Source:
        Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, section 3.

    Example:
        >>> import torch
        >>> loss = CRD(n_data=8, num_negatives=4, dim=16)
        >>> student, teacher, index = torch.randn(2, 4), torch.randn(2, 32), torch.tensor([0, 5])
        >>> loss.build(student, teacher)
        >>> loss(student, teacher, index).shape
        torch.Size([])
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
        """Create the two embedding layers, sized from example features.

        Args:
            student: as for `forward`.
            teacher: as for `forward`.
            **rest: the other arguments of `forward`, not used.
        """
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
        """Compute the loss and, in training, update the memory.

        Args:
            student: maps (B, C, H, W), averaged over H and W, or vectors (B, C); several levels are
                concatenated.
            teacher: as `student`.
            index: (B,) int64, the sample's own number, the same in every epoch.
            group: (B,) int64, negative where unknown. Rows of one group are never each other's negatives: classes (the
                authors' choice where there are labels), or scenes, whose neighboring frames are near duplicates. A
                row's group is known once the sample has been seen. If None, only the sample's own row is excluded.
            negatives: (B, K) int64 rows to use instead of randomly drawn ones.

        Returns:
            Scalar in nats.

        Raises:
            ValueError: an index outside of the bank, or with another group than before; not B vectors; `build` was
                not called.
        """
        if self.embed_s is None or self.embed_t is None:
            raise ValueError("the embedding layers do not exist: call build with example features first")
        with torch.autocast(index.device.type, enabled=False):  # exp(1 / 0.07) overflows float16
            student_embeddings = F.normalize(self.embed_s(global_average(student).float()), dim=1)
            teacher_embeddings = F.normalize(self.embed_t(global_average(teacher).detach().float()), dim=1)
            if len(index) != len(student_embeddings) or len(index) != len(teacher_embeddings):
                counts = len(student_embeddings), len(teacher_embeddings), len(index)
                raise ValueError("{} student and {} teacher vectors, {} indices".format(*counts))
            return self._contrast(student_embeddings, teacher_embeddings, index, group, negatives)

    def _contrast(
        self,
        student_embeddings: Tensor,
        teacher_embeddings: Tensor,
        index: Tensor,
        group: Tensor | None,
        negatives: Tensor | None,
    ) -> Tensor:
        # The memory does not change in validation, nor when the loss is tried on an example before training.
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
            positives = self.memory.positives(index, student_embeddings, teacher_embeddings)
            sides = [
                (student_embeddings, positives[0], self.memory.teacher),
                (teacher_embeddings, positives[1], self.memory.student),
            ]
            scores = [similarities(anchor, positive, rows, negatives) for anchor, positive, rows in sides]
            z = self._normalizers(scores, everywhere=trains) if step == 0 else self.z
            values = [
                nce(score, negatives, rows, positive, z[side], self.temperature)
                for side, (score, (_, positive, rows)) in enumerate(zip(scores, sides))
            ]
            if trains and len(known):
                self.z.copy_(z)
                self.steps += 1
                new = ranks.gather(torch.cat([student_embeddings, teacher_embeddings], dim=1))
                self.memory.write(known[:, 0], known[:, 1], *new.split(self.dim, dim=1))
        first, second = (attach(*value, anchor) for value, (anchor, _, _) in zip(values, sides))
        return first + second

    def _normalizers(self, scores: list[Tensor], everywhere: bool) -> Tensor:
        """N times the mean of exp(score / T) of each side; with `everywhere`, over all processes."""
        means = torch.stack([(score / self.temperature).exp_().mean(1) for score in scores], dim=1)
        return (ranks.gather(means) if everywhere else means).mean(0) * len(self.memory.keys)


class ObjectCRD(nn.Module):
    """CRD on objects instead of whole samples.

    A row of the bank is an annotation, its feature vector is sampled from the BEV map at the box center, and the
    negatives are objects of other classes. (A whole scene, averaged, is mostly empty ground and has no class.)

    Args:
        crd: the loss, with n_data the number of annotations, or a queue.
        bev_range: x_min, y_min, x_max, y_max of the maps' outer edges, in meters.
    """

    def __init__(self, crd: CRD, bev_range: Sequence[float]):
        super().__init__()
        self.crd, self.bev_range = crd, tuple(bev_range)

    def build(self, student: Features, teacher: Features, boxes: Tensor, **rest: Tensor) -> None:
        """Create the embedding layers, sized from example maps.

        Args:
            student: as for `forward`.
            teacher: as for `forward`.
            boxes: as for `forward`.
            **rest: the other arguments of `forward`, not used.
        """
        centers = boxes[..., :2]
        student_embeddings, teacher_embeddings = (
            at_points(maps, centers, self.bev_range).flatten(0, 1) for maps in (student, teacher)
        )
        self.crd.build(student_embeddings, teacher_embeddings)

    def forward(
        self, student: Features, teacher: Features, boxes: Tensor, index: Tensor, label: Tensor, mask: Tensor
    ) -> Tensor:
        """Compute the loss over all objects of the batch.

        Args:
            student: maps (B, C, X, Y), dim 2 along x, or a list of them.
            teacher: as `student`.
            boxes: (B, M, 2 or more), x and y first, in meters. Boxes with a center outside of the range are ignored.
            index: (B, M) int64, the annotation's own number.
            label: (B, M) int64 class, the group of CRD.
            mask: (B, M) bool, False for padding.

        Returns:
            Scalar in nats, mean over the objects; 0 if there are none.

        Raises:
            ValueError: as for CRD.
        """
        centers = boxes[..., :2].float()
        low, high = centers.new_tensor(self.bev_range[:2]), centers.new_tensor(self.bev_range[2:])
        counts = mask & ((centers >= low) & (centers < high)).all(-1)
        student_embeddings, teacher_embeddings = (
            at_points(maps, centers, self.bev_range)[counts] for maps in (student, teacher)
        )
        return self.crd(student_embeddings, teacher_embeddings, index[counts], group=label[counts])
