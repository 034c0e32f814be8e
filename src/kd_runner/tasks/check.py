"""task=check: everything that can be known before training, by doing each part of a run once."""

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import nn

from kd_runner.config import build
from kd_runner.config.null_teacher import teacher_of_losses
from kd_runner.data.module import DataModule
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.loss_terms import LossTerm, weighted_total
from kd_runner.distillation.module import Distiller
from kd_runner.distillation.recorded_teacher import check_views
from kd_runner.errors import ConfigError
from kd_runner.runtime.run_folder import RunFolder
from kd_runner.tasks.dry_run import one_step
from kd_runner.tasks.memory_rows import check_memory_rows

console = Console(width=140, highlight=False)


def check(cfg: DictConfig, run: RunFolder) -> None:
    """Print what would be trained, and try once what a run does. Keeps nothing.

    Tried are an optimizer step, a validation batch, pictures, a checkpoint and the export, in a temporary folder.

    Args:
        cfg: the composed configuration.
        run: not used; every task is called with the folder of a run.

    Raises:
        ConfigError: the first thing that would fail.
    """
    started = time.perf_counter()
    data = build.data(cfg)
    _show_data(cfg, data)
    teacher = build.teacher(cfg) if build.needs_teacher(cfg) else None
    student = build.student(cfg, teacher, data)
    example = data.example()
    module = build.distiller(cfg, student, teacher_of_losses(cfg, teacher), example)
    _show_features(module, example)
    _show_parameters(module)
    _show_losses(module, example)
    check_indices(module.terms, data)
    if module.teacher is not None:
        check_views(module.teacher.net, data.train)
    _scan(data)
    one_step(cfg, module, data)
    console.print("\nOne optimizer step, one validation batch, a checkpoint, pictures and the export work.")
    console.print(f"All of it fits together; {time.perf_counter() - started:.1f} s. Nothing was kept.")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _show_data(cfg: DictConfig, data: DataModule) -> None:
    table = _table(
        f"Data{f' in {cfg.data.root}' if cfg.data.root else ''} (scale {cfg.scale})",
        "part",
        "samples",
        "in a batch",
        "what one holds",
    )
    counts_in_batch = {"train": data.batch_size, "unlabeled": data.unlabeled_batch_size, "val": data.val_batch_size}
    parts = {"train": data.num_labeled, "unlabeled": data.num_unlabeled, "val": len(data.val)}
    for name, count in parts.items():
        if count == 0 and name == "unlabeled":
            continue
        if count == 0:
            raise ConfigError(f"data.{name}: no samples")
        sample = data.val[0] if name == "val" else data.train[0 if name == "train" else data.num_labeled]
        shapes = ", ".join(f"{key} {_shape(value)}" for key, value in sample.items())
        table.add_row(name, f"{count:,}", str(counts_in_batch[name]), shapes)
    console.print(table)
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    console.print(f"Free disk space for outputs/: {free:.1f} GB")
    if free < 1:
        raise ConfigError(f"hydra.run.dir: only {free:.2f} GB are free on the disk of {Path.cwd()}")


def _show_features(module: Distiller, example: Any) -> None:
    table = _table("Features", "name", "teacher", "shape", "student", "shape")
    with torch.no_grad():
        module.eval()
        student = module.student(example)
        teacher = module.teacher(example) if module.teacher else {}
        module.train()
    paths = module.teacher.features if module.teacher else {}
    for name in dict.fromkeys([*paths, *module.student.features]):
        there = [paths.get(name, "–"), _shape(teacher[name]) if name in teacher else "–"]
        here = [module.student.features.get(name, "–"), _shape(student[name]) if name in student else "–"]
        table.add_row(name, *there, *here)
    console.print(table)


def _show_parameters(module: Distiller) -> None:
    table = _table("What trains", "module", "trained", "frozen")
    parts: dict[str, nn.Module] = {"student": module.net}
    parts |= {f"loss.{name}": loss for name, loss in module.losses.items() if list(loss.parameters())}
    if module.teacher is not None:
        parts["teacher"] = module.teacher.net
    for name, part in parts.items():
        trained = sum(p.numel() for p in part.parameters() if p.requires_grad)
        table.add_row(name, f"{trained:,}", f"{sum(p.numel() for p in part.parameters()) - trained:,}")
    for name, loss in module.losses.items():
        for inner, parameter in loss.named_parameters():
            table.add_row(f"  projection loss.{name}.{inner} {_shape(parameter)}", f"{parameter.numel():,}", "0")
    console.print(table)
    if module.teacher is not None and any(inner.training for inner in module.teacher.net.modules()):
        raise RuntimeError("the teacher is not in eval mode")


