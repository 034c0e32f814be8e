"""What training costs: seconds, the teacher's part of them, samples, energy."""

import time
from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback

from kd_runner.profiling.energy import EnergyMeter

PROCESSOR, WALL = "processor", "wall"


class TrainingCost(Callback):
    """Measures the optimizer steps of a run; its state is in every checkpoint, so that a resumed run adds up.

    Seconds are processor time of this process on a CPU, where other runs may share the cores, and wall time on a GPU
    or where data come from loader processes. Loading data, both nets, losses and the optimizer count; validation,
    checkpoints and what else is done between epochs do not. Steps that were lost when a run was stopped count once.

    Attributes:
        cost: `clock` (`processor` or `wall`), `seconds`, `teacher_seconds` (its forward passes), `steps`,
            `total_steps` (when training ends), `samples` (labeled and unlabeled), `joules` (None where unknown).
    """

    def __init__(self) -> None:
        self.cost: dict[str, Any] = {
            **{"clock": PROCESSOR, "seconds": 0.0, "teacher_seconds": 0.0, "steps": 0, "total_steps": 0, "samples": 0},
            "joules": None,
        }
        self._since, self._step = 0.0, 0
        self._joules: float | None = None
        self._meter: EnergyMeter | None = None
        self._hooks: list[Any] = []
        self._called, self._active = 0.0, False
        self._events: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @property
    def result(self) -> dict[str, Any]:
        """For `metrics.json`."""
        return {"training_cost": dict(self.cost)} if self.cost["steps"] else {}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.cost)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.cost |= state_dict

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        device = pl_module.device
        on_cpu = device.type == "cpu" and not getattr(trainer.datamodule, "num_workers", 0)
        self.cost["clock"] = PROCESSOR if on_cpu else WALL
        self.cost["total_steps"] = int(trainer.estimated_stepping_batches)
        self._step, self._meter = trainer.global_step, EnergyMeter(device)
        self._watch(pl_module.teacher, device)
        self._start()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._start()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._active = False

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._start()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now, joules = self._now(), self._meter.read() if self._meter is not None else None
        self.cost["seconds"] += now - self._since
        if joules is not None:
            self.cost["joules"] = (self.cost["joules"] or 0.0) + joules - (self._joules or 0.0)
        self._since, self._joules = now, joules
        self.cost["samples"] += len(next(iter(batch.values()))) * trainer.world_size
        self.cost["steps"] += trainer.global_step - self._step
        self._step = trainer.global_step
        self._read_events()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._events:
            torch.cuda.synchronize()
            self._read_events()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _start(self) -> None:
        self._active = True
        self._since = self._now()
        self._joules = self._meter.read() if self._meter is not None else None

    def _now(self) -> float:
        return time.process_time() if self.cost["clock"] == PROCESSOR else time.perf_counter()

    def _watch(self, teacher: Any, device: torch.device) -> None:
        """Measure the teacher's forward passes: on a GPU by events, which do not make the host wait."""
        if teacher is None:
            return
        before, after = (self._record, self._record_end) if device.type == "cuda" else (self._call, self._return)
        self._hooks = [
            teacher.net.register_forward_pre_hook(before),
            teacher.net.register_forward_hook(after, always_call=True),
        ]

    def _call(self, *_: Any) -> None:
        self._called = self._now()

    def _return(self, *_: Any) -> None:
        if self._active:
            self.cost["teacher_seconds"] += self._now() - self._called

    def _record(self, *_: Any) -> None:
        if self._active:
            self._events.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
            self._events[-1][0].record()

    def _record_end(self, *_: Any) -> None:
        if self._active:
            self._events[-1][1].record()

    def _read_events(self) -> None:
        while self._events and self._events[0][1].query():
            started, ended = self._events.popleft()
            self.cost["teacher_seconds"] += started.elapsed_time(ended) / 1000
