"""scripts/run_all: the systems that there are, one after the other, whatever one of them does; then the page."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_all"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script beside a Python that writes down what it is asked for, and fails at orion_kd."""
    for folder in ("scripts", ".venv/bin", "conf/experiment"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "scripts")
    (tmp_path / "scripts" / "env").write_text('cd "$(dirname "${BASH_SOURCE[0]}")/.."\n')
    for name in ("voc_kd", "orion_kd"):
        (tmp_path / "conf" / "experiment" / f"{name}.yaml").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/usr/bin/env bash\necho "$@" >> calls\n[[ "$*" != *experiment=orion_kd* ]]\n')
    python.chmod(0o755)
    return tmp_path


def call(checkout: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    done = subprocess.run([checkout / "scripts" / "run_all", *words], cwd="/", capture_output=True, text=True)
    return done, (checkout / "calls").read_text().splitlines()


def test_a_system_that_fails_stops_no_other_and_is_told(checkout: Path) -> None:
    done, (voc, orion, page) = call(checkout, "--seeds", "0,1,2")
    assert done.returncode == 1 and "failed: orion_kd" in done.stderr
    folders = [f"outputs/{name}/all_seeds_0_1_2" for name in ("voc_kd", "orion_kd")]
    assert voc == f"-m kd_runner experiment=voc_kd task=compare seeds=[0,1,2] hydra.run.dir={folders[0]}"
    assert orion.endswith(folders[1]) and page.startswith(f"-m kd_runner.cli.gather {folders[0]} {folders[1]} --out")


def test_other_words_are_another_run(checkout: Path) -> None:
    (checkout / "conf" / "experiment" / "orion_kd.yaml").unlink()
    first, _ = call(checkout)
    _, calls = call(checkout, "trainer.max_epochs=2")
    assert first.returncode == 0 and calls[0].endswith("hydra.run.dir=outputs/voc_kd/all_seeds_0")
    assert "hydra.run.dir=outputs/voc_kd/all_seeds_0_" in calls[2] and calls[2].endswith(" trainer.max_epochs=2")
