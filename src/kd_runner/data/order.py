"""Which samples make up which batch: a pure function of the seed and the step, so that a run can go on anywhere."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

Key = tuple[int, int]
"""(dataset index, random seed of this one draw)"""


@lru_cache(maxsize=64)
def _permutation(size: int, seed: int, round_: int) -> list[int]:
    generator = torch.Generator().manual_seed(hash((seed, size, round_)) % 2**63)
    return torch.randperm(size, generator=generator).tolist()


def stream(size: int, seed: int, first: int, count: int) -> list[int]:
    """Entries first .. first + count - 1 of an endless row of permutations of 0 .. size - 1."""
    return [_permutation(size, seed, at // size)[at % size] for at in range(first, first + count)]


class ResumableBatchSampler(Sampler[list[Key]]):
    """Batches of one epoch, from the step that training has reached.

    Each source has its own endless row of permutations and its own share of every batch; with several processes,
    a batch is dealt out to them, so that one optimizer step sees the same samples whatever their number.

    Args:
        sizes: samples per source, e.g. (labeled, unlabeled), numbered one after the other.
        shares: samples of each source in a batch, over all processes.
        steps: batches per epoch.
        seed: seed of order and augmentation.
        reached: number of batches trained so far, asked for when iteration begins.
        rank, num_ranks: this process and their number.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        shares: Sequence[int],
        steps: int,
        seed: int,
        reached: Callable[[], int],
        rank: int = 0,
        num_ranks: int = 1,
    ):
        self.sizes, self.shares, self.steps, self.seed, self.reached = sizes, shares, steps, seed, reached
        self.rank, self.num_ranks = rank, num_ranks

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Key]]:
        first = self.reached()
        for step in range(first, (first // self.steps + 1) * self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[Key]:
        """Keys of this process's part of batch `step`, counted from the start of training."""
        keys, offset = [], 0
        for size, share in zip(self.sizes, self.shares):
            drawn = stream(size, self.seed, step * share, share)
            for place in range(self.rank, share, self.num_ranks):
                index = offset + drawn[place]
                keys.append((index, hash((self.seed, index, step)) % 2**63))
            offset += size
        return keys


class SeededDataset(Dataset[dict[str, Any]]):
    """Adds `index` to every sample that has none of its own, and draws its augmentation from the key's own seed: the
    same sample at the same step looks the same in any process, worker, or resumed run.
    """

    def __init__(self, samples: Dataset[dict[str, Tensor]]):
        self.samples = samples

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        index, seed = key if isinstance(key, tuple) else (key, 0)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: it would also seed the GPU's generator, which dropout reads and nothing puts back.
            torch.default_generator.manual_seed(seed)
            sample = self.samples[index]
        return {"index": torch.tensor(index), **sample}

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]


class EvalShardSampler(Sampler[int]):
    """Every `num_ranks`-th sample, in order. Unlike torch's own sampler it repeats none to even the shards out:
    a repeated sample would count twice in a metric.
    """

    def __init__(self, size: int, rank: int = 0, num_ranks: int = 1):
        self.indices = range(rank, size, num_ranks)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
