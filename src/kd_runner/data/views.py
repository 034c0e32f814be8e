"""Random transforms, limited to a few views of every sample, so that what a teacher says of them can be kept."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset


class FixedAugmentations(Dataset[dict[str, Tensor]]):
    """Shows every sample in one of `count` fixed random views, and adds the number of the view as `view`.

    Which view is shown is drawn from torch's generator as it stands, that is from the key's seed
    (`data.order.SeededDataset`); what view v of sample i looks like depends on i and v
    alone, so runs of different seeds share their views.
    """

    def __init__(self, samples: Dataset[dict[str, Tensor]], count: int):
        self.samples, self.count = samples, count

    def __getitem__(self, index: int) -> dict[str, Any]:
        view = int(torch.randint(self.count, ()))
        torch.default_generator.manual_seed(hash((index, view)) % 2**63)
        return {**self.samples[index], "view": torch.tensor(view)}

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]
