"""Order and augmentation of samples as a pure function of seed and step, so that a run can resume at any step."""

import contextlib
import random
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Sampler

from kd_runner.errors import ConfigError, reason

Key = tuple[int, int]
"""(dataset index, random seed of the augmentation)"""


class SampleError(ConfigError):
    """A sample cannot be read."""


@lru_cache(maxsize=64)
def _permutation(size: int, seed: int, round_: int) -> list[int]:
    generator = torch.Generator().manual_seed(hash((seed, size, round_)) % 2**63)
    return torch.randperm(size, generator=generator).tolist()


def stream(size: int, seed: int, first: int, count: int) -> list[int]:
    """Part of an endless sequence of permutations of 0 .. size - 1.

    Args:
        size: of a permutation.
        seed: of the permutations.
        first: number of the first entry.
        count: number of entries.

    Returns:
        The entries.
    """
    return [_permutation(size, seed, i // size)[i % size] for i in range(first, first + count)]


class ResumableBatchSampler(Sampler[list[Key]]):
    """Batch sampler that continues at the step training has reached, also in the middle of an epoch.

    Every batch has a fixed number of samples from each source (labeled, unlabeled); each source is shuffled anew
    whenever it is used up. With several processes a batch is split between them, so that an optimizer step sees the
    same samples whatever the number of processes.

    Args:
        sizes: number of samples of each source; indices count through the sources in this order.
        batch_sizes: samples of each source in a batch, over all processes.
        steps: batches per epoch.
        seed: seed of order and augmentation.
        reached: returns the number of batches trained so far; called when an iteration starts.
        rank: number of this process.
        num_ranks: number of all processes.

    Yields:
        Lists of (index, augmentation seed), the part of this process.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_sizes: Sequence[int],
        steps: int,
        seed: int,
        reached: Callable[[], int],
        rank: int = 0,
        num_ranks: int = 1,
    ):
        self.sizes, self.batch_sizes, self.steps = sizes, batch_sizes, steps
        self.seed, self.reached = seed, reached
        self.rank, self.num_ranks = rank, num_ranks

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Key]]:
        first = self.reached()
        for step in range(first, (first // self.steps + 1) * self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[Key]:
        """Keys of this process's part of a batch.

        Args:
            step: number of the batch from the start of training.

        Returns:
            (index, augmentation seed) of each sample.
        """
        keys, offset = [], 0
        for size, count in zip(self.sizes, self.batch_sizes):
            drawn = stream(size, self.seed, step * count, count)
            for i in range(self.rank, count, self.num_ranks):
                index = offset + drawn[i]
                keys.append((index, hash((self.seed, index, step)) % 2**63))
            offset += size
        return keys


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context manager that seeds the global generators of torch (CPU), numpy and Python, and restores them.

    Args:
        seed: the seed.

    Yields:
        Nothing.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would also seed the GPU's generator, which fork_rng does not restore here.
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


class SeededDataset(Dataset[dict[str, Any]]):
    """Wraps a dataset so that augmentation depends on the key's seed alone.

    The same sample at the same step looks the same in any process, worker or resumed run. Adds `index` to samples that
    have none, and `key`, the sample's name, where the dataset names its samples (attribute `names`).

    Args:
        samples: dataset whose augmentation draws from the global generators of torch (CPU), numpy or Python.
        name: names the dataset in errors.
    """

    def __init__(self, samples: Dataset[dict[str, Tensor]], name: str = "data"):
        self.samples, self.name = samples, name
        self.keys = _names(samples)

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        """The sample of a key, or of a plain index with augmentation seed 0.

        Raises:
            SampleError: the dataset cannot give the sample.
        """
        index, seed = key if isinstance(key, tuple) else (key, 0)
        with seeded(seed):
            try:
                sample = self.samples[index]
            except ConfigError:
                raise
            except (ValueError, OSError) as error:
                raise SampleError(f"{self.name}: {error}") from error
            except Exception as error:  # of a user's own data set
                frame = traceback.extract_tb(error.__traceback__)[-1]
                line = f"{frame.filename}, line {frame.lineno}"
                raise SampleError(f"{self.name}: sample {index}: {reason(error)} ({line})") from error
        if not isinstance(sample, Mapping):
            raise SampleError(
                f"{self.name}: a sample is a {type(sample).__name__}, not a dictionary; name what a tuple holds with "
                "data.sample_keys=[image, target]"
            )
        name = {} if self.keys is None else {"key": self.keys[index]}
        return {"index": torch.tensor(index), **name, **sample}

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]


def _names(samples: Any) -> list[str] | None:
    """Names of a dataset's samples in order, through what wraps it; None where it has none."""
    if isinstance(samples, ConcatDataset):
        parts = [_names(part) for part in samples.datasets]
        return None if None in parts else [name for part in parts for name in part or ()]
    if hasattr(samples, "names"):
        return list(samples.names)
    return _names(samples.samples) if isinstance(getattr(samples, "samples", None), Dataset) else None


class EvalShardSampler(Sampler[int]):
    """Sampler of one process's part of a validation set: every `num_ranks`-th sample, in order.

    Unlike torch's DistributedSampler it repeats no sample to give all processes equally many: a repeated one would
    count twice in a metric.

    Args:
        size: number of samples.
        rank: number of this process.
        num_ranks: number of all processes.
    """

    def __init__(self, size: int, rank: int = 0, num_ranks: int = 1):
        self.indices = range(rank, size, num_ranks)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
