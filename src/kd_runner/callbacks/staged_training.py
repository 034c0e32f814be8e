"""Decoder first, then the encoder, block by block."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from kd_runner.errors import ConfigError, nearest


class StagedTraining(Callback):
    """Trains a net's encoder later than the rest, deepest block first, at its own learning rate.

    The encoder is frozen for `frozen_epochs`; then one more entry of `blocks` trains, and another after every
    `epochs_per_block` (gradual unfreezing: Howard & Ruder 2018, ULMFiT, section 3.3). What no entry names, such as the
    stem, trains with the last one. What is frozen stays in eval mode, so that the statistics of its batch norms hold
    still as well.

    What trains is a function of the epoch alone, and the parameter groups are the same at all times, so that a run
    can be resumed in any stage.

    Args:
        encoder: module path in the net.
        blocks: module paths below it, deepest first.
        frozen_epochs: epochs before the first block trains.
        epochs_per_block: epochs from one block to the next.
        lr_scale: learning rate of the encoder, as a fraction of the others'.

    Raises:
        ConfigError: when training starts: a path that is not there, or DDP that would wait for frozen parameters.
    """

    def __init__(
        self,
        encoder: str,
        blocks: Sequence[str],
        frozen_epochs: int = 5,
        epochs_per_block: int = 3,
        lr_scale: float = 0.3,
    ):
        if frozen_epochs < 0 or epochs_per_block < 1 or lr_scale <= 0:
            raise ConfigError(
                f"callbacks.staged_training: frozen_epochs={frozen_epochs} from 0, epochs_per_block={epochs_per_block} "
                f"from 1, lr_scale={lr_scale} above 0"
            )
        if not blocks:
            raise ConfigError("callbacks.staged_training.blocks names no module of the encoder")
        self.encoder, self.blocks, self.lr_scale = encoder, list(blocks), lr_scale
        self.frozen_epochs, self.epochs_per_block = frozen_epochs, epochs_per_block
        self._stages: list[list[nn.Module]] = []
        self._trainable: set[int] = set()

    def num_trained(self, epoch: int) -> int:
        """Entries of `blocks` that train in an epoch.

        Args:
            epoch: counted from 0.

        Returns:
            Their number.
        """
        if epoch < self.frozen_epochs:
            return 0
        return min(len(self.blocks), 1 + (epoch - self.frozen_epochs) // self.epochs_per_block)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        strategy = trainer.strategy
        if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters"):
            raise ConfigError(
                "callbacks.staged_training freezes parameters, for which DDP would wait: "
                "trainer.strategy.find_unused_parameters=true"
            )
        self._stages = self._split(pl_module.net)
        parameters = [p for modules in self._stages for m in modules for p in m.parameters(recurse=False)]
        self._trainable = {id(p) for p in parameters if p.requires_grad}
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        _own_groups(trainer.optimizers[0], schedulers, self._trainable, self.lr_scale)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # At every batch: after a validation Lightning or another callback may have put all into train mode.
        trained = self.num_trained(trainer.current_epoch)
        for number, modules in enumerate(self._stages):
            for module in modules:
                module.training = number < trained
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(number < trained and id(parameter) in self._trainable)

    def _split(self, net: nn.Module) -> list[list[nn.Module]]:
        """Modules that each stage adds, one by one; those of the encoder that no block holds come with the last."""
        modules = dict(net.named_modules())
        for path in [self.encoder, *self.blocks]:
            if path not in modules or not f"{path}.".startswith(f"{self.encoder}."):
                raise ConfigError(
                    f"callbacks.staged_training: {self.encoder!r} has no {path!r}.{nearest(path, modules)}"
                )
        stages = [list(modules[path].modules()) for path in self.blocks]
        named = {id(module) for stage in stages for module in stage}
        stages[-1] += [module for module in modules[self.encoder].modules() if id(module) not in named]
        return stages


def _own_groups(optimizer: Any, schedulers: list[Any], own: set[int], scale: float) -> None:
    """Move parameters into new groups at the end, with a scaled learning rate that the schedules change along."""
    for number, group in enumerate(list(optimizer.param_groups)):
        moved = [p for p in group["params"] if id(p) in own]
        if not moved:
            continue
        group["params"] = [p for p in group["params"] if id(p) not in own]
        rates = {key: scale * group[key] for key in ("lr", "initial_lr") if key in group}
        optimizer.add_param_group({**group, **rates, "params": moved})
        for scheduler in schedulers:
            scheduler.base_lrs.append(scale * scheduler.base_lrs[number])
            if isinstance(scheduler, LambdaLR):
                scheduler.lr_lambdas.append(scheduler.lr_lambdas[number])
