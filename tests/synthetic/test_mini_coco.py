"""The mini COCO set: COCO's layout, reproducible files, figures that hide each other."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from kd_runner.data.coco.dataset import CocoInstances
from kd_runner.synthetic import mini_coco
from kd_runner.synthetic.persons import Figure, figure
from kd_runner.synthetic.photographs import Photographs

SMALL = {"num_train": 12, "num_val": 2, "num_unlabeled": 2, "num_teacher": 2, "size": 64}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mini_coco.write(tmp_path_factory.mktemp("coco") / "mini", **SMALL)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pycocotools_reads_it_as_coco(root: Path) -> None:
    coco = COCO(root / "annotations" / "instances_train.json")
    assert coco.getCatIds(catNms=["person"]) == [1] and len(coco.getImgIds()) == 12
    for image in coco.loadImgs(coco.getImgIds()):
        with Image.open(root / "train" / image["file_name"]) as picture:
            assert (picture.mode, picture.size) == ("RGB", (image["width"], image["height"])) == ("RGB", (64, 64))
        entries = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        masks = [coco.annToMask(entry) for entry in entries]
        assert masks and np.sum(masks, axis=0).max() == 1  # what one hides is not another's
        for entry, mask in zip(entries, masks):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            extent = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
            assert entry["bbox"] == extent and entry["area"] == mask.sum() and entry["iscrowd"] == 0


def test_polygons_enclose_what_is_seen() -> None:
    """Of shapes with corners, gaps and thin parts; a ring has none, for polygons cannot leave out a hole."""
    random = np.random.default_rng(0)
    regions = 0
    for _ in range(40):
        mask = figure(48, random).cover > 0.5
        mask[10:20] &= random.random() < 0.5
        polygons = mini_coco._polygons(mask)
        if polygons is None:
            continue
        regions += 1
        filled = rle.decode(rle.merge(rle.frPyObjects(polygons, *mask.shape))).astype(bool)
        assert (filled & mask).sum() > 0.97 * (filled | mask).sum()
    assert regions > 10
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    assert mini_coco._polygons(ring) is None


def test_both_kinds_of_segmentation_are_there(root: Path) -> None:
    entries = json.loads((root / "annotations/instances_train.json").read_text())["annotations"]
    assert {type(entry["segmentation"]) for entry in entries} == {list, dict}


def test_the_pool_has_boxes_and_no_shapes(root: Path) -> None:
    entries = json.loads((root / "annotations/instances_unlabeled.json").read_text())["annotations"]
    assert entries and not any({"segmentation", "area"} & set(entry) for entry in entries)


def test_near_figures_hide_far_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rectangles the last one, the nearest, is seen whole; some others are not."""

    def slab(height: int, random: np.random.Generator) -> Figure:
        return Figure(np.full((height, height, 3), 90, np.uint8), np.ones((height, height)))

    monkeypatch.setattr(mini_coco, "figure", slab)
    photographs, cut = Photographs(held_out=False), 0
    for seed in range(40):
        _, masks = mini_coco.scene(photographs, 64, np.random.default_rng(seed))
        filled = [mask[np.ix_(mask.any(1), mask.any(0))].all() for mask in masks]
        assert filled[-1] and np.sum(masks, axis=0).max() == 1
        cut += not all(filled)
    assert cut >= 4


def test_the_reader_finds_all_three_labels(root: Path) -> None:
    """In about the shares that COCO's persons have: 0.49, 0.37, 0.15."""
    data = CocoInstances(root, "train", "annotations/instances_train.json", (64, 64), (32, 24), min_side=5)
    labels = torch.cat([sample["target"][sample["roi_mask"]].flatten() for sample in (data[i] for i in range(12))])
    shares = torch.bincount(labels, minlength=3) / len(labels)
    assert 0.35 < shares[0] < 0.6 and 0.25 < shares[1] < 0.5 and 0.05 < shares[2] < 0.3


def test_same_arguments_give_the_same_files_and_another_seed_others(root: Path, tmp_path: Path) -> None:
    few = {**SMALL, "num_train": 3}
    first = files(mini_coco.write(tmp_path / "a", **few))
    assert files(mini_coco.write(tmp_path / "b", **few)) == first
    assert files(mini_coco.write(tmp_path / "c", **few, seed=1)) != first
    # A longer split begins with the shorter one.
    longer = files(root)
    assert all(longer[name] == content for name, content in first.items() if name.endswith(".jpg"))


def test_validation_shares_no_photograph_with_training() -> None:
    train, val = Photographs(held_out=False), Photographs(held_out=True)
    assert [t.width + v.width for t, v in zip(train.parts, val.parts)] == [640, 640]


def test_a_complete_set_is_kept_and_another_refused(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert mini_coco.write(root, **SMALL) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(ValueError, match=r"data\.root.*other arguments"):
        mini_coco.write(root, **SMALL, seed=1)


@pytest.mark.parametrize("wrong", [{"num_val": -1}, {"size": 16}])
def test_arguments_out_of_range_are_named(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        mini_coco.write(tmp_path / "mini", **{**SMALL, **wrong})
