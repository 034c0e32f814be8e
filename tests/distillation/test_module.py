"""The LightningModule, trained for a few steps on tiny nets."""

import functools
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kd_runner.distillation.checkpoints import read
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.distillation.module import Distiller
from kd_runner.distillation.optim import warmup_cosine
from kd_runner.distillation.student_file import save_student
from kd_runner.errors import ConfigError
from kd_runner.losses.cosine_features import CosineFeatures
from kd_runner.losses.kl_logits import KLLogits
from kd_runner.losses.task_ce import CrossEntropy
from kd_runner.metrics.segmentation_iou import SegmentationIoU

pytestmark = pytest.mark.filterwarnings("ignore:.*(num_workers|does not have many workers|log_every_n_steps|_pytree).*")

CE = {"logits": "student.logits", "target": "batch.target"}
KL = {"student": "student.logits", "teacher": "teacher.logits"}
COSINE = {"student": ["student.feat"], "teacher": ["teacher.feat"]}
IOU = {"preds": "student.logits", "target": "batch.target"}


class Net(nn.Module):
    def __init__(self, width: int, classes: int = 3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Conv2d(width, classes, 1)
        self.calls = 0

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        return {"out": self.head(self.body(image))}


def extractor(key: str, width: int, classes: int = 3) -> FeatureExtractor:
    torch.manual_seed(width)
    return FeatureExtractor(Net(width, classes), {"image": "image"}, {"logits": ":out", "feat": "body"}, key)


def batch() -> dict[str, Tensor]:
    samples = [data()[i] for i in range(2)]
    return {name: torch.stack([s[name] for s in samples]) for name in ("image", "target")}


def data() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": torch.randn(3, 6, 6, generator=generator), "target": torch.randint(0, 3, (6, 6), generator=generator)}
        for _ in range(6)
    ]


def terms(*names: str) -> list[LossTerm]:
    every = {
        "ce": LossTerm("ce", CrossEntropy(), CE, 1.0),
        "kl": LossTerm("kl", KLLogits(4.0), KL, 0.5),
        "cosine": LossTerm("cosine", CosineFeatures(), COSINE, 0.3),
    }
    return [every[name] for name in names]


def distiller(*names: str, metric_inputs: dict[str, str] = IOU, **options: Any) -> Distiller:
    torch.manual_seed(0)
    module = Distiller(
        extractor("student", 4),
        extractor("teacher", 8),
        terms(*(names or ("ce", "kl", "cosine"))),
        metrics={"iou": (SegmentationIoU(3), metric_inputs)},
        optimizer=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        **options,
    )
    module.build_losses(batch())
    if module.teacher:
        module.teacher.net.calls = 0
    return module


def fit(module: Distiller, record: "Record | None" = None, epochs: int = 1) -> Trainer:
    """Three steps of two samples, and a validation, an epoch."""
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=record, logger=record or False, log_every_n_steps=1,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data(), batch_size=2), DataLoader(data(), batch_size=4))
    return trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Distiller, dict[str, Tensor], Path, dict[str, Tensor]]:
    """A module after two epochs, the teacher's state before, its checkpoint, and its own state before."""
    module = distiller()
    teacher = {name: value.clone() for name, value in module.teacher.net.state_dict().items()}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    path = tmp_path_factory.mktemp("fit") / "last.ckpt"
    fit(module, epochs=2).save_checkpoint(path)
    return module, teacher, path, before


def test_the_teacher_stays_in_eval_bit_for_bit(trained) -> None:
    """Its batch-norm statistics too, through two epochs with validation between."""
    module, teacher, _, _ = trained
    module.train()
    assert not any(m.training for m in module.teacher.net.modules())
    assert all(torch.equal(value, teacher[name]) for name, value in module.teacher.net.state_dict().items())
    assert module.net.training and module.net.body[1].num_batches_tracked == 6


def test_the_teacher_has_no_gradient_and_no_place_in_the_optimizer(trained) -> None:
    module = trained[0]
    assert all(p.grad is None and not p.requires_grad for p in module.teacher.net.parameters())
    optimized = {id(p) for group in module.configure_optimizers().param_groups for p in group["params"]}
    assert optimized == {id(p) for m in (module.net, module.losses) for p in m.parameters()}


def test_the_teacher_is_in_no_state_dict_and_no_byte_of_the_checkpoint(trained) -> None:
    module, teacher, path, _ = trained
    content = path.read_bytes()
    weights = {name: value.numpy().tobytes() for name, value in teacher.items() if value.numel() > 8}
    assert weights and not any(data in content for data in weights.values())
    assert module.net.head.weight.detach().numpy().tobytes() in content
    assert {name.split(".")[0] for name in module.state_dict()} == {"net", "losses"}
    assert not any(m is module.teacher.net for m in module.modules())


def test_projections_are_trained_and_in_the_checkpoint(trained) -> None:
    module, _, path, before = trained
    saved = torch.load(path, weights_only=True)["state_dict"]
    name = "losses.cosine.projections.0.weight"
    assert saved[name].shape == (8, 4, 1, 1)
    assert torch.equal(saved[name], module.state_dict()[name])
    assert not torch.equal(saved[name], before[name])
    assert not torch.equal(saved["net.head.weight"], before["net.head.weight"])


def test_the_saved_student_is_the_plain_class_without_projections(trained, tmp_path: Path) -> None:
    module = trained[0]
    save_student(module.net, tmp_path / "student.safetensors")
    plain = Net(4)
    plain.load_state_dict(safetensors.torch.load_file(tmp_path / "student.safetensors"), strict=True)
    image = batch()["image"]
    assert torch.equal(plain.eval()(image)["out"], module.net.eval()(image)["out"])


