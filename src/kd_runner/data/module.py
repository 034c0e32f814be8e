"""The LightningDataModule of all experiments."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from kd_runner.data.collate import Collate, KeyedSamples, stack
from kd_runner.data.order import EvalShardSampler, ResumableBatchSampler, SeededDataset
from kd_runner.errors import ConfigError

Samples = Dataset[dict[str, Tensor]]


class DataModule(LightningDataModule):
    """Loaders of a labeled training set, an optional unlabeled one, and a validation set.

    A batch maps names to stacked tensors; `index` (B,) is the sample's number in its dataset (unlabeled samples are
    numbered after the labeled ones). Labeled samples come first in a batch.

    Args:
        train: creates the labeled training set; called when first needed, as are the next two.
        val: creates the validation set.
        unlabeled: creates the unlabeled training set; None for none.
        batch_size: labeled samples of one optimizer step, over all processes and accumulated batches.
        unlabeled_batch_size: unlabeled samples of one optimizer step, counted the same way.
        val_batch_size: samples of a validation batch, in each process.
        steps_per_epoch: optimizer steps per epoch; None for one pass over the labeled samples.
        num_workers: loader processes.
        seed: seed of order and augmentation.
        name: names this module in errors.
        accumulate: batches whose gradients are summed for one optimizer step; each has its fraction of the samples.
        sample_keys: names of what a sample holds, where the datasets give tuples, e.g. `[image, target]`.
        collate: makes a batch of a list of samples; None stacks them.
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
        name: str = "data",
        accumulate: int = 1,
        sample_keys: Sequence[str] | None = None,
        collate: Collate | None = None,
    ):
        super().__init__()
        self._train, self._val, self._unlabeled = train, val, unlabeled
        self.sample_keys, self.collate = sample_keys, collate or stack
        self.batch_size, self.unlabeled_batch_size = batch_size, unlabeled_batch_size
        self.val_batch_size, self.steps_per_epoch = val_batch_size, steps_per_epoch
        self.num_workers, self.seed, self.name = num_workers, seed, name
        self.accumulate = accumulate

    @cached_property
    def train(self) -> SeededDataset:
        """Labeled samples, followed by the unlabeled ones."""
        name = f"{self.name}.train"
        labeled = self._keyed(self._train(), name)
        if self.unlabeled is None:
            return SeededDataset(labeled, name)
        return SeededDataset(ConcatDataset([labeled, self.unlabeled]), f"{name} or {self.name}.unlabeled")

    @cached_property
    def unlabeled(self) -> Samples | None:
        """Unlabeled samples, if there are any."""
        return None if self._unlabeled is None else self._keyed(self._unlabeled(), f"{self.name}.unlabeled")

    @cached_property
    def val(self) -> SeededDataset:
        """Validation samples."""
        return SeededDataset(self._keyed(self._val(), f"{self.name}.val"), f"{self.name}.val")

    @property
    def num_unlabeled(self) -> int:
        """Number of unlabeled training samples."""
        return 0 if self.unlabeled is None else len(self.unlabeled)  # type: ignore[arg-type]

    @property
    def num_labeled(self) -> int:
        """Number of labeled training samples."""
        return len(self.train) - self.num_unlabeled

    def order(self, reached: Callable[[], int] = lambda: 0) -> ResumableBatchSampler:
        """The batch sampler of training.

        Args:
            reached: returns the number of batches trained so far.

        Returns:
            The sampler.

        Raises:
            ConfigError: a batch size is not divisible by the numbers of processes and accumulated batches, or is
                larger than its dataset.
        """
        rank, ranks = self._rank
        sizes, batch_sizes = [self.num_labeled], [self.batch_size]
        if self.unlabeled is not None:
            sizes.append(self.num_unlabeled)
            batch_sizes.append(self.unlabeled_batch_size)
        for key, count, size in zip(("batch_size", "unlabeled_batch_size"), batch_sizes, sizes):
            if count < 1:
                raise ConfigError(f"{self.name}.{key}={count}: must be at least 1")
            if count % (ranks * self.accumulate):
                parts = f" and {self.accumulate} accumulated batches" if self.accumulate > 1 else ""
                raise ConfigError(f"{self.name}.{key}={count} cannot be split evenly between {ranks} processes{parts}")
            if count > size:
                raise ConfigError(f"{self.name}.{key}={count} exceeds the {size} samples of the data set")
        steps = self.steps_per_epoch or sizes[0] // batch_sizes[0]
        accumulated = [count // self.accumulate for count in batch_sizes]
        return ResumableBatchSampler(sizes, accumulated, steps * self.accumulate, self.seed, reached, rank, ranks)

    def example(self, count: int = 2) -> dict[str, Any]:
        """A small batch: labeled samples of training, then as many unlabeled ones.

        Args:
            count: labeled samples, the first ones.

        Returns:
            Name to stacked tensor.
        """
        order = self.order()
        keys, labeled = order.batch(0), order.batch_sizes[0]
        first = keys[:labeled][:count] + keys[labeled:][:count]
        return self.collate([self.train[key] for key in first])

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches from the step that the trainer has reached."""
        progress = self.trainer.fit_loop.epoch_loop.batch_progress  # type: ignore[union-attr]
        return self._loader(self.train, batch_sampler=self.order(lambda: progress.total.ready))

    def val_dataloader(self) -> DataLoader[Any]:
        """This process's part of the validation set."""
        sampler = EvalShardSampler(len(self.val), *self._rank)
        return self._loader(self.val, batch_size=self.val_batch_size, sampler=sampler)

    def plain_val_loader(self) -> DataLoader[Any]:
        """The whole validation set, in this process."""
        return self._loader(self.val, batch_size=self.val_batch_size)

    def calibration(self, count: int) -> Iterator[dict[str, Any]]:
        """Batches of one training sample each; for quantization and for scores of pruning.

        Args:
            count: how many, the first ones.

        Yields:
            Name to stacked tensor.
        """
        for index in range(min(count, self.num_labeled)):
            yield self.collate([self.train[index]])

    def _keyed(self, samples: Any, name: str) -> Samples:
        return samples if self.sample_keys is None else KeyedSamples(samples, self.sample_keys, name)

    @property
    def _rank(self) -> tuple[int, int]:
        """Number of this process, and of all processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _loader(self, dataset: SeededDataset, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            collate_fn=self.collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Its own generator: a loader must not draw from the global one, which dropout uses.
            generator=torch.Generator().manual_seed(self.seed),
            **options,
        )
