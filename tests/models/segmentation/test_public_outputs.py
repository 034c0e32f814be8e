"""The public layout of torchvision's FCN: from a picture on disk to the class map that torchvision itself gives."""

from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from torchvision.models.segmentation import FCN_ResNet50_Weights
from torchvision.models.segmentation import fcn_resnet50 as torchvision_fcn_resnet50
from torchvision.transforms._presets import SemanticSegmentation

from kd_runner.config.compose import CONF
from kd_runner.data.voc.dataset import VOCSegmentation
from kd_runner.data.voc.transforms import evaluate
from kd_runner.distillation import checkpoints
from kd_runner.metrics.segmentation_iou import SegmentationIoU
from kd_runner.models.segmentation.fcn_resnet import fcn_resnet50

PUBLISHED = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1


def test_a_published_checkpoint_gives_torchvisions_class_map(tmp_path: Path) -> None:
    """Weights with 21 classes and the auxiliary head; the picture is read, normalized and classified by either side."""
    torch.manual_seed(0)
    public = torchvision_fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
    torch.nn.init.normal_(public.classifier[4].weight)  # else one class wins everywhere
    torch.save(public.state_dict(), tmp_path / "fcn.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    Image.fromarray(pixels).save(folder / "JPEGImages" / "a.jpg", quality=95)
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    preset = SemanticSegmentation(resize_size=None, mean=PUBLISHED.transforms().mean, std=PUBLISHED.transforms().std)
    with torch.no_grad():
        expected = public(preset(Image.open(folder / "JPEGImages" / "a.jpg"))[None])["out"].argmax(1)[0]
    Image.fromarray(expected.numpy().astype(np.uint8)).save(folder / "SegmentationClass" / "a.png")

    net = fcn_resnet50(21)
    options = OmegaConf.load(CONF / "model/fcn_resnet50_to_mobilenet_v3_small.yaml").teacher.checkpoint_keys
    coverage = checkpoints.load(net, tmp_path / "fcn.pth", "teacher.checkpoint", drop=list(options["drop"]))
    checkpoints.require(coverage, "teacher", "fcn.pth")
    sample = VOCSegmentation(tmp_path, "val", evaluate(None))[0]
    with torch.no_grad():
        logits = net.eval()(sample["image"][None])["out"]
    assert len(expected.unique()) > 3 and torch.equal(logits.argmax(1)[0], expected)
    metric = SegmentationIoU(num_classes=21, class_names=[str(i) for i in range(21)])
    metric.update(logits, sample["target"][None])
    assert metric.compute()["miou"] == 1.0


def test_classes_are_in_the_order_of_the_published_weights() -> None:
    names = list(OmegaConf.load(CONF / "data/voc.yaml").class_names)
    assert names == [name.strip("_") for name in PUBLISHED.meta["categories"]]
