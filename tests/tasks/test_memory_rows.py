"""CRD's bank has as many rows as there are training samples."""

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_runner.data.module import DataModule
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.errors import ConfigError
from kd_runner.losses.crd import CRD
from kd_runner.tasks.memory_rows import check_memory_rows


class Numbers(Dataset[dict[str, Tensor]]):
    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.tensor(float(index))}


def crd(n_data: int | None, queue: int | None = None, index: str = "batch.index") -> list[LossTerm]:
    inputs = {"student": "student.map", "teacher": "teacher.map", "index": index}
    return [LossTerm("crd", CRD(n_data=n_data, queue=queue, num_negatives=2), inputs)]


def test_rows_and_samples_must_agree() -> None:
    data = DataModule(lambda: Numbers(4), lambda: Numbers(2), lambda: Numbers(6))
    check_memory_rows(crd(10), data)
    check_memory_rows(crd(None, queue=8), data)
    check_memory_rows(crd(1000, index="batch.gt_ids"), data)  # rows of objects, not of samples
    with pytest.raises(ConfigError, match=r"loss\.crd\.fn\.n_data=9: there are 10 training samples$"):
        check_memory_rows(crd(9), data)
    with pytest.raises(ConfigError, match=r"n_data=11: there are 10 training samples; rows without a sample"):
        check_memory_rows(crd(11), data)
