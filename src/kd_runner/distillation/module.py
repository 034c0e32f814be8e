"""The LightningModule: a frozen teacher, a student, loss terms and metrics, joined by names."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.inputs import InputSpec, required_features, resolve
from kd_runner.distillation.loss_terms import LossTerm, weighted_total
from kd_runner.distillation.optim import layer_factors, parameter_groups, scale_rates
from kd_runner.errors import ConfigError
from kd_runner.pruning import spec as specs

Batch = Mapping[str, Any]


class Distiller(LightningModule):
    """Trains `student` on loss terms; those that read `teacher.*` make the teacher run, else it costs nothing.

    Args:
        student: net to train.
        teacher: net to learn from, or None. Frozen here: eval mode, no gradients, outside of every state dict.
        terms: loss terms; their modules train along with the student.
        metrics: name to (metric, inputs): what is measured on the validation set.
        optimizer: parameter groups to optimizer.
        scheduler: (optimizer, total_steps) to a schedule that moves every step; None for a constant rate.
        alpha: share of distillation in the total; None for the plain weighted sum (`weighted_total`).
        layer_decay: arguments of `optim.layer_factors` besides the net; None for one learning rate.
    """

    def __init__(
        self,
        student: FeatureExtractor,
        teacher: FeatureExtractor | None = None,
        terms: Iterable[LossTerm] = (),
        metrics: Mapping[str, tuple[Metric, Mapping[str, InputSpec]]] | None = None,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer] = torch.optim.AdamW,
        scheduler: Callable[..., LRScheduler] | None = None,
        alpha: float | None = None,
        layer_decay: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.student = student.net
        self.terms = list(terms)
        self.losses = nn.ModuleDict({t.name: t.fn for t in self.terms if isinstance(t.fn, nn.Module)})
        self.metrics = nn.ModuleDict({name: metric for name, (metric, _) in (metrics or {}).items()})
        self.alpha, self.layer_decay = alpha, layer_decay
        self.tapped_student = student
        self._make_optimizer, self._make_scheduler = optimizer, scheduler
        self.loss_wires: list[InputSpec] = [dict(t.inputs) for t in self.terms]
        self._metric_wires: dict[str, InputSpec] = {name: dict(wires) for name, (_, wires) in (metrics or {}).items()}
        # In a tuple, so that no module registers it: not saved, not set to train, not seen by DDP or the optimizer.
        self._teacher = (teacher,)
        # What answers in its stead for training batches, if anything does (`teacher_cache`).
        self.recorded_teacher: Callable[[Batch, Iterable[str]], dict[str, Tensor]] | None = None
        if teacher is not None:
            teacher.net.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Distiller":
        """Modules that the student does not train stay in eval mode: no dropout, no noise, no moving statistics."""
        super().train(mode)
        for module in self.tapped_student.frozen:
            module.eval()
        return self

    @property
    def role(self) -> str:
        """`student`, or `teacher` where that is what is trained: names the weight files."""
        return self.tapped_student.key

    @property
    def teacher(self) -> FeatureExtractor | None:
        return self._teacher[0]

    def scope(self, batch: Batch, wires: list[InputSpec], recorded: bool = False) -> dict[str, Mapping[str, Any]]:
        """Everything that the wires read, by source and name. The teacher runs without gradients, and only if read.

        Args:
            recorded: take the recorded teacher where there is one; it knows the training samples alone.
        """
        scope: dict[str, Mapping[str, Any]] = {"batch": batch}
        teacher = (recorded and self.recorded_teacher) or self.teacher
        if (names := required_features(wires, "teacher")) and teacher:
            with torch.no_grad():
                scope["teacher"] = teacher(batch, names)
        if names := required_features(wires, "student"):
            scope["student"] = self.tapped_student(batch, names)
        return scope

    @torch.no_grad()
    def build_losses(self, example: Batch) -> dict[str, Tensor]:
        """Let terms make their projections from what the features give on an example batch; return each term's value.

        Raises:
            ConfigError: a term cannot work with what it is given.
        """
        self.eval()
        scope = self.scope(example, self.loss_wires)
        values = {}
        for term in self.terms:
            inputs = term.arguments(scope)
            try:
                if hasattr(term.fn, "build"):
                    term.fn.build(**inputs)
                values[term.name] = term.fn(**inputs)
            except (ValueError, IndexError, RuntimeError) as error:
                raise ConfigError(f"loss.{term.name}: {error}") from error
        self.train()
        return values

    def task_loss(self, batch: Batch) -> Tensor:
        """Weighted sum of the terms that read no teacher.

        Raises:
            ConfigError: there are none.
        """
        terms = [term for term in self.terms if not term.uses_teacher]
        if not terms:
            raise ConfigError("pruning.score: needs a loss that reads no teacher; choose pruning/score=magnitude")
        scope = self.scope(batch, [dict(term.inputs) for term in terms])
        return weighted_total(terms, {term.name: term.value(scope) for term in terms}, None)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """`loss`, and `terms`, the detached values by name, `total` among them."""
        scope = self.scope(batch, self.loss_wires, recorded=True)
        values = {term.name: term.value(scope) for term in self.terms}
        total = weighted_total(self.terms, values, self.alpha)
        terms = {name: value.detach() for name, value in {**values, "total": total}.items()}
        # Straight to the loggers: self.log costs a third of a millisecond a value and step.
        if self.global_step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            group = self.trainer.optimizers[0].param_groups[0]
            rate = group["lr"] / group.get("lr_factor", 1.0)
            curves = {f"train/loss/{name}": float(value) for name, value in terms.items()}
            for logger in self.loggers:
                logger.log_metrics({**curves, "train/lr": rate}, step=self.global_step)
        if self.trainer.progress_bar_callback is not None:
            self.log("loss", terms["total"], prog_bar=True, logger=False)
        return {"loss": total, "terms": terms}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update_metrics(self.metrics, self.scope(batch, list(self._metric_wires.values())))

    def on_validation_epoch_end(self) -> None:
        for name, value in self.compute_metrics(self.metrics).items():
            self.log(f"val/{name}", value, prog_bar="/" not in name)

    def update_metrics(self, metrics: nn.ModuleDict, scope: Mapping[str, Mapping[str, Any]]) -> None:
        """Feed metrics (the module's own, or copies of them) from a scope."""
        metric: Any
        for name, metric in metrics.items():
            metric.update(**resolve(self._metric_wires[name], scope))

    @staticmethod
    def compute_metrics(metrics: nn.ModuleDict) -> dict[str, Tensor]:
        """All results by name, of the whole set: compute() adds up the states of all processes. Starts anew."""
        results: dict[str, Tensor] = {}
        metric: Any
        for name, metric in metrics.items():
            result = metric.compute()
            results |= result if isinstance(result, Mapping) else {name: result}
            metric.reset()
        return results

    def configure_optimizers(self) -> Any:
        factors = None if self.layer_decay is None else layer_factors(self.student, **self.layer_decay)
        optimizer = scale_rates(self._make_optimizer(parameter_groups([self.student, self.losses], factors)))
        if self._make_scheduler is None:
            return optimizer
        schedule = self._make_scheduler(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.tapped_student.pruned is not None:
            checkpoint["pruning"] = self.tapped_student.pruned.spec

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Before the weights are loaded, and the optimizer is made: cut the student to their widths."""
        if (pruned := self.tapped_student.pruned) is not None:
            specs.advance(pruned.part(self.student), pruned.spec, checkpoint["pruning"])
            pruned.spec = checkpoint["pruning"]

    def on_fit_start(self) -> None:
        self.place_teacher(self.device)

    def on_validation_start(self) -> None:
        self.place_teacher(self.device)  # a metric may read it, without any training before

    def place_teacher(self, device: torch.device) -> None:
        """Move the teacher, which Lightning does not see."""
        if self.teacher is not None:
            self.teacher.net.to(device)
