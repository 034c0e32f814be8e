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


def test_help_and_configuration_import_no_torch(tmp_path: Path) -> None:
    """They answer in a second, since nothing heavy is imported."""
    code = (
        "import sys\nfrom kd_runner.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'lightning', 'numpy'} & set(sys.modules), sys.modules.keys()\n"
    )
    for words in (["--help"], ["--cfg", "job"]):
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "kd" in done.stdout
