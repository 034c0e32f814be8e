"""task=check notices an index that cannot name rows of a memory bank."""

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_runner.data.module import DataModule
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.errors import ConfigError
from kd_runner.losses.crd import CRD
from kd_runner.tasks.check import check_indices


class Frames(Dataset[dict[str, Tensor]]):
    """Two objects a frame, and a slot without one; `noisy` numbers are drawn anew each time."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        shuffled = torch.tensor([2 * i, 2 * i + 1])[torch.randperm(2)]
        return {
            "noisy": torch.randint(1000, ()),
            "shared": torch.tensor(i // 20),
            "objects": torch.cat([shuffled, torch.tensor([0])]),
            "mask": torch.tensor([True, True, False]),
        }


def check(n_data: int = 40, **inputs: str) -> None:
    data = DataModule(train=Frames, val=Frames)
    check_indices([LossTerm("crd", CRD(n_data=n_data, num_negatives=4), inputs)], data)


def test_numbers_of_samples_and_of_objects_pass() -> None:
    check(index="batch.index")
    check(index="batch.objects", mask="batch.mask", n_data=80)
    check(student="student.high")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"index": "batch.noisy"}, r"loss\.crd\.inputs\.index: sample 0 comes as batch\.noisy \d+, and as \d+"),
        ({"index": "batch.shared"}, r"samples 0 and 5 are both batch\.shared 0"),
        ({"index": "batch.index", "n_data": 39}, r"loss\.crd\.fn\.n_data=39: there are 40 training samples"),
        ({"index": "batch.objects"}, r"samples 0 and \d+ are both batch\.objects 0"),  # padding counted as an object
    ],
)
def test_others_are_named(inputs: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(**inputs)
