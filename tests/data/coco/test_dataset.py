"""COCO instances on disk, from a few pictures written here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from torchvision.ops import roi_align

from kd_runner.data.coco.dataset import CocoInstances
from kd_runner.data.coco.roi_augment import RoiAugment
from kd_runner.data.voc.transforms import to_pixels

HEIGHT, WIDTH = 24, 32


def rectangle(x: float, y: float, w: float, h: float, **more: Any) -> dict[str, Any]:
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    fields = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [x, y, w, h], "segmentation": [polygon]}
    return fields | more


Write = Callable[..., CocoInstances]


@pytest.fixture
def coco(tmp_path: Path) -> Write:
    """A data set of one gray picture with the given annotations."""

    def write(*annotations: dict[str, Any], **options: Any) -> CocoInstances:
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (124, 116, 104)).save(tmp_path / "images" / "1.png")
        content = {
            "images": [{"id": 1, "file_name": "1.png", "height": HEIGHT, "width": WIDTH}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
        }
        (tmp_path / "boxes.json").write_text(json.dumps(content))
        return read(tmp_path, **options)

    return write


def read(root: Path, **options: Any) -> CocoInstances:
    defaults = {"image_size": (24, 32), "mask_size": (8, 8), "max_rois": 3, "min_side": 2}
    return CocoInstances(root, "images", "boxes.json", **(defaults | options))


def test_a_sample_has_the_shapes_of_a_batch(coco: Write) -> None:
    sample = coco(rectangle(4, 4, 8, 16, id=7), image_size=(20, 40), mask_size=(6, 5))[0]
    assert {name: (tuple(v.shape), v.dtype) for name, v in sample.items()} == {
        "image": ((3, 20, 40), torch.float32),
        "rois": ((3, 4), torch.float32),
        "roi_mask": ((3,), torch.bool),
        "roi_ids": ((3,), torch.int64),
        "target": ((3, 6, 5), torch.int64),
        "valid": ((3, 6, 5), torch.bool),
    }
    assert sample["image"].abs().max() < 0.02  # ImageNet's mean color
    expected = [[4 / 32, 4 / 24, 12 / 32, 20 / 24], [0, 0, 1, 1], [0, 0, 1, 1]]
    torch.testing.assert_close(sample["rois"], torch.tensor(expected))
    assert sample["roi_mask"].tolist() == [True, False, False] and sample["roi_ids"].tolist() == [7, -1, -1]
    assert (sample["target"][0] == 1).all() and (sample["target"][1:] == 255).all()
    assert sample["valid"][0].all() and not sample["valid"][1:].any()


def test_padding_adds_a_margin_on_each_side_up_to_the_border(coco: Write) -> None:
    """A quarter of 8 x 8 is 2 on each side; the upper border of the picture is 1 away."""
    rois = coco(rectangle(12, 1, 8, 8), padding=0.25)[0]["rois"]
    torch.testing.assert_close(rois[0], torch.tensor([10 / WIDTH, 0, 22 / WIDTH, 11 / HEIGHT]))


def test_the_box_owner_is_the_target_and_others_are_not(coco: Write) -> None:
    """Two boxes that overlap: where they do, each calls its own the target."""
    left, right = rectangle(0, 0, 16, 16, id=1), rectangle(8, 0, 16, 16, id=2)
    sample = coco(left, right)[0]
    assert sample["roi_ids"].tolist() == [1, 2, -1] and (sample["target"][:2] == 1).all()
    # With a margin the boxes are x 0 .. 24 and 0 .. 32, both y 0 .. 24: cells of 3 and 4 pixels, rows of 3.
    wider = coco(left, right, padding=0.5)[0]["target"]
    assert wider[0, 4].tolist() == [1, 1, 1, 1, 1, 2, 2, 2]  # middles at 1.5, 4.5, .. 13.5, 16.5, ..
    assert wider[1, 4].tolist() == [2, 2, 1, 1, 1, 1, 0, 0]  # middles at 2, 6, 10, .. 22, 26, 30
    assert (wider[:2, 6:] == 0).all()


def test_labels_lie_where_roi_align_reads_the_mask(coco: Write) -> None:
    """roi_align of a mask that is smooth within a cell: cells wholly inside or outside agree."""
    sample = coco(rectangle(6, 5, 11, 13), mask_size=(13, 11), padding=3 / 11)[0]
    mask = torch.zeros(1, 1, HEIGHT, WIDTH)
    mask[..., 5:18, 6:17] = 1
    boxes = torch.cat([torch.zeros(1, 1), sample["rois"][:1] * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])], dim=1)
    cells = roi_align(mask, boxes, (13, 11), sampling_ratio=1, aligned=True)[0, 0]
    sure = (cells < 0.01) | (cells > 0.99)
    assert sure.float().mean() > 0.5
    assert torch.equal((cells > 0.5)[sure], (sample["target"][0] == 1)[sure])


def test_a_rectangle_ends_where_it_must(coco: Write) -> None:
    """A box of 16 x 16 with its left half filled, read at 8 and at 5 cells: middles at 1, 3, .. and 1.6, 4.8, .."""
    half = rectangle(8, 4, 8, 16, bbox=[8, 4, 16, 16])
    assert coco(half)[0]["target"][0, 3].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert coco(half, mask_size=(5, 5))[0]["target"][0, 2].tolist() == [1, 1, 0, 0, 0]  # 8 + 8.0 is pixel 16: outside


@pytest.mark.parametrize("kind", ["polygon", "compressed", "plain"])
def test_polygons_and_run_lengths_say_the_same(coco: Write, kind: str) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[6:12, 5:14] = 1
    runs = rle.encode(mask)
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    shapes = {
        "polygon": [[5, 6, 14, 6, 14, 12, 5, 12], [1, 1, 2, 2]],  # the second is no polygon
        "compressed": {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()},
        "plain": {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *changes, flat.size]).tolist()},
    }
    data = coco(rectangle(0, 0, WIDTH, HEIGHT, segmentation=shapes[kind]), mask_size=(HEIGHT, WIDTH))
    assert np.array_equal(data[0]["target"][0].numpy(), mask)


def test_crowds_small_boxes_and_other_classes_are_no_regions(coco: Write) -> None:
    data = coco(
        rectangle(0, 0, 8, 8, id=1),
        rectangle(8, 0, 8, 8, id=2, iscrowd=1),
        rectangle(8, 0, 8, 8, id=3, category_id=3),
        rectangle(8, 0, 8, 1.5, id=4),
        max_rois=5,
    )
    assert data[0]["roi_ids"].tolist() == [1, -1, -1, -1, -1]
    with pytest.raises(ValueError, match="no 'person' of at least min_side=9"):
        coco(rectangle(0, 0, 8, 8), min_side=9)


def test_small_instances_still_count_as_others(coco: Write) -> None:
    sample = coco(rectangle(0, 0, 16, 16, segmentation=[[0, 0, 8, 0, 8, 16, 0, 16]]), rectangle(12, 0, 1.9, 16, id=2))
    assert sample[0]["target"][0, 0].tolist() == [1, 1, 1, 1, 0, 0, 2, 0]  # 12 .. 13.9 covers the middle at 13


def test_the_largest_boxes_come_first_and_the_rest_is_left_out(coco: Write) -> None:
    boxes = [rectangle(0, 0, side, side, id=side) for side in (4, 12, 6, 10)]
    assert coco(*boxes)[0]["roi_ids"].tolist() == [12, 10, 6]


def test_unlabeled_images_have_boxes_and_no_labels(coco: Write) -> None:
    """They need no segmentation, and their boxes may be distilled."""
    entry = rectangle(0, 0, 8, 8)
    del entry["segmentation"]
    sample = coco(entry, labeled=False)[0]
    assert (sample["target"] == 255).all() and sample["valid"][0].all() and not sample["valid"][1:].any()
    with pytest.raises(ValueError, match=r"annotation 1 of .* has no segmentation; labeled=false"):
        coco(entry)[0]


def test_a_flip_mirrors_image_box_and_labels(coco: Write, tmp_path: Path) -> None:
    shape = [[2, 4, 6, 4, 6, 20, 2, 20]]  # the left third of its box
    plain = coco(rectangle(2, 4, 12, 16, segmentation=shape))
    Image.fromarray(np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)).save(
        tmp_path / "images/1.png"
    )
    flipped = read(tmp_path, augment=RoiAugment(flip=1.0))[0]
    torch.testing.assert_close(flipped["image"], plain[0]["image"].flip(-1))
    torch.testing.assert_close(flipped["rois"][0], torch.tensor([18 / 32, 4 / 24, 30 / 32, 20 / 24]))
    assert torch.equal(flipped["target"][0], plain[0]["target"][0].flip(-1))


def test_boxes_stay_on_their_things_under_every_change(coco: Write, tmp_path: Path) -> None:
    """A white rectangle: wherever scale, flip and noise put its box, image and target agree on what is in it."""
    coco(rectangle(10, 6, 12, 12))
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[6:18, 10:22] = 255
    Image.fromarray(picture).save(tmp_path / "images/1.png")
    augment = RoiAugment(flip=0.5, scale=(0.6, 1.6), box_noise=0.2)
    data = read(tmp_path, image_size=(96, 128), mask_size=(12, 12), augment=augment)
    torch.manual_seed(0)
    boxes = set()
    for _ in range(20):
        sample = data[0]
        box = torch.cat([torch.zeros(1, 1), sample["rois"][:1] * torch.tensor([128, 96, 128, 96])], dim=1)
        seen = roi_align(to_pixels(sample["image"])[None, :1], box, (12, 12), sampling_ratio=1, aligned=True)[0, 0]
        sure = (seen < 0.02) | (seen > 0.98)
        target = sample["target"][0] == 1
        # Outside of the picture is its mean color, neither black nor white.
        assert sure.float().mean() > 0.4 and torch.equal(seen[sure] > 0.5, target[sure])
        assert (sample["rois"] >= 0).all() and (sample["rois"] <= 1).all()
        boxes.add(tuple(sample["rois"][0].tolist()))
    assert len(boxes) == 20


def test_the_global_seed_decides_every_change(coco: Write) -> None:
    augment = RoiAugment(scale=(0.5, 2.0), box_noise=0.1, brightness=0.5)
    data = coco(rectangle(10, 6, 12, 12), augment=augment)
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        draws.append(data[0])
    assert torch.equal(draws[0]["image"], draws[1]["image"]) and torch.equal(draws[0]["rois"], draws[1]["rois"])
    assert not torch.equal(draws[0]["rois"], draws[2]["rois"])


def test_a_window_that_misses_every_box_is_not_used(coco: Write) -> None:
    data = coco(rectangle(0, 0, 3, 3), augment=RoiAugment(flip=0.0, scale=(4.0, 4.0)))
    for seed in range(10):
        torch.manual_seed(seed)
        assert data[0]["roi_mask"].any()


def test_a_misspelt_category_is_told_the_nearest(coco: Write) -> None:
    with pytest.raises(ValueError, match=r"no category 'persn' in .*boxes\.json\. Did you mean 'person'"):
        coco(rectangle(0, 0, 8, 8), category="persn")


def test_files_that_are_missing_or_cut_short_are_named(coco: Write, tmp_path: Path) -> None:
    data = coco(rectangle(0, 0, 8, 8))
    whole = (tmp_path / "boxes.json").read_bytes()
    picture = (tmp_path / "images/1.png").read_bytes()
    (tmp_path / "images/1.png").write_bytes(picture[: len(picture) // 2])
    with pytest.raises(ValueError, match=r".*1\.png cannot be read"):
        data[0]
    (tmp_path / "images/1.png").unlink()
    with pytest.raises(ValueError, match=r".*1\.png is missing, which .*boxes\.json names"):
        read(tmp_path)
    (tmp_path / "boxes.json").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r".*boxes\.json is no JSON, or cut short"):
        read(tmp_path)
    (tmp_path / "boxes.json").rename(tmp_path / "bokses.json")
    with pytest.raises(ValueError, match=r"boxes\.json cannot be read .*Did you mean 'bokses\.json'"):
        read(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"images": [], "annotations": []}'])
def test_json_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(ValueError, match=r"boxes\.json is no COCO instance file"):
        read(tmp_path)


def test_a_category_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text('{"images": [], "annotations": [], "categories": ["person"]}')
    with pytest.raises(ValueError, match=r"boxes\.json: categories\[0\] is a str"):
        read(tmp_path)


def test_a_picture_of_another_size_than_annotated_is_refused(coco: Write, tmp_path: Path) -> None:
    data = coco(rectangle(0, 0, 8, 8))
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(tmp_path / "images/1.png")
    with pytest.raises(ValueError, match=r"1\.png is 25 x 32 pixels .* says 24 x 32"):
        data[0]


@pytest.mark.parametrize("shape", [[[1, 2]], {"counts": [5]}, {"size": [3, 3], "counts": [4, 5]}, "polygon"])
def test_a_segmentation_that_is_none_names_its_annotation(coco: Write, shape: Any) -> None:
    with pytest.raises(ValueError, match=r"annotation 1 of .*boxes\.json(: invalid| has no) segmentation"):
        coco(rectangle(0, 0, 8, 8, segmentation=shape))[0]


@pytest.mark.parametrize("wrong", [{"scale": (2.0, 1.0)}, {"scale": (0.0, 1.0)}, {"box_noise": 0.5}])
def test_augmentation_out_of_range_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RoiAugment(**wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [0, 0, -8, 8]}, r"annotation 1 of .*bbox .* has a negative width"),
        ({"bbox": [0, float("nan"), 8, 8]}, "is not four finite numbers"),
        ({"bbox": [0, 0, 8]}, "is not four finite numbers"),
        ({"bbox": [100, 0, 8, 8]}, r"lies outside of its image of 32 x 24 pixels"),
        ({"segmentation": [[0, 0, 8, 0, 8, 8, 0]]}, "a polygon of 7 numbers"),
        ({"segmentation": [[0, 0, 8, 0, 8, None]]}, "not a list of finite numbers"),
        ({"image_id": 99}, "image 99 is not among the images"),
        ({"category_id": 2}, "category 2 is not among the categories"),
    ],
)
def test_an_annotation_that_cannot_be_is_refused(coco: Write, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coco(rectangle(0, 0, 8, 8, **change))


def test_entries_that_stand_twice_or_lack_a_key_are_refused(coco: Write, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two annotations have the id 1"):
        coco(rectangle(0, 0, 8, 8), rectangle(8, 0, 8, 8))
    coco(rectangle(0, 0, 8, 8))
    content = json.loads((tmp_path / "boxes.json").read_text())
    image = content["images"][0]
    for images, message in (
        ([image, {**image, "id": 2}], r"two images have the file_name '1\.png'"),
        ([{key: value for key, value in image.items() if key != "width"}], r"images\[0\] has no 'width'"),
        ([{**image, "width": 0}], r"images\[0\] \(1\.png\) has a size of 24 x 0"),
    ):
        (tmp_path / "boxes.json").write_text(json.dumps({**content, "images": images}))
        with pytest.raises(ValueError, match=message):
            read(tmp_path)


def test_polygons_of_two_points_are_left_out_with_a_warning(coco: Write, caplog: pytest.LogCaptureFixture) -> None:
    """The published files hold a few."""
    whole = coco(rectangle(0, 0, 8, 8))[0]
    polygons = [[0, 0, 8, 0, 8, 8, 0, 8], [1, 1, 2, 2]]
    assert torch.equal(coco(rectangle(0, 0, 8, 8, segmentation=polygons))[0]["target"], whole["target"])
    assert "1 polygons of fewer than three points" in caplog.text
