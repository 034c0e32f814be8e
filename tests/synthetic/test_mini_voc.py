"""The mini VOC set: VOC's layout, reproducible files, nothing shared between training and validation."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCSegmentation

from kd_runner.synthetic import mini_voc
from kd_runner.synthetic.digits import Sources
from kd_runner.synthetic.letters import LETTERS

SMALL = {"num_train": 3, "num_val": 2, "num_unlabeled": 2, "num_teacher": 2, "size": 48}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_torchvision_reads_it_as_voc(tmp_path: Path) -> None:
    mini_voc.write(tmp_path / "mini", **SMALL)
    for split, count in (("train", 3), ("val", 2), ("trainval", 5)):
        pictures = VOCSegmentation(tmp_path / "mini", year="2012", image_set=split)
        assert len(pictures) == count
        image, mask = pictures[0]
        assert (image.mode, image.size, mask.mode, mask.size) == ("RGB", (48, 48), "P", (48, 48))


def test_masks_hold_classes_and_a_void_contour(tmp_path: Path) -> None:
    folder = mini_voc.write(tmp_path / "mini", **SMALL)
    for path in (folder / "SegmentationClass").iterdir():
        labels = np.asarray(Image.open(path))
        instances = np.asarray(Image.open(folder / "SegmentationObject" / path.name))
        assert set(np.unique(labels)) <= {*range(mini_voc.NUM_CLASSES), mini_voc.VOID}
        np.testing.assert_array_equal(labels == mini_voc.VOID, instances == mini_voc.VOID)
        np.testing.assert_array_equal(labels == 0, instances == 0)
        # An object never touches the background: the contour lies between them.
        body = (labels > 0) & (labels != mini_voc.VOID)
        assert not (body[:, 1:] & (labels == 0)[:, :-1]).any()
        assert not (body[1:] & (labels == 0)[:-1]).any()


def test_palette_is_the_official_one() -> None:
    palette = mini_voc.voc_palette()
    expected = {0: (0, 0, 0), 1: (128, 0, 0), 5: (128, 0, 128), 15: (192, 128, 128), 20: (0, 64, 128)}
    for label, color in (expected | {255: (224, 224, 192)}).items():
        assert tuple(palette[label]) == color


def test_only_the_pool_lacks_masks(tmp_path: Path) -> None:
    folder = mini_voc.write(tmp_path / "mini", **SMALL)
    masks = {path.stem for path in (folder / "SegmentationClass").iterdir()}
    lists = {path.stem: path.read_text().split() for path in (folder / "ImageSets" / "Segmentation").iterdir()}
    assert masks == {*lists["trainval"], *lists["teacher"]}
    assert len(lists["unlabeled"]) == 2
    assert {path.stem for path in (folder / "JPEGImages").iterdir()} == masks | {*lists["unlabeled"]}


def test_same_arguments_give_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    first = files(mini_voc.write(tmp_path / "a", **SMALL))
    assert files(mini_voc.write(tmp_path / "b", **SMALL)) == first
    assert files(mini_voc.write(tmp_path / "c", **SMALL, seed=1)) != first


def test_a_longer_list_begins_with_the_shorter_one(tmp_path: Path) -> None:
    short = files(mini_voc.write(tmp_path / "a", **SMALL))
    long = files(mini_voc.write(tmp_path / "b", **{**SMALL, "num_train": 5}))
    assert {name: long[name] for name in short if "ImageSets" not in name} == {
        name: content for name, content in short.items() if "ImageSets" not in name
    }


def test_validation_shares_no_digit_with_training() -> None:
    train, val = Sources(held_out=False), Sources(held_out=True)
    assert len(train.digits) + len(val.digits) == 1797
    assert set(train.labels) == set(val.labels) == set(range(10))
    assert train.photographs.parts[0].width + val.photographs.parts[0].width == 640
    # 1,797 digits are all different pictures, so equal bytes would be the same digit.
    assert not {d.tobytes() for d in train.digits} & {d.tobytes() for d in val.digits}


def test_a_complete_set_is_kept(tmp_path: Path) -> None:
    folder = mini_voc.write(tmp_path / "mini", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert mini_voc.write(tmp_path / "mini", **SMALL) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_two_writers_at_once_leave_one_complete_set(tmp_path: Path) -> None:
    done: list[Path] = []
    threads = [
        threading.Thread(target=lambda: done.append(mini_voc.write(tmp_path / "mini", **SMALL))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [tmp_path / "mini" / "VOCdevkit" / "VOC2012"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["mini"]  # no draft is left behind


def test_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"data\.root"):
        mini_voc.write(tmp_path, **SMALL)
    mini_voc.write(tmp_path / "mini", **SMALL)
    with pytest.raises(ValueError, match=r"data\.root.*other arguments"):
        mini_voc.write(tmp_path / "mini", **SMALL, seed=1)


def test_objects_have_the_size_and_number_that_is_asked_for(tmp_path: Path) -> None:
    folder = mini_voc.write(tmp_path / "mini", **SMALL, side=[0.9, 1.0], max_objects=1, objects="letters")
    for path in (folder / "SegmentationObject").iterdir():
        instances = np.asarray(Image.open(path))
        assert set(np.unique(instances)) - {mini_voc.VOID} == {0, 1}
        rows = np.flatnonzero((instances == 1).any(1))
        assert rows[-1] - rows[0] > 0.6 * 48  # a letter fills the height of its square
    assert len(set(LETTERS)) == len(LETTERS) == 30


@pytest.mark.parametrize("wrong", [{"num_val": -1}, {"size": 16}, {"side": [0.9, 0.5]}, {"objects": "shapes"}])
def test_arguments_out_of_range_are_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        mini_voc.write(tmp_path / "mini", **{**SMALL, **wrong})
