"""Nets of transformers and timm by yaml alone. One file, so that transformers is imported once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.foreign_nets import FAMILIES, model_file, tiny
from kd_runner.config import calls, recipes
from kd_runner.config.instantiation import instantiate_checked
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.errors import ConfigError
from tests.docs.markdown import blocks


@pytest.mark.parametrize("family", FAMILIES)
def test_a_map_of_each_family(family: str, tmp_path: Path) -> None:
    node = yaml.safe_load(model_file(family, tmp_path))["teacher"]
    calls.check_call("teacher.net", node["net"])
    net = instantiate_checked(node["net"], "teacher.net").eval()
    assert ("checkpoint" in node) == recipes.is_random(net, node["net"])
    transforms = {name: instantiate_checked(part, name) for name, part in node.get("feature_transforms", {}).items()}
    teacher = FeatureExtractor(net, node["inputs"], node["features"], "teacher", transforms=transforms)
    with torch.no_grad():
        features = teacher({"image": torch.randn(2, 3, 64, 64)})
    batch, channels, height, width = features["high"].shape
    assert batch == 2 and channels >= 8 and height == width and height in (2, 4, 8, 16)
    if "logits" in features:
        assert features["logits"].shape == (2, 10)


def test_a_segformer_teaches_an_lraspp(started: Callable[..., Path], tiny_words: list[str], tmp_path: Path) -> None:
    """The guide's yaml: twenty steps, and the metric."""
    tiny("segformer", tmp_path / "segformer")
    file = "my_kd/model/segformer_to_lraspp.yaml"
    (tmp_path / "my_kd/model").mkdir(parents=True)
    (tmp_path / file).write_text(next(block.text for block in blocks("yaml") if block.file == file))
    folder = started(
        *("--config-dir=my_kd", "model=segformer_to_lraspp", *tiny_words, "loss=[task_ce,kl_logits]"),
        *(f"teacher.net.pretrained_model_name_or_path={tmp_path / 'segformer'}", "data.steps_per_epoch=10"),
        "export=none",
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 20 and 0 <= metrics["score"] <= 1


@pytest.fixture
def tiny_words(tiny: list[str]) -> list[str]:
    """The tiny task, without its nets."""
    return [word for word in tiny if not word.startswith(("++teacher", "teacher", "student"))]


def test_arguments_of_a_configuration_are_tried() -> None:
    node = {"_target_": "transformers.SegformerConfig", "num_labels": 11, "hidden_sizes": [8, 8, 16, 16]}
    calls.check_call("teacher.net.config", node)
    with pytest.raises(ConfigError, match=r"teacher\.net\.config\.num_label: .* Did you mean 'num_labels'"):
        calls.check_call("teacher.net.config", {"_target_": "transformers.SegformerConfig", "num_label": 11})
