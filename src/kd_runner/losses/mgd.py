"""Masked generative distillation: the student restores the teacher's map from a part of its own."""

import torch
from torch import Tensor, nn

from kd_runner.losses.functional import ranks
from kd_runner.losses.functional.maps import Features, check_channels, full_precision, hide, matched
from kd_runner.losses.functional.negatives import seeded
from kd_runner.losses.functional.projections import projections


class MGD(nn.Module):
    """Squared error between the teacher's map and one that is generated from the student's, randomly masked.

        loss = mean over levels of alpha / N * sum over valid locations and channels of (G(m * P student) - teacher)^2

    P is a 1x1 convolution (only where the numbers of channels differ), G a 3x3 convolution, ReLU and a 3x3 convolution,
    m is 0 at each location with probability `masked`, one draw for all channels. `masked` is the masked fraction, as in
    the code: the mask is 0 where a uniform number is above 1 - lambda. N is the number of images: the value is a sum
    over channels and locations, so alpha suits one size of map. The authors' alpha is 2e-5 for one-stage detectors and
    semantic segmentation, 5e-7 for two-stage ones; their `masked` 0.65 and 0.45, and 0.75 for segmentation. Void
    locations are masked always and not restored. The masks come from seed, step and process alone, so that they neither
    move the random state of the run nor need a checkpoint.

    Args:
        alpha: see above.
        masked: fraction of masked locations, in [0, 1).
        channel_dim: 1 for maps (B, C, H, W); -1 for token grids (B, H, W, C).
        seed: seed of the masks.

    Raises:
        ValueError: `masked` is out of range.

    Source:
        Yang et al., "Masked Generative Distillation", ECCV 2022, equations 3 to 6; mmrazor/models/losses/mgd_loss.py
        and its connector mgd_connector.py.
    """

    steps: Tensor

    def __init__(self, alpha: float = 2e-5, masked: float = 0.65, channel_dim: int = 1, seed: int = 0):
        super().__init__()
        if not 0 <= masked < 1:
            raise ValueError(f"masked must be in [0, 1), not {masked}")
        self.alpha, self.masked, self.channel_dim, self.seed = alpha, masked, channel_dim, seed
        self.projections, self.generators = nn.ModuleList(), nn.ModuleList()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def build(self, student: Features, teacher: Features, mask: Tensor | None = None) -> None:
        """Create projection and generator of each level, sized from example maps.

        Args:
            student: as for `forward`.
            teacher: as for `forward`.
            mask: as for `forward`.
        """
        self.projections = projections(student, teacher, self.channel_dim, bias=True, always=False)
        self.generators = nn.ModuleList()
        for _, target, _ in matched(student, teacher, channel_dim=self.channel_dim):
            width = target.shape[1]
            first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
            self.generators.append(nn.Sequential(first, nn.ReLU(), second))

    def forward(self, student: Features, teacher: Features, mask: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: maps, one level or several. The teacher's is resized bilinearly to the student's grid.
            teacher: likewise.
            mask: (B, H, W) bool of any size, False where a location is ignored (its gradient is exactly 0).

        Returns:
            Scalar, in squared units of the teacher's features.

        Raises:
            ValueError: numbers of levels differ, or channels from those of `build`.
        """
        values = []
        random = None
        layers = zip(self.projections, self.generators)
        for (project, generate), (maps, target, valid) in zip(
            layers, matched(student, teacher, mask, self.channel_dim), strict=True
        ):
            if random is None:
                random = seeded(maps.device, self.seed, int(self.steps), ranks.rank())
            drawn = torch.rand(maps.shape[0], *maps.shape[2:], generator=random, device=maps.device)
            kept = drawn <= 1 - self.masked
            generated = full_precision(
                generate(hide(project(hide(maps, valid)), kept if valid is None else kept & valid))
            )
            check_channels(generated, target)
            values.append(self.alpha * hide(generated - target, valid).square().sum() / len(maps))
        if self.training and torch.is_grad_enabled():
            self.steps += 1
        return torch.stack(values).mean()