def _show_losses(module: Distiller, example: Any) -> None:
    """Values and gradient norms on one batch; the total is that of `weighted_total`."""
    table = _table(
        f"Losses on {len(example['index'])} samples (kd.alpha {module.alpha if module.alpha is not None else 'off'})",
        "term", "kind", "weight", "value", "gradient norm at the student", "of it, weighted",
    )  # fmt: skip
    buffers = _statistics(module.teacher)
    values = module.loss_values(module.sources(example, module.loss_inputs))
    for term in module.terms:
        if not torch.isfinite(values[term.name]):
            raise ConfigError(f"loss.{term.name}: the value is {values[term.name].item()} on the first batch")
        norm = gradient_norm(values[term.name], module.net)
        if norm == 0:
            console.print(f"[yellow]loss.{term.name} has no gradient at the student on this batch: does it read it?[/]")
        kind = "teacher" if term.uses_teacher else "task"
        weighted = weighted_total([term], values, module.alpha)
        table.add_row(term.name, kind, f"{term.weight:g}", f"{values[term.name].item():.4f}", f"{norm:.4f}",
                      f"{gradient_norm(weighted, module.net):.4f}")  # fmt: skip
    total = weighted_total(module.terms, values, module.alpha)
    table.add_row("total", "", "", f"{total.item():.4f}", f"{gradient_norm(total, module.net):.4f}", "")
    console.print(table)
    after = _statistics(module.teacher)
    changed = [name for name, before in buffers.items() if not torch.equal(before, after[name])]
    if changed:
        raise RuntimeError(f"the teacher's statistics changed in a forward pass: {', '.join(changed[:3])}")


def gradient_norm(value: torch.Tensor, net: nn.Module) -> float:
    """Norm of the gradient of a value at the trained parameters of a net.

    Args:
        value: a scalar tensor; its graph is kept.
        net: its parameters that require a gradient count.

    Returns:
        L2 norm over all of them together; a parameter that the value does not depend on adds 0.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return sum(float(g.square().sum()) for g in gradients if g is not None) ** 0.5


def _statistics(teacher: FeatureExtractor | None) -> dict[str, torch.Tensor]:
    return {} if teacher is None else {name: value.clone() for name, value in teacher.net.named_buffers()}


def check_indices(terms: list[LossTerm], data: DataModule, count: int = 8) -> None:
    """Check the numbers of samples for losses that keep a row for each sample or object (`index`).

    A number must be the same however the sample is augmented, and belong to one sample only: else the loss stays finite
    and teaches nothing. Numbers below 0 stand for no sample.

    Args:
        terms: the loss terms; those whose input `index` reads the batch are checked.
        data: the data module, whose training samples are drawn.
        count: about how many samples are drawn, at equal distances and each with two augmentations.

    Raises:
        ConfigError: numbers that change or are shared; see also `check_memory_rows`.
    """
    # Draws of a sampler may repeat frames, whose numbers they pass on.
    samples = getattr(data.train.samples, "num_indices", len(data.train))
    for term in terms:
        inputs: Any = term.inputs.spec
        spec = inputs.get("index")
        if not isinstance(spec, str) or not spec.startswith("batch."):
            continue
        key = f"loss.{term.name}.inputs.index"
        owners: dict[int, int] = {}
        for sample in range(0, len(data.train), max(1, len(data.train) // count)):
            first, second = (_numbers(data.train[sample, seed], term) for seed in (0, 1))
            if first and second and not first & second:
                raise ConfigError(
                    f"{key}: sample {sample} comes as {spec} {min(first)}, and as {min(second)} when drawn again; give "
                    "the sample's own number, the same in every epoch"
                )
            for number in first | second:
                if owners.setdefault(number, sample) != sample and samples == len(data.train):
                    raise ConfigError(f"{key}: samples {owners[number]} and {sample} are both {spec} {number}")
    check_memory_rows(terms, data)


def _numbers(sample: dict[str, Any], term: LossTerm) -> set[int]:
    inputs: Any = term.inputs.spec
    index, mask = (str(inputs.get(name)).removeprefix("batch.") for name in ("index", "mask"))
    numbers = sample[index][sample[mask]] if mask in sample else sample[index].flatten()
    return {number for number in numbers.tolist() if number >= 0}


def _scan(data: DataModule, count: int = 32) -> None:
    """Read samples from all over the sets: missing files and labels out of range show now."""
    for part in (data.train, data.val):
        for index in range(0, len(part), max(1, len(part) // count)):
            part[index]


def _shape(value: Any) -> str:
    return "x".join(map(str, value.shape)) if getattr(value, "shape", ()) else "scalar"
