"""The energy meter on counters as Linux shows them."""

from pathlib import Path

import torch

from kd_runner.profiling.energy import EnergyMeter


def count(folder: Path, zone: str, microjoules: int) -> None:
    (folder / zone).mkdir(exist_ok=True)
    (folder / zone / "energy_uj").write_text(f"{microjoules}\n")
    (folder / zone / "max_energy_range_uj").write_text("10000000\n")


def test_packages_add_up_parts_do_not_and_a_counter_may_start_again(tmp_path: Path) -> None:
    for zone, before in {"intel-rapl:0": 9_000_000, "intel-rapl:1": 0, "intel-rapl:0:0": 5}.items():
        count(tmp_path, zone, before)
    meter = EnergyMeter(torch.device("cpu"), tmp_path)
    count(tmp_path, "intel-rapl:0", 1_000_000)  # 1 J to the end of the range, 1 J after
    count(tmp_path, "intel-rapl:1", 500_000)
    assert meter.read() == 2.5
    count(tmp_path, "intel-rapl:1", 700_000)
    assert meter.read() == 2.7


def test_a_platform_that_does_not_tell(tmp_path: Path) -> None:
    assert EnergyMeter(torch.device("cpu"), tmp_path).read() is None
