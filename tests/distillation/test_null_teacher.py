"""A teacher that knows nothing, and a student that does not notice where it begins."""

import torch
from omegaconf import OmegaConf
from torch import nn

from kd_runner.config import build
from kd_runner.config.null_teacher import teacher_of_losses
from kd_runner.distillation import null_teacher
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.teacher_cache import identity


def net() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 4))
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(made[1], name).data.copy_(torch.randperm(8) + 1.0)
    made.register_buffer("grid", torch.arange(5.0))
    return made


def test_every_tensor_keeps_its_values_and_a_channel_its_four_numbers() -> None:
    before, after = net(), net()
    null_teacher.permute(after, seed=1)
    for name, old in before.state_dict().items():
        new = after.state_dict()[name]
        assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
        assert torch.equal(old, new) == (name in ("grid", "1.num_batches_tracked")), name
    names = ("weight", "bias", "running_mean", "running_var")
    channels = [set(zip(*(getattr(n[1], name).tolist() for name in names))) for n in (before, after)]
    assert channels[0] == channels[1]
    assert not torch.equal(before[2].weight.sum(1), after[2].weight.sum(1))  # across rows, too


def settings(kind: str | None) -> object:
    part = {"net": {"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 3}, "inputs": {"input": "x"},
            "train_inputs": {}, "features": {"logits": ":"}, "checkpoint": None, "channels_last": False}  # fmt: skip
    loss = {"kl": {"weight": 1.0, "inputs": {"teacher": "teacher.logits"}, "fn": {}}}
    return OmegaConf.create({"seed": 3, "teacher": part, "kd": {"enabled": True, "null_teacher": kind}, "loss": loss})


def test_the_losses_read_another_net_and_the_trained_one_stays() -> None:
    """A random net is not that of a student with the same seed; the key of the teacher cache is another one."""
    trained = build.net(settings(None), "teacher")
    teacher = FeatureExtractor(trained, {"input": "x"}, {"logits": ":"}, "teacher")
    kept = {name: value.clone() for name, value in trained.state_dict().items()}
    assert teacher_of_losses(settings(None), teacher) is teacher
    keys = {identity.weights(trained)}
    for kind in ("random", "permuted"):
        null = teacher_of_losses(settings(kind), teacher)
        assert null is not None and null.net is not trained
        keys.add(identity.weights(null.net))
    assert len(keys) == 3
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in kept.items())
