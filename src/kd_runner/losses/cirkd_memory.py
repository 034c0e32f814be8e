"""Cross-image relational distillation against queues: which pixels and regions of the past resemble a pixel."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional import ranks
from kd_runner.losses.functional.class_queues import ClassQueues
from kd_runner.losses.functional.logits import check_temperature, divergence
from kd_runner.losses.functional.maps import full_precision, matched, rows
from kd_runner.losses.functional.negatives import seeded


class QueueRelations(nn.Module):
    """KL divergence of the similarities of a pixel to queued teacher embeddings of all classes.

    With v the unit vectors of student (through a head) or teacher at a valid pixel, and Q vectors drawn from the
    queues,

        loss = pixel_weight * D(pixel queue) + region_weight * D(region queue)
        D(Q) = T^2 * mean over valid pixels of KL(softmax(Q v_teacher / (T t)) || softmax(Q v_student / (T t)))

    The head is a 1x1 convolution, batch norm, ReLU and a 1x1 convolution, over valid pixels alone. A class's pixel
    queue takes up to `pixels_per_image` teacher vectors of its pixels in each image, drawn at random; its region queue
    takes their mean. (The authors' code takes columns of the whole map in place of the class's pixels, and on
    wrap-around writes the last slots and starts anew; here a queue is a ring of the class's own pixels.) As there, the
    queues take the batch before the loss is computed. They are buffers, change in training mode with gradients enabled
    only, and take the vectors of all processes, so that a resumed run continues exactly and all processes hold the same
    queues. Draws come from seed, step and process alone. The authors' weights are 0.1 each.

    Args:
        num_classes: number of classes.
        pixel_queue: vectors of a class in each queue; the authors' are 20000 and 2000.
        region_queue: likewise.
        pixel_samples: vectors of a class that a step draws; the authors' are 4096 and 1024, divided by
            the number of classes, plus 1.
        region_samples: likewise.
        pixels_per_image: the authors' are 16.
        pixel_weight: see above.
        region_weight: likewise.
        temperature: T > 0, the authors' "contrast KD temperature".
        similarity_temperature: t > 0.
        ignore_index: label of pixels that enter no queue.
        seed: seed of draws and initial vectors.

    Raises:
        ValueError: a temperature is not above 0; more samples than the queue holds.

    Source:
        Yang et al., "Cross-Image Relational Knowledge Distillation for Semantic Segmentation", CVPR 2022, section 3.3;
        CIRKD's losses/cirkd_memory.py.
    """

    steps: Tensor
    queues: Any

    def __init__(
        self,
        num_classes: int,
        pixel_queue: int = 20000,
        region_queue: int = 2000,
        pixel_samples: int = 196,
        region_samples: int = 49,
        pixels_per_image: int = 16,
        pixel_weight: float = 0.1,
        region_weight: float = 0.1,
        temperature: float = 1.0,
        similarity_temperature: float = 0.1,
        ignore_index: int = 255,
        seed: int = 0,
    ):
        super().__init__()
        for name, samples, size in (("pixel", pixel_samples, pixel_queue), ("region", region_samples, region_queue)):
            if not 0 < samples <= size:
                raise ValueError(f"{name}_samples={samples} must be above 0 and at most {name}_queue={size}")
        self.num_classes, self.sizes, self.samples = (
            num_classes, (pixel_queue, region_queue), (pixel_samples, region_samples),
        )  # fmt: skip
        self.pixels_per_image, self.weights = pixels_per_image, (pixel_weight, region_weight)
        self.temperature = check_temperature(temperature)
        self.similarity_temperature = check_temperature(similarity_temperature)
        self.ignore_index, self.seed = ignore_index, seed
        self.head: nn.Sequential | None = None
        self.queues = nn.ModuleList()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def build(self, student: Tensor, teacher: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Create the head and the queues, sized from example maps.

        Args:
            student: as for `forward`.
            teacher: as for `forward`.
            target: as for `forward`.
            mask: as for `forward`.
        """
        inputs, outputs = student.shape[1], teacher.shape[1]
        self.head = nn.Sequential(
            nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(),
            nn.Linear(outputs, outputs, bias=False),
        )  # fmt: skip
        generator = torch.Generator().manual_seed(self.seed)
        self.queues = nn.ModuleList(ClassQueues(self.num_classes, size, outputs, generator) for size in self.sizes)

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the loss and, in training, update the queues.

        Args:
            student: maps (B, C, H, W). The teacher's is resized bilinearly to the student's grid.
            teacher: likewise.
            target: labels (B, H, W) int64 of any size (nearest pixel).
            mask: (B, H, W) bool of any size, False where a pixel is ignored (its gradient is exactly 0). None: pixels
                without a label are ignored. With a mask they are compared, but enter no queue.

        Returns:
            Scalar in nats times T^2; 0 if no pixel counts.

        Raises:
            ValueError: `build` was not called; not one map each.
        """
        if self.head is None:
            raise ValueError("head and queues do not exist: call build with example features first")
        ((maps, other, valid),) = matched(student, teacher, mask)
        labels = F.interpolate(target[:, None].double(), maps.shape[2:], mode="nearest-exact")[:, 0].long()
        other = F.normalize(other, dim=1)
        labeled = labels != self.ignore_index
        valid = labeled if valid is None else valid
        random = seeded(maps.device, self.seed, int(self.steps), ranks.rank())
        if self.training and torch.is_grad_enabled():
            self._enqueue(other, labels.masked_fill(~(labeled & valid), -1), random)
            self.steps += 1
        anchors, known = rows(maps, valid), rows(other, valid)
        # Batch norm needs two rows.
        if len(anchors) < 2:
            return 0.0 * sum((p.sum() for p in self.head.parameters()), anchors.sum())
        own = F.normalize(full_precision(self.head(anchors)), dim=1)
        value = own.new_zeros(())
        for queue, count, weight in zip(self.queues, self.samples, self.weights):
            contrast = queue.draw(count, random).to(own.dtype).T / self.similarity_temperature
            value = value + weight * divergence(own @ contrast, known @ contrast, self.temperature).mean()
        return self.temperature**2 * value

    @torch.no_grad()
    def _enqueue(self, maps: Tensor, labels: Tensor, random: torch.Generator) -> None:
        """Write the teacher's vectors of the batch, over all processes; labels are -1 where a pixel enters no queue."""
        pixels, regions, pixel_labels, region_labels = [], [], [], []
        for vectors, of_pixel in zip(maps.flatten(2).transpose(1, 2), labels.flatten(1)):
            for label in of_pixel.unique().tolist():
                if label < 0:
                    continue
                members = vectors[of_pixel == label]
                chosen = torch.randperm(len(members), generator=random, device=members.device)[: self.pixels_per_image]
                pixels.append(members[chosen])
                pixel_labels.append(labels.new_full((len(chosen),), label))
                regions.append(members.mean(0, keepdim=True))
                region_labels.append(labels.new_full((1,), label))
        empty = maps.new_zeros(0, maps.shape[1]), labels.new_zeros(0)
        for queue, new, of_new in zip(self.queues, (pixels, regions), (pixel_labels, region_labels)):
            vectors = ranks.gather(torch.cat([empty[0], *new]))
            queue.write(vectors, ranks.gather(torch.cat([empty[1], *of_new])))
