"""Pictures of boxes on images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kd_runner.callbacks.roi_visualizer import RoiVisualizer
from kd_runner.data.collate import stack
from kd_runner.data.voc.dataset import voc_palette
from kd_runner.data.voc.transforms import MEAN, STD
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.module import Distiller


def sample(count: int) -> dict[str, Tensor]:
    """A 32 x 32 image that is white in its right half; boxes: left half, right half, middle; `count` of them."""
    image = torch.zeros(3, 32, 32)
    image[:, :, 16:] = 1
    rois = torch.tensor([[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0.25, 0, 0.75, 1]])
    target = torch.arange(3)[:, None, None].expand(3, 16, 8).clone()
    normalized = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return {"image": normalized, "rois": rois, "roi_mask": torch.arange(3) < count, "target": target}


class Says(nn.Module):
    """One class everywhere, for the boxes that count."""

    def __init__(self, label: int, skips_padding: bool):
        super().__init__()
        self.label, self.skips_padding = label, skips_padding

    def forward(self, roi_mask: Tensor) -> dict[str, Tensor]:
        count = int(roi_mask.sum()) if self.skips_padding else roi_mask.numel()
        return {"logits": nn.functional.one_hot(torch.full((count, 16, 8), self.label), 3).movedim(-1, 1)}


def net(label: int, key: str, skips_padding: bool) -> FeatureExtractor:
    return FeatureExtractor(Says(label, skips_padding), {"roi_mask": "roi_mask"}, {"logits": ":logits"}, key)


@pytest.mark.parametrize("skips_padding", [True, False])
def test_a_row_for_each_box_shows_it_and_what_every_net_says(skips_padding: bool) -> None:
    """Two boxes of the first image, the only one of the second: 16 pixels high, times 7; a gap of 4, a title of 14."""
    module = Distiller(net(2, "student", skips_padding), net(1, "teacher", skips_padding))
    data = SimpleNamespace(val=[sample(3), sample(1), sample(2)], collate=stack)
    picture = RoiVisualizer(num_images=2, rois_per_image=2, every_n_epochs=1).draw(module, data)
    assert picture.shape == (14 + 3 * 116, 116 + 4 * 60, 3)
    rows = [picture[top : top + 112] for top in (14, 130, 246)]
    palette = voc_palette()
    for row, shade, truth in zip(rows, (0, 255, 0), (0, 1, 0)):
        box, *labels = (row[:, left : left + 56] for left in (116, 176, 236, 296))
        assert (box[:, 7:-7] == shade).all()  # next to its border the box may read the other half
        for label, cells in zip((truth, 1, 2), labels):
            assert (cells == palette[label]).all()
    yellow = [(row[:, :112] == (255, 255, 0)).all(-1) for row in rows]
    assert yellow[0][:, 0].all() and yellow[0][:, 111].sum() == 0
    assert yellow[1][:, 111].all() and yellow[1][:, 0].sum() == 0
    assert np.array_equal(yellow[0], yellow[2])


def test_without_a_teacher_there_is_no_column_for_it() -> None:
    picture = RoiVisualizer(1, 1, 1).draw(
        Distiller(net(2, "student", True)), SimpleNamespace(val=[sample(3)], collate=stack)
    )
    assert picture.shape == (14 + 116, 116 + 3 * 60, 3)
