"""Values of the schedules, and what a fit, broken off or not, makes of them."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from kd_runner.callbacks.kd_schedule import KDSchedule, Schedule
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.distillation.module import Distiller
from kd_runner.errors import ConfigError
from kd_runner.losses.kl_logits import KLLogits
from kd_runner.losses.task_ce import CrossEntropy

EPOCHS, STEPS = 3, 4


class Diary(Callback):
    """Notes what each step is trained with."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, float | None]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        temperatures = [term.fn.temperature for term in pl_module.terms if hasattr(term.fn, "temperature")]
        self.lines.append((temperatures[0] if temperatures else math.nan, pl_module.alpha))


def distiller(alpha: float | None = 0.7, uses_teacher: bool = True) -> Distiller:
    torch.manual_seed(0)
    nets = [FeatureExtractor(nn.Linear(3, 2), {"input": "x"}, {"logits": ":"}, key) for key in ("student", "teacher")]
    terms = [LossTerm("ce", CrossEntropy(), {"logits": "student.logits", "target": "batch.y"})]
    if uses_teacher:
        terms.append(
            LossTerm(
                "kl",
                KLLogits(4.0),
                {"student": "student.logits", "teacher": "teacher.logits"},
                temperature_is_shared=True,
            )
        )
    return Distiller(nets[0], nets[1] if uses_teacher else None, terms, alpha=alpha)


def fit(
    folder: Path, schedule: KDSchedule, module: Distiller, epochs: int = EPOCHS, resume: str | None = None
) -> Diary:
    data = [{"x": torch.ones(2, 3) * i, "y": torch.tensor([0, 1])} for i in range(STEPS)]
    diary = Diary()
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        callbacks=[schedule, diary],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader(data, batch_size=None)
    trainer.fit(module, loader, ckpt_path=resume, weights_only=False)
    trainer.save_checkpoint(folder / "stopped.ckpt")
    return diary


def test_shapes_run_from_start_to_end() -> None:
    points = [0.0, 0.25, 0.5, 1.0, 2.0]
    assert [Schedule(4, shape="constant").value(p) for p in points] == [4.0] * 5
    assert [Schedule(4, 1, "linear").value(p) for p in points] == [4.0, 3.25, 2.5, 1.0, 1.0]
    cosine = [1 + 3 * (1 + math.cos(math.pi * p)) / 2 for p in (0, 0.25, 0.5, 1, 1)]
    assert [Schedule(4, 1, "cosine").value(p) for p in points] == pytest.approx(cosine)


def test_a_fit_goes_through_the_whole_schedule(tmp_path: Path) -> None:
    diary = fit(tmp_path, KDSchedule(Schedule(4, 1, "cosine"), Schedule(0.9, 0.1)), distiller())
    last = EPOCHS * STEPS - 1
    expected = [1 + 1.5 * (1 + math.cos(math.pi * step / last)) for step in range(last + 1)]
    assert [temperature for temperature, _ in diary.lines] == pytest.approx(expected)
    assert [alpha for _, alpha in diary.lines] == pytest.approx([0.9 - 0.8 * step / last for step in range(last + 1)])


def test_the_last_step_has_the_last_value_and_a_single_step_the_first(tmp_path: Path) -> None:
    diary = fit(tmp_path, KDSchedule(Schedule(4, 1), Schedule(0.9, 0.1)), distiller())
    assert diary.lines[0] == (4.0, 0.9) and diary.lines[-1] == pytest.approx((1.0, 0.1))
    module, one = distiller(), KDSchedule(Schedule(4, 1), Schedule(0.9, 0.1))
    values: list[float] = []
    for step, total in ((0, 1), (0, 2), (1, 2)):
        trainer = SimpleNamespace(global_step=step, estimated_stepping_batches=total, log_every_n_steps=1, loggers=[])
        one.on_train_batch_start(trainer, module, None, 0)
        values.append(float(module.alpha))  # type: ignore[arg-type]
    assert values == pytest.approx([0.9, 0.9, 0.1])


def test_a_resumed_fit_goes_on_where_it_was(tmp_path: Path) -> None:
    def schedule() -> KDSchedule:
        return KDSchedule(Schedule(4, 1), Schedule(0.9, 0.1, "cosine"))

    whole = fit(tmp_path, schedule(), distiller()).lines
    first = fit(tmp_path, schedule(), distiller(), epochs=1).lines
    # The first part is planned for one epoch and has a schedule of its own; the second one has the whole plan.
    second = fit(tmp_path, schedule(), distiller(), resume=str(tmp_path / "stopped.ckpt")).lines
    assert len(first) == STEPS and second == whole[STEPS:]


def test_nothing_happens_without_distillation(tmp_path: Path) -> None:
    module = distiller(alpha=None, uses_teacher=False)
    assert fit(tmp_path, KDSchedule(Schedule(4, 1), Schedule(0.9, 0.1)), module).lines[-1][1] is None


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: Schedule(4, 1, "cosin"), "cosine"),
        (lambda: Schedule(4, shape="linear"), "constant"),
        (lambda: KDSchedule(temperature=Schedule(4, 0)), "above 0"),
        (lambda: KDSchedule(alpha=Schedule(0.7, 1.2)), r"0\.\.1"),
    ],
)
def test_what_cannot_work_is_refused(create: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create()


def test_an_alpha_that_is_not_there_cannot_move(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kd\.alpha is null"):
        fit(tmp_path, KDSchedule(alpha=Schedule(0.9, 0.1)), distiller(alpha=None))
