"""Pascal VOC on disk, from a few pictures written here."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kd_runner.data.voc.dataset import VOCSegmentation, voc_palette
from kd_runner.data.voc.transforms import evaluate, train

LABELS = np.array([[0, 0, 1, 1, 255], [0, 2, 2, 20, 255], [0, 0, 0, 20, 255]], np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images a, b, c of 5 x 3 with masks, d without: train a b, val c."""
    folder = tmp_path / "data" / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for name in "abcd":
        Image.new("RGB", (5, 3), (255, 0, 127)).save(folder / "JPEGImages" / f"{name}.jpg", quality=100, subsampling=0)
    for name in "abc":
        mask = Image.fromarray(LABELS)
        mask.putpalette(voc_palette().tobytes())
        mask.save(folder / "SegmentationClass" / f"{name}.png")
    for split, names in {"train": "a\nb\n", "val": "c\n", "trainval": "a\nb\nc\n"}.items():
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names)
    return tmp_path / "data"


def voc(root: Path, split: str = "train", size: int | None = None, **options: object) -> VOCSegmentation:
    return VOCSegmentation(root, split, evaluate(size), **options)


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_the_folder_is_found_from_where_it_is_named(root: Path, inside: str) -> None:
    assert voc(root / inside).ids == ["a", "b"]


def test_a_sample_is_the_image_its_labels_and_what_is_valid(root: Path) -> None:
    sample = voc(root)[0]
    assert {name: (tuple(v.shape), v.dtype) for name, v in sample.items()} == {
        "image": ((3, 3, 5), torch.float32),
        "target": ((3, 5), torch.int64),
        "valid": ((3, 5), torch.bool),
    }
    assert np.array_equal(sample["target"].numpy(), LABELS)  # labels, not the palette's colors
    assert np.array_equal(sample["valid"].numpy(), LABELS != 255)
    assert all(type(v) is torch.Tensor for v in sample.values())


def test_label_maps_of_another_folder(root: Path) -> None:
    """The augmented masks lie beside the published ones."""
    folder = root / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    with pytest.raises(ValueError, match=r"SegmentationClassAug"):
        voc(root, mask_folder="SegmentationClassAug")
    folder.mkdir()
    for name in "ab":
        Image.fromarray(np.full_like(LABELS, 7)).save(folder / f"{name}.png")
    assert (voc(root, mask_folder="SegmentationClassAug")[0]["target"] == 7).all()


def test_padding_is_void_and_not_valid(root: Path) -> None:
    sample = voc(root, size=8)[0]
    assert np.array_equal(sample["target"][:3, :5].numpy(), LABELS)
    assert (sample["target"][3:] == 255).all() and (sample["target"][:, 5:] == 255).all()
    assert not sample["valid"][3:].any() and not sample["valid"][:, 5:].any()


def test_unlabeled_targets_are_void_but_the_image_may_be_distilled(root: Path) -> None:
    """The pixels that labels call void as well, for nobody read them; the padding not."""
    sample = voc(root, size=8, labeled=False)[0]
    assert (sample["target"] == 255).all()
    assert sample["valid"][:3, :5].all() and int(sample["valid"].sum()) == 15


def test_unlabeled_images_need_no_label_maps(root: Path) -> None:
    (root / "VOCdevkit/VOC2012/SegmentationClass/a.png").unlink()
    assert voc(root, labeled=False)[0]["valid"].all()


def test_rest_is_every_image_that_is_on_no_list(root: Path) -> None:
    assert voc(root, "rest", labeled=False).ids == ["d"]


def test_masks_are_cut_without_mixing_labels(root: Path) -> None:
    """Scaled by nearest pixel: no label appears that was not there."""
    data = VOCSegmentation(root, "train", train(crop=16, scale=(0.5, 4.0)))
    labels = {int(label) for _ in range(20) for label in data[0]["target"].unique()}
    assert labels <= set(np.unique(LABELS).tolist())
    assert {0, 2, 255} <= labels


def test_a_label_out_of_range_names_file_label_and_key(root: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.png has label 20, but with num_classes=11 .* 0\.\.10 and"):
        voc(root, num_classes=11)[0]
    assert voc(root, num_classes=11, labeled=False)[0]["valid"].all()


def test_a_missing_list_is_told_the_nearest(root: Path) -> None:
    with pytest.raises(ValueError, match=r"no list 'trian' in .*Segmentation\. Did you mean 'train'"):
        voc(root, "trian")


def test_an_empty_list_is_an_error(root: Path) -> None:
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"the list 'train' of .* names no image"):
        voc(root)


@pytest.mark.parametrize("file", ["JPEGImages/a.jpg", "SegmentationClass/a.png"])
def test_a_listed_file_that_is_missing_is_named(root: Path, file: str) -> None:
    (root / "VOCdevkit/VOC2012" / file).unlink()
    with pytest.raises(ValueError, match=rf"{file} is missing, which the list 'train' names"):
        voc(root)


def test_a_root_without_data_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r".* is empty\. Name the folder that holds VOCdevkit"):
        voc(tmp_path)
    with pytest.raises(ValueError, match=r".*nowhere does not exist"):
        voc(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r".* holds no VOCdevkit/VOC2012/ImageSets"):
        voc(tmp_path)


def test_the_embedded_data_has_this_layout(mini_root: Path) -> None:
    for split, labeled in (("train", True), ("val", True), ("unlabeled", False)):
        data = voc(mini_root, split, num_classes=11, labeled=labeled)
        sample = data[len(data) - 1]
        assert sample["image"].shape == (3, 32, 32)
        assert (sample["target"] == 255).all() == (not labeled)


def test_the_palette_is_vocs_own() -> None:
    """Known colors: background, aeroplane, bicycle, person, void."""
    palette = voc_palette()
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 255: (224, 224, 192)}
    assert {label: tuple(map(int, palette[label])) for label in known} == known


def test_an_image_that_is_listed_twice_is_refused(root: Path) -> None:
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").write_text("a\nb\na\n")
    with pytest.raises(ValueError, match=r"the list 'train' of .* names a twice"):
        voc(root)


def test_more_than_8_bits_are_refused(root: Path) -> None:
    """Pillow would clip the values to 255."""
    folder = root / "VOCdevkit/VOC2012"
    Image.fromarray(np.full(LABELS.shape, 300, np.uint16)).save(folder / "SegmentationClass/a.png")
    with pytest.raises(ValueError, match=r"SegmentationClass/a\.png cannot be read \(it has more than 8 bits"):
        voc(root)[0]
    with (folder / "JPEGImages/a.jpg").open("wb") as file:
        Image.fromarray(np.full(LABELS.shape, 300, np.uint16)).save(file, format="PNG")
    with pytest.raises(ValueError, match=r"JPEGImages/a\.jpg cannot be read \(it has more than 8 bits"):
        voc(root)[0]
