"""What `pip install .` gives: the command and the configuration, from any folder."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_works_from_any_folder(tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet", "--target"]
    subprocess.run([*install, str(target), str(ROOT)], check=True, capture_output=True)
    assert (target / "kd_runner" / "conf" / "experiment" / "voc_kd.yaml").is_file()
    assert (target / "bin" / "kd-runner").is_file()
    assert 0 < (target / "kd_runner" / "assets" / "voc_kd_mini_teacher.safetensors").stat().st_size < 5e6
    # The checkout is importable too (it is installed in edit mode): the copy must come first.
    environment = {**os.environ, "PYTHONPATH": str(target)}
    code = "import kd_runner, sys; print(kd_runner.__file__); from kd_runner.cli.main import main; main()"
    words = ["--cfg", "job", "-p", "teacher", "--resolve"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout and "assets" in done.stdout


def test_help_and_configuration_import_nothing_heavy(tmp_path: Path) -> None:
    """They answer within a second. `--help` lists every task."""
    code = "import sys\nfrom kd_runner.cli.entry import main\ntry: main()\nexcept SystemExit: pass\n"
    answers = {}
    for words, heavy in ((["--help"], ["torch", "hydra", "omegaconf"]), (["--cfg", "job"], ["torch", "numpy"])):
        check = f"assert not set({heavy}) & set(sys.modules), sys.modules.keys()\n"
        command = [sys.executable, "-c", code + check, *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        answers[words[0]] = done.stdout
    assert "temperature: 4.0" in answers["--cfg"]
    (tasks,) = (line for line in answers["--help"].splitlines() if line.startswith("What is done: task="))
    assert all(file.stem in tasks for file in (ROOT / "conf" / "task").glob("*.yaml"))
    assert "pruning/score: gradient, magnitude, random, taylor" in answers["--help"]
