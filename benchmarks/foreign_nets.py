"""`task=check` with a teacher of each family of transformers and timm, from yaml alone: seconds, and lines of yaml.

    python benchmarks/foreign_nets.py               all families
    python benchmarks/foreign_nets.py --only vit    one of them

Tiny random nets are saved in a temporary folder and loaded as a user's own would be; there is no network.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

TOKENS = "{_target_: kd_runner.distillation.net_transforms.TokensToMap, prefix: %d}"
CHANNELS_FIRST = "{_target_: kd_runner.distillation.net_transforms.ChannelsFirst}"


def hugging_face(cls: str, features: str, transform: str = "") -> str:
    """The teacher's yaml for a class of transformers and a folder FOLDER."""
    more = f"  feature_transforms: {{high: {transform}}}\n" if transform else ""
    return f"""teacher:
  net:
    _target_: transformers.{cls}.from_pretrained
    pretrained_model_name_or_path: FOLDER
  inputs: {{pixel_values: image}}
  features: {features}
{more}"""


def timm(name: str, arguments: str, features: str, transform: str = "") -> str:
    """The teacher's yaml for a net of timm and a weights file in FOLDER."""
    more = f"  feature_transforms: {{high: {transform}}}\n" if transform else ""
    return f"""teacher:
  net: {{_target_: timm.create_model, model_name: {name}, {arguments}}}
  inputs: {{x: image}}
  features: {features}
  checkpoint: FOLDER/net.pth
{more}"""


CONVNEXT, VIT = "depths: [1, 1, 1, 1], dims: [8, 8, 16, 16]", "img_size: 64, depth: 2, embed_dim: 16, num_heads: 2"
SWIN = "img_size: 64, window_size: 2, depths: [1, 1, 1, 1], embed_dim: 8, num_heads: [1, 1, 1, 1]"
FAMILIES = {
    "segformer": hugging_face("SegformerForSemanticSegmentation", '{high: ":logits"}'),
    "mask2former": hugging_face("Mask2FormerForUniversalSegmentation", '{high: ":pixel_decoder_last_hidden_state"}'),
    "dinov2": hugging_face("Dinov2Model", '{high: ":last_hidden_state"}', TOKENS % 1),
    "dinov3": hugging_face("DINOv3ViTModel", '{high: ":last_hidden_state"}', TOKENS % 5),
    "rt_detr": hugging_face("RTDetrForObjectDetection", '{high: ":encoder_last_hidden_state.2"}'),
    "vit": hugging_face("ViTForImageClassification", '{high: vit.layers.1, logits: ":logits"}', TOKENS % 1),
    "timm_convnext": timm("convnext_atto", f"num_classes: 10, {CONVNEXT}", '{high: stages.3, logits: ":"}'),
    "timm_convnext_features": timm("convnext_atto", f"features_only: true, {CONVNEXT}", '{high: ":3"}'),
    "timm_efficientnet": timm("efficientnet_b0", "num_classes: 10", '{high: blocks.6, logits: ":"}'),
    "timm_efficientnet_features": timm("efficientnet_b0", "features_only: true", '{high: ":4"}'),
    "timm_vit": timm("vit_tiny_patch16_224", f"num_classes: 10, {VIT}", '{high: norm, logits: ":"}', TOKENS % 1),
    "timm_vit_features": timm("vit_tiny_patch16_224", f"features_only: true, out_indices: [1], {VIT}", '{high: ":0"}'),
    "timm_swin": timm(
        "swin_tiny_patch4_window7_224", f"num_classes: 10, {SWIN}", '{high: layers.3, logits: ":"}', CHANNELS_FIRST
    ),
    "timm_swin_features": timm(
        "swin_tiny_patch4_window7_224", f"features_only: true, {SWIN}", '{high: ":3"}', CHANNELS_FIRST
    ),
}