def test_a_new_module_takes_the_checkpoint_strictly(trained) -> None:
    module, _, path, _ = trained
    other = distiller()
    other.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=True)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in other.state_dict().items())


def test_a_checkpoint_of_lightning_can_be_read_as_weights(trained) -> None:
    assert {name.split(".")[0] for name in read(trained[2], "student.checkpoint")} == {"net", "losses"}


class Record(Callback, Logger):
    """What each step logged, and the loss that Lightning went down."""

    name, version = "record", 0

    def __init__(self) -> None:
        super().__init__()
        self.curves: list[dict[str, float]] = []
        self.minimized: list[float] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "train/loss/total" in metrics:
            self.curves.append(metrics)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.minimized.append(outputs["loss"].item())


@pytest.mark.parametrize("alpha", [None, 0.0, 0.7])
def test_the_logged_total_is_the_sum_of_the_terms_and_what_is_minimized(alpha: float | None) -> None:
    record = Record()
    fit(distiller(alpha=alpha), record)
    task, distilled = (1.0, 1.0) if alpha is None else (1 - alpha, alpha)
    assert len(record.curves) == 3
    for step, minimized in zip(record.curves, record.minimized, strict=True):
        terms = {name: step[f"train/loss/{name}"] for name in ("ce", "kl", "cosine")}
        expected = task * terms["ce"] + distilled * (0.5 * terms["kl"] + 0.3 * terms["cosine"])
        assert step["train/loss/total"] == pytest.approx(expected, rel=1e-6)
        assert minimized == step["train/loss/total"]


def test_a_distilled_step_calls_the_teacher_once_and_validation_does_not() -> None:
    """Two terms read it, at two places: one pass."""
    module = distiller("ce", "kl", "cosine")
    fit(module)
    assert module.teacher.net.calls == 3
    assert module.net.calls == 1 + 3 + 2  # build, steps, validation batches


def test_the_teacher_is_not_called_when_no_term_reads_it() -> None:
    module = distiller("ce")
    fit(module)
    assert module.teacher.net.calls == 0


def test_a_metric_that_reads_the_teacher_makes_it_run() -> None:
    module = distiller("ce", metric_inputs={"preds": "teacher.logits", "target": "batch.target"})
    fit(module)
    assert module.teacher.net.calls == 2


def test_only_the_student_has_a_graph() -> None:
    module = distiller()
    sources = module.sources(batch(), module.loss_inputs)
    assert all(value.requires_grad for value in sources["student"].values())
    assert not any(value.requires_grad for value in sources["teacher"].values())


def test_undistilled_training_is_the_same_with_and_without_a_teacher_at_hand() -> None:
    with_teacher, alone = distiller("ce"), distiller("ce")
    alone.teacher = None
    for module in (with_teacher, alone):
        torch.manual_seed(1)
        fit(module)
    expected = alone.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in with_teacher.state_dict().items())


def test_alpha_zero_moves_the_student_as_no_distillation_does() -> None:
    blended, alone = distiller("ce", "kl", alpha=0.0), distiller("ce")
    for module in (blended, alone):
        torch.manual_seed(1)
        fit(module)
    for value, expected in zip(blended.net.parameters(), alone.net.parameters(), strict=True):
        torch.testing.assert_close(value, expected)


def test_building_losses_tells_values_and_leaves_the_student_as_it_was() -> None:
    module = Distiller(extractor("student", 4), extractor("teacher", 8), terms("ce", "cosine"))
    before = {name: value.clone() for name, value in module.net.state_dict().items()}
    values = module.build_losses(batch())
    assert values.keys() == {"ce", "cosine"} and 0 < values["cosine"] < 2
    assert all(torch.equal(value, before[name]) for name, value in module.net.state_dict().items())
    assert module.net.training


def test_a_term_that_cannot_work_is_named() -> None:
    module = Distiller(extractor("student", 4), extractor("teacher", 8, classes=5), terms("ce", "kl"))
    with pytest.raises(ConfigError, match=r"^loss\.kl: class-count mismatch: student has 3, teacher 5"):
        module.build_losses(batch())


def test_a_term_that_reads_a_teacher_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'teacher\.logits' is read but not there"):
        Distiller(extractor("student", 4), None, terms("kl")).build_losses(batch())


def test_the_metric_is_that_of_the_whole_validation_set() -> None:
    """In batches of 4 and 2, in eval mode, anew each time."""
    module = distiller("ce")
    trainer = fit(module, epochs=2)
    expected = SegmentationIoU(3)
    samples = data()
    with torch.no_grad():
        logits = module.net.eval()(torch.stack([s["image"] for s in samples]))["out"]
    expected.update(logits, torch.stack([s["target"] for s in samples]))
    for name, value in expected.compute().items():
        assert trainer.callback_metrics[f"val/{name}"].item() == pytest.approx(value.item(), abs=1e-6)


def test_the_schedule_spans_the_run_step_by_step() -> None:
    record = Record()
    fit(distiller("ce", scheduler=warmup_cosine), record, epochs=2)
    expected = [0.1 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 6)).item()) for step in range(6)]
    assert [step["train/lr"] for step in record.curves] == pytest.approx(expected, rel=1e-5)


def test_the_role_names_what_is_trained() -> None:
    assert Distiller(extractor("teacher", 4)).role == "teacher"
    assert distiller("ce").role == "student"
