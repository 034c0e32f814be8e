"""Published recipes: the rate follows the batch, pretrained weights are asked for."""

import pytest
from omegaconf import OmegaConf

from kd_runner.cli import api
from kd_runner.config import recipes
from kd_runner.errors import ConfigError
from kd_runner.runtime.resolvers import scale_lr

FULL = ["scale=full", "data.root=/data", "teacher.checkpoint=t.pth"]


def test_the_rate_follows_the_batch() -> None:
    assert scale_lr(1e-3, 32, 4) == pytest.approx(1.25e-4)
    assert api.compose([*FULL, "experiment=bevfusion_crd", "data.batch_size=32"]).optimizer.lr == pytest.approx(1e-3)
    assert api.compose([*FULL, "optimizer.lr=0.5"]).optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("experiment", "role", "word"),
    [
        ("voc_kd", "student", "student.net.weights_backbone=IMAGENET1K_V1"),
        ("hierarchical_unet_kd", "student", "student.net.encoder_weights=imagenet"),
        ("hierarchical_unet_kd", "teacher", "teacher.net.encoder_weights=imagenet"),
    ],
)
def test_pretrained_weights_are_asked_for(experiment: str, role: str, word: str) -> None:
    cfg = api.compose([*FULL, f"experiment={experiment}", f"task={'train' if role == 'student' else 'train_teacher'}"])
    with pytest.raises(ConfigError, match=word):
        recipes.check_pretrained(cfg)
    key, _, value = word.partition("=")
    for change in ({key: value}, {f"{role}.pretrained": None}):
        own = cfg.copy()
        for name, new in change.items():
            OmegaConf.update(own, name, new)
        recipes.check_pretrained(own)
    if role == "student":
        cfg.student.checkpoint = "s.safetensors"
        recipes.check_pretrained(cfg)


def test_crd_encoder_without_crd() -> None:
    loss = api.compose(["experiment=bevfusion_crd", "loss=[transfusion,crd_encoder]"]).loss
    assert (loss.crd_encoder.fn.n_data, loss.crd_encoder.fn.queue) == (None, 256)


def test_own_files_are_checked_in_python_too(tmp_path) -> None:
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment/mine.yaml"
    file.write_text("# @package _global_\ndefaults: [voc_kd]\ndata: {bach_size: 3}\n")
    with pytest.raises(ConfigError, match=r"data\.bach_size: no such key"):
        api.compose(["experiment=mine"], tmp_path)


def test_a_variant_may_choose_another_one_as_a_group(tmp_path) -> None:
    for folder in ("experiment", "variant/mine"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\ndefaults: [voc_kd]\n")
    (tmp_path / "variant/mine/mini.yaml").write_text("# @package _global_\ndefaults:\n  - /variant/voc_kd: mini\n")
    assert api.compose(["experiment=mine"], tmp_path).data.batch_size == 8