STUDENT = """student:
  net:
    _target_: kd_runner.models.classification.cifar_resnet.CifarResNet
    depth: 8
    widths: [8, 8, 16, 16]
    num_classes: 10
  inputs: {image: image}
  features: {logits: ":", high: layer3}
"""
WORDS = [
    *("experiment=cifar_kd", "loss=[task_ce,cosine_features]", "kd.alpha=null", "logger=none"),
    *("++data.prepare.size=64", "++data.prepare.num_train=40", "++data.prepare.num_test=20", "data.batch_size=4"),
    *("data.val_batch_size=4", "export.samples=2"),
    "loss.cosine_features.inputs={student:[student.high],teacher:[teacher.high],mask:null}",
]


def tiny(family: str, folder: Path) -> None:
    """Write a tiny random net of a family of transformers into a folder, as `save_pretrained` does."""
    import transformers as hf

    vit = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
    swin = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 2, "image_size": 64}
    stages = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    resnet = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
    makers: dict[str, Callable[[], Any]] = {
        "segformer": lambda: hf.SegformerForSemanticSegmentation(
            hf.SegformerConfig(
                num_labels=11, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], decoder_hidden_size=16,
                num_attention_heads=[1, 1, 2, 2],
            )
        ),
        "mask2former": lambda: hf.Mask2FormerForUniversalSegmentation(
            hf.Mask2FormerConfig(
                backbone_config=hf.SwinConfig(**swin, **stages), feature_size=32, mask_feature_size=32, hidden_dim=32,
                encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2,
                num_attention_heads=2, num_queries=5, num_labels=11,
            )
        ),
        "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**vit)),
        "dinov3": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**vit, intermediate_size=32, num_register_tokens=4)),
        "rt_detr": lambda: hf.RTDetrForObjectDetection(
            hf.RTDetrConfig(
                backbone_config=hf.RTDetrResNetConfig(**resnet, out_features=["stage2", "stage3", "stage4"]),
                encoder_in_channels=[8, 16, 16], encoder_hidden_dim=16, encoder_layers=1, encoder_ffn_dim=16,
                encoder_attention_heads=2, d_model=16, decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16,
                num_queries=6, decoder_layers=2, decoder_attention_heads=2, num_denoising=0, num_labels=3,
            )
        ),
        "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**vit, intermediate_size=32, num_labels=10)),
    }  # fmt: skip
    makers[family]().save_pretrained(folder)


def model_file(family: str, folder: Path) -> str:
    """The yaml of a pair, its teacher's weights written into the folder."""
    import torch
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    text = FAMILIES[family].replace("FOLDER", str(folder))
    if "timm." in text:
        import timm as library

        arguments = yaml.safe_load(text)["teacher"]["net"]
        del arguments["_target_"]
        torch.save(library.create_model(**arguments).state_dict(), folder / "net.pth")
    else:
        tiny(family, folder)
    return f"# @package _global_\n{text}{STUDENT}"


def checked(family: str, folder: Path, words: list[str]) -> tuple[float, str]:
    """Seconds of `task=check`, or of the words' task, in this process; the error's last line where it fails."""
    from kd_runner.cli import main

    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / f"{family}.yaml").write_text(model_file(family, folder / family))
    sys.argv = [
        "kd_runner",
        f"--config-dir={folder}",
        f"model={family}",
        *WORDS,
        f"data.root={folder / 'data'}",
        *words,
    ]
    started, output = time.perf_counter(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            main.main()
    except SystemExit as error:
        if error.code:
            return time.perf_counter() - started, output.getvalue().strip().splitlines()[-1]
    return time.perf_counter() - started, ""


def measure() -> None:
    """Print a row a family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=FAMILIES)
    only = parser.parse_args().only
    print("| family | lines of yaml | check, s | |\n|---|---:|---:|---|")
    with tempfile.TemporaryDirectory() as name:
        for family in [only] if only else FAMILIES:
            seconds, error = checked(family, Path(name), ["task=check"])
            print(f"| {family} | {FAMILIES[family].count(chr(10))} | {seconds:.1f} | {error} |", flush=True)


if __name__ == "__main__":
    measure()
