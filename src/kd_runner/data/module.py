"""The LightningDataModule of every experiment."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, default_collate

from kd_runner.data.order import EvalShardSampler, ResumableBatchSampler, SeededDataset
from kd_runner.errors import ConfigError

Samples = Dataset[dict[str, Tensor]]


class DataModule(LightningDataModule):
    """Feeds `train`, plus `unlabeled` where given, and `val`.

    A batch maps names to stacked tensors; `index` is the sample's own number in its dataset (unlabeled samples are
    numbered after the labeled ones). Labeled samples come first in a batch.

    Args:
        train, val, unlabeled: make the datasets; called when first needed.
        batch_size: labeled samples of one optimizer step, over all processes.
        unlabeled_batch_size: unlabeled ones beside them.
        val_batch_size: samples of a validation batch, in each process.
        steps_per_epoch: optimizer batches per epoch; None for one pass over the labeled samples.
        num_workers: loader processes.
        seed: seed of order and augmentation.
    """

    def __init__(
        self,
        train: Callable[[], Samples],
        val: Callable[[], Samples],
        unlabeled: Callable[[], Samples] | None = None,
        batch_size: int = 16,
        unlabeled_batch_size: int = 16,
        val_batch_size: int = 16,
        steps_per_epoch: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        self._train, self._val, self._unlabeled = train, val, unlabeled
        self.batch_size, self.unlabeled_batch_size = batch_size, unlabeled_batch_size
        self.val_batch_size, self.steps_per_epoch = val_batch_size, steps_per_epoch
        self.num_workers, self.seed = num_workers, seed

    @cached_property
    def train(self) -> SeededDataset:
        labeled = self._train()
        return SeededDataset(labeled if self.unlabeled is None else ConcatDataset([labeled, self.unlabeled]))

    @cached_property
    def unlabeled(self) -> Samples | None:
        return None if self._unlabeled is None else self._unlabeled()

    @cached_property
    def val(self) -> SeededDataset:
        return SeededDataset(self._val())

    @property
    def num_unlabeled(self) -> int:
        return 0 if self.unlabeled is None else len(self.unlabeled)  # type: ignore[arg-type]

    @property
    def num_labeled(self) -> int:
        return len(self.train) - self.num_unlabeled

    def order(self, reached: Callable[[], int] = lambda: 0) -> ResumableBatchSampler:
        """The order of training.

        Raises:
            ConfigError: a share of the batch is not divisible by the number of processes, or larger than its source.
        """
        rank, ranks = self._place
        sizes, shares = [self.num_labeled], [self.batch_size]
        if self.unlabeled is not None:
            sizes.append(self.num_unlabeled)
            shares.append(self.unlabeled_batch_size)
        for key, share, size in zip(("batch_size", "unlabeled_batch_size"), shares, sizes):
            if share % ranks or share < 1:
                raise ConfigError(f"data.{key}={share} cannot be dealt out to {ranks} processes evenly")
            if share > size:
                raise ConfigError(f"data.{key}={share} exceeds the {size} samples that there are")
        steps = self.steps_per_epoch or sizes[0] // shares[0]
        return ResumableBatchSampler(sizes, shares, steps, self.seed, reached, rank, ranks)

    def example(self, count: int = 2) -> dict[str, Any]:
        """A small batch of first training samples: labeled ones, then as many unlabeled ones."""
        order = self.order()
        keys, labeled = order.batch(0), order.shares[0]
        first = keys[:labeled][:count] + keys[labeled:][:count]
        return default_collate([self.train[key] for key in first])

    def train_dataloader(self) -> DataLoader[Any]:
        progress = self.trainer.fit_loop.epoch_loop.batch_progress  # type: ignore[union-attr]
        return self._loader(self.train, batch_sampler=self.order(lambda: progress.total.ready))

    def val_dataloader(self) -> DataLoader[Any]:
        shard = EvalShardSampler(len(self.val), *self._place)
        return self._loader(self.val, batch_size=self.val_batch_size, sampler=shard)

    def plain_val_loader(self) -> DataLoader[Any]:
        """The whole validation set, in this process."""
        return self._loader(self.val, batch_size=self.val_batch_size)

    def calibration(self, count: int) -> Iterator[dict[str, Any]]:
        """Batches of one of the first `count` training samples."""
        for index in range(min(count, self.num_labeled)):
            yield default_collate([self.train[index]])

    @property
    def _place(self) -> tuple[int, int]:
        """This process, and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _loader(self, dataset: SeededDataset, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Its own generator: a loader must not draw from the global one, which dropout reads.
            generator=torch.Generator().manual_seed(self.seed),
            **options,
        )
