"""What a notebook or another training loop uses. Each docstring's example is run."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import kd_runner
from kd_runner.cli import api
from kd_runner.distillation import features, inputs, loss_terms, module, student_file
from kd_runner.errors import ConfigError
from kd_runner.losses import cosine_features, crd, feature_mse, kl_logits
from kd_runner.metrics import segmentation_iou
from kd_runner.pruning import budget
from kd_runner.pruning import prune as pruner


def test_the_import_is_cheap_and_every_name_is_there() -> None:
    code = (
        "import sys, kd_runner\n"
        "assert not {'torch', 'lightning', 'numpy', 'hydra', 'omegaconf'} & set(sys.modules)\n"
        "assert set(kd_runner.__all__) <= set(dir(kd_runner))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in kd_runner.__all__:
        value = getattr(kd_runner, name)
        assert value.__name__ == name and value.__doc__
    with pytest.raises(AttributeError, match="no attribute 'lod_student'"):
        kd_runner.lod_student  # noqa: B018


@pytest.mark.parametrize(
    "part",
    [
        features,
        inputs,
        loss_terms,
        module,
        pruner,
        budget,
        cosine_features,
        crd,
        feature_mse,
        kl_logits,
        segmentation_iou,
    ],
)
def test_examples_of_the_docstrings(part) -> None:
    tested = doctest.testmod(part, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tested.attempted > 0 and tested.failed == 0


def test_from_configuration_to_a_plain_net(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of compose, run and load_student, on the tiny task."""
    monkeypatch.chdir(tmp_path)
    plain, composed = kd_runner.compose, []

    def small(overrides):
        composed.append(plain([*tiny, *overrides, "callbacks=[checkpoints]"]))
        return composed[-1]

    monkeypatch.setattr(kd_runner, "compose", small, raising=False)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    tests = {test.name.split(".")[-1]: test for test in doctest.DocTestFinder().find(api)}
    for name in ("compose", "run"):
        assert runner.run(tests[name]).failed == 0 and tests[name].examples
    weights = Path("outputs/notebook/student.safetensors")
    again = api.run(composed[-1], "outputs/notebook")  # ended: read, not run again
    assert again.student == weights and again.score == again.metrics["score"]
    weights.rename("outputs/student.safetensors")
    (load,) = (t for t in doctest.DocTestFinder().find(student_file) if t.name.endswith(".load_student"))
    assert runner.run(load).failed == 0 and load.examples
    net = kd_runner.load_student("outputs/student.safetensors")
    assert isinstance(net, nn.Module) and net(torch.zeros(1, 3, 32, 32)).shape == (1, 11, 32, 32)


def test_a_misspelt_override_is_refused() -> None:
    with pytest.raises(ConfigError, match="temprature"):
        kd_runner.compose(["kd.temprature=3"])


def test_losses_and_pruner_stand_alone() -> None:
    from kd_runner.losses.kl_logits import KLLogits
    from kd_runner.pruning.scores import Magnitude

    assert KLLogits(2.0)(student=torch.zeros(2, 3), teacher=torch.zeros(2, 3)).item() == 0
    block = nn.ModuleDict({"up": nn.Linear(4, 8), "down": nn.Linear(8, 4)})
    net = nn.ModuleDict({"blocks": nn.ModuleList([block])})
    layout = {"blocks": "blocks.*", "mlp_in": "up", "mlp_out": "down"}
    kd_runner.prune(net, layout=layout, score=Magnitude(), hidden=kd_runner.Budget(0.5))
    assert block["up"].out_features == block["down"].in_features == 4
