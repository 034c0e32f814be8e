"""Energy used by the CPU or a GPU, where the platform tells it."""

import time
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules used since the meter was made.

    On a CPU the RAPL counters of all packages, which count every process of the machine and can often be read by root
    alone. On a GPU the power that NVML tells, integrated over time at one sample a second (trapezoids).

    Args:
        device: where the work is done.
        powercap: folder of Linux's power capping framework, with `intel-rapl:<package>/energy_uj` in microjoules.
    """

    def __init__(self, device: torch.device, powercap: Path = POWERCAP):
        self.device, self.total = device, 0.0
        zones = sorted(powercap.glob("intel-rapl:*")) if device.type == "cpu" else []
        self._zones = [zone for zone in zones if zone.name.count(":") == 1]  # a second colon: a part of a package
        self._before = [self._count(zone) for zone in self._zones]
        self._sampled = time.perf_counter()
        self._watts = self._power() if device.type == "cuda" else None

    def read(self) -> float | None:
        """Joules until now; None where the platform does not tell."""
        if self._watts is not None:
            self._sample()
            return self.total
        counts = [self._count(zone) for zone in self._zones]
        if not counts or None in counts or None in self._before:
            return None
        for zone, before, now in zip(self._zones, self._before, counts):
            used = (now or 0) - (before or 0)
            if used < 0:  # the counter has started again at zero
                used += int((zone / "max_energy_range_uj").read_text())
            self.total += used / 1e6
        self._before = counts
        return self.total

    def _sample(self) -> None:
        now = time.perf_counter()
        if now - self._sampled < 1:
            return
        watts, before = self._power() or 0.0, self._watts or 0.0
        self.total += (watts + before) / 2 * (now - self._sampled)
        self._watts, self._sampled = watts, now

    def _power(self) -> float | None:
        """Watts of the GPU; None without NVML."""
        try:
            return torch.cuda.power_draw(self.device) / 1000
        except (ImportError, RuntimeError, AttributeError):
            return None

    @staticmethod
    def _count(zone: Path) -> int | None:
        try:
            return int((zone / "energy_uj").read_text())
        except (OSError, ValueError):
            return None
