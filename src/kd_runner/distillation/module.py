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
from kd_runner.distillation.finite import LossCheck, check_gradients, check_metrics, check_weights
from kd_runner.distillation.inputs import InputSpec, Sources
from kd_runner.distillation.loss_terms import LossTerm, weighted_total
from kd_runner.distillation.metric_results import checked_result
from kd_runner.distillation.optim import layer_factors, parameter_groups, scale_rates
from kd_runner.errors import ConfigError, named, require
from kd_runner.pruning import spec as specs

Batch = Mapping[str, Any]


class Distiller(LightningModule):
    """Trains a student on loss terms, some of which read a frozen teacher. The teacher runs only where it is read.

    Args:
        student: net to train.
        teacher: net to learn from, or None. Frozen here: eval mode, no gradients, outside of every state dict.
        terms: loss terms; their modules train along with the student.
        metrics: name to (metric, inputs): what is measured on the validation set.
        optimizer: parameter groups to optimizer.
        scheduler: (optimizer, total_steps) to a schedule that moves every step; None for a constant rate.
        alpha: fraction of distillation in the total; None for the plain weighted sum (`weighted_total`).
        layer_decay: arguments of `optim.layer_factors` besides the net; None for one learning rate.

    Attributes:
        student: the `FeatureExtractor`s.
        teacher: the `FeatureExtractor`s.
        net: the student's net; a submodule, so that it is optimized and saved. The teacher is none.
        recorded_teacher: what answers for the teacher in training batches, or None (`teacher_cache`).

    Example:
        >>> student = FeatureExtractor(nn.Linear(4, 2), inputs={"input": "x"}, features={"logits": ":"})
        >>> ce = LossTerm("ce", nn.CrossEntropyLoss(), {"input": "student.logits", "target": "batch.y"})
        >>> module = Distiller(student, terms=[ce])
        >>> values = module.build_losses({"x": torch.ones(3, 4), "y": torch.tensor([0, 1, 1])})
        >>> list(values)
        ['ce']
    """

    def __init__(
        self,
        student: FeatureExtractor,
        teacher: FeatureExtractor | None = None,
        terms: Iterable[LossTerm] = (),
        metrics: Mapping[str, tuple[Metric, Mapping[str, Any]]] | None = None,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer] = torch.optim.AdamW,
        scheduler: Callable[..., LRScheduler] | None = None,
        alpha: float | None = None,
        layer_decay: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        metrics = metrics or {}
        self.student, self.teacher = student, teacher
        self.net = student.net
        self.terms = list(terms)
        self.losses = nn.ModuleDict({term.name: term.fn for term in self.terms if isinstance(term.fn, nn.Module)})
        self.metrics = nn.ModuleDict({name: metric for name, (metric, _) in metrics.items()})
        self.loss_inputs = InputSpec({term.name: term.inputs for term in self.terms})
        self.metric_inputs = InputSpec({name: spec for name, (_, spec) in metrics.items()})
        self.alpha, self.layer_decay = alpha, layer_decay
        self._make_optimizer, self._make_scheduler = optimizer, scheduler
        self.recorded_teacher: Callable[[Batch, Iterable[str]], dict[str, Tensor]] | None = None
        self._loss_check = LossCheck()
        if teacher is not None:
            teacher.net.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Distiller":
        """Set the training mode.

        Modules that the student does not train stay in eval mode: no dropout, no noise, no moving statistics.

        Args:
            mode: training or evaluation.

        Returns:
            The module itself.
        """
        super().train(mode)
        for module in self.student.frozen:
            module.eval()
        return self

    @property
    def role(self) -> str:
        """`student`, or `teacher` where that is what is trained: names the weight files."""
        return self.student.role

    def sources(self, batch: Batch, inputs: InputSpec, recorded: bool = False) -> Sources:
        """The batch and the features that some inputs need. The teacher runs without gradients, and only if it is read.

        Args:
            batch: name to stacked tensor.
            inputs: of the terms or metrics.
            recorded: use the recorded teacher where there is one; it knows the training samples alone.

        Returns:
            `batch`, `student` and `teacher` to their values by name.
        """
        sources: dict[str, Mapping[str, Any]] = {"batch": batch}
        teacher: Callable[[Batch, Iterable[str]], dict[str, Tensor]] | None = self.teacher
        if recorded and self.recorded_teacher is not None:
            teacher = self.recorded_teacher
        if teacher is not None and (names := inputs.required_features("teacher")):
            with torch.no_grad():
                sources["teacher"] = teacher(batch, names)
        if names := inputs.required_features("student"):
            sources["student"] = self.student(batch, names)
        return sources

    @torch.no_grad()
    def build_losses(self, example: Batch) -> dict[str, Tensor]:
        """Let terms make their projections from the features of an example batch.

        Args:
            example: a small training batch.

        Returns:
            Term to its unweighted value.

        Raises:
            ConfigError: a term cannot work with its inputs.
        """
        self.eval()
        arguments = self.loss_inputs.resolve(self.sources(example, self.loss_inputs))
        values = {}
        for term in self.terms:
            term.build(arguments[term.name])
            values[term.name] = term.call(arguments[term.name])
        self.train()
        return values

    def task_loss(self, batch: Batch) -> Tensor:
        """Weighted sum of the terms that read no teacher.

        Args:
            batch: name to stacked tensor.

        Returns:
            A scalar tensor.

        Raises:
            ConfigError: there are none.
        """
        terms = [term for term in self.terms if not term.uses_teacher]
        if not terms:
            raise ConfigError("pruning.score: needs a loss that reads no teacher; choose pruning/score=magnitude")
        sources = self.sources(batch, InputSpec({term.name: term.inputs for term in terms}))
        return weighted_total(terms, {term.name: term.value(sources) for term in terms}, None)

    def loss_values(self, sources: Sources) -> dict[str, Tensor]:
        """Unweighted values of all terms.

        Args:
            sources: source to its values by name.

        Returns:
            Term to a scalar tensor.
        """
        arguments = self.loss_inputs.resolve(sources)
        return {term.name: term.call(arguments[term.name]) for term in self.terms}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """`loss`, and `terms`, the detached values by name, `total` among them."""
        values = self.loss_values(self.sources(batch, self.loss_inputs, recorded=True))
        total = weighted_total(self.terms, values, self.alpha)
        terms = {name: value.detach() for name, value in {**values, "total": total}.items()}
        self._loss_check.add(self.global_step, terms)
        # Straight to the loggers: self.log costs a third of a millisecond a value and step.
        first = batch_idx % self.trainer.accumulate_grad_batches == 0
        if first and self.global_step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            group = self.trainer.optimizers[0].param_groups[0]
            rate = group["lr"] / group.get("lr_factor", 1.0)
            curves = {f"train/loss/{name}": float(value) for name, value in terms.items()}
            for logger in self.loggers:
                logger.log_metrics({**curves, "train/lr": rate}, step=self.global_step)
        if self.trainer.progress_bar_callback is not None:
            self.log("loss", terms["total"], prog_bar=True, logger=False)
        return {"loss": total, "terms": terms}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.device.type == "cpu":  # elsewhere it would wait for the device; `check_weights` finds it later
            check_gradients(self.net, self.global_step)

    def on_train_epoch_end(self) -> None:
        self._loss_check.read()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update_metrics(self.metrics, self.sources(batch, self.metric_inputs))

    def on_validation_epoch_end(self) -> None:
        values = {f"val/{name}": value for name, value in self.compute_metrics(self.metrics).items()}
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        monitored = {callback.monitor for callback in callbacks if getattr(callback, "monitor", None)}
        check_metrics(values, monitored, self.global_step)
        for name, value in values.items():
            self.log(name, value, prog_bar="/" not in name.removeprefix("val/"))

    def update_metrics(self, metrics: nn.ModuleDict, sources: Sources) -> None:
        """Update metrics (the module's own, or copies of them) from the sources of a batch.

        Args:
            metrics: by name.
            sources: source to its values by name.
        """
        arguments = self.metric_inputs.resolve(sources)
        metric: Any
        for name, metric in metrics.items():
            with named(f"metric.{name}"):
                metric.update(**arguments[name])

    @staticmethod
    def compute_metrics(metrics: nn.ModuleDict) -> dict[str, Tensor]:
        """Results of metrics over the whole set: the states of all processes are added up, and reset.

        Args:
            metrics: by name.

        Returns:
            Result to its value, a scalar tensor.
        """
        results: dict[str, Tensor] = {}
        metric: Any
        for name, metric in metrics.items():
            with named(f"metric.{name}"):
                result = metric.compute()
            results |= checked_result(name, result)
            metric.reset()
        return results

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule with a step per batch."""
        factors = None if self.layer_decay is None else layer_factors(self.net, **self.layer_decay)
        groups = parameter_groups([self.net, self.losses], factors)
        with named("optimizer"):  # e.g. Muon takes matrices alone
            optimizer = scale_rates(require(self._make_optimizer(groups), Optimizer, "optimizer"))
        if self._make_scheduler is None:
            return optimizer
        total_steps = int(self.trainer.estimated_stepping_batches)
        with named("scheduler"):
            schedule = require(self._make_scheduler(optimizer, total_steps=total_steps), LRScheduler, "scheduler")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that are not finite: the checkpoint before stays."""
        self._loss_check.read()
        check_weights(self.net, self.global_step if self._trainer is not None else 0)
        if self.student.pruned is not None:
            checkpoint["pruning"] = self.student.pruned.spec

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Before the weights are loaded, and the optimizer is made: give the student their widths."""
        if self.student.pruned is not None:
            self._set_pruning(checkpoint["pruning"])
        own, saved = ({k: v.shape for k, v in d.items()} for d in (self.state_dict(), checkpoint["state_dict"]))
        wrong = sorted(name for name in own.keys() | saved.keys() if own.get(name) != saved.get(name))
        if wrong:
            raise ConfigError(f"resume: last.ckpt is not of this net: {len(wrong)} weights differ, e.g. {wrong[0]}")

    def setup(self, stage: str) -> None:
        """Before DDP compares the shapes of the processes: what the first one has pruned counts for all."""
        if self.student.pruned is not None and self.trainer.world_size > 1:
            self._set_pruning(self.trainer.strategy.broadcast(self.student.pruned.spec))

    def _set_pruning(self, spec: specs.Spec) -> None:
        pruned = self.student.pruned
        if pruned is None:
            raise ValueError("the student is not pruned")
        specs.reshape(pruned.part(self.net), pruned.spec, spec)
        pruned.spec = spec

    def on_fit_start(self) -> None:
        self.place_teacher(self.device)

    def on_validation_start(self) -> None:
        self.place_teacher(self.device)  # a metric may read it, without any training before

    def place_teacher(self, device: torch.device) -> None:
        """Move the teacher, which Lightning does not see, and give it the student's precision.

        Args:
            device: of the student.
        """
        if self.teacher is not None:
            dtype = next((p.dtype for p in self.net.parameters() if p.is_floating_point()), None)
            self.teacher.net.to(device=device, dtype=dtype)
