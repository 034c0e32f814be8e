"""scripts/records: pages from comparisons; what fails stops no other; remarks stay."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kd_runner.cli import records
from kd_runner.report.record_page import MARKER
from kd_runner.runtime.files import write_json

REPORT = "# run: gains\n\nScale **mini**.\n\n| arm | miou |\n\n![scores](comparison.png)\n\nSettings: `config.yaml`.\n"


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of two records; the comparison of the first leaves what task=record leaves, that of the second fails."""

    def run(command: list[str]) -> int:
        calls.append(command[3:])
        folder = Path(command[-1].partition("=")[2])
        if "experiment=b" in command:
            return 1
        run_folder = folder / "seed0_distilled"
        run_folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.md").write_text(REPORT)
        (folder / "comparison.png").write_bytes(b"plot")
        (run_folder / "pictures.png").write_bytes(b"pictures")
        write_json(folder / "status.json", {"status": "ended", "seconds": 3725.0})
        write_json(run_folder / "status.json", {"status": "ended", "seconds": 60.0})
        return 0

    calls: list[list[str]] = []
    monkeypatch.setattr(records, "run_command", run)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "docs"
    folder.mkdir()
    content = {
        name: {"words": [f"experiment={name}"], "seeds": [0, 1], "chosen": "On the train split."} for name in "ab"
    }
    OmegaConf.save(OmegaConf.create(content), folder / "records.yaml")
    monkeypatch.setattr(records, "calls", calls, raising=False)
    return folder


def test_pages_are_written_remarks_stay_and_a_failure_stops_no_other(docs: Path) -> None:
    (docs / "a.md").write_text(f"# a\n\nA remark.\n\n{MARKER}\n\nan old record\n")
    assert records.main(["--file", str(docs / "records.yaml")]) == 1
    page = (docs / "a.md").read_text()
    assert page.startswith(f"# a\n\nA remark.\n\n{MARKER}\n\n`python -m kd_runner experiment=a task=record")
    assert "1 h 2 min 5 s (1 min of runs" in page and "On the train split." in page and "an old record" not in page
    assert "![scores](a.png)" in page and "(a_pictures.png)" in page and "Settings:" not in page
    assert (docs / "a.png").read_bytes() == b"plot" and not (docs / "b.md").exists()
    assert [call[0] for call in records.calls] == ["experiment=a", "experiment=b"]
    assert records.calls[0][-1] == "hydra.run.dir=outputs/records/a"


def test_other_words_and_seeds_are_another_run_and_names_are_checked(docs: Path) -> None:
    words = ["a", "--file", str(docs / "records.yaml"), "--seeds", "5", "--docs", "pages", "--", "trainer.max_epochs=1"]
    assert records.main(words) == 0
    (call,) = records.calls
    assert call[1:4] == ["task=record", "seeds=[5]", "trainer.max_epochs=1"] and "records/a_" in call[-1]
    assert Path("pages/a.md").read_text().startswith("# run: gains\n")
    (docs / "a.md").write_text("# a\n\nno marker\n")
    assert records.main(["a", "--file", str(docs / "records.yaml")]) == 1 and len(records.calls) == 1
    with pytest.raises(SystemExit):
        records.main(["c", "--file", str(docs / "records.yaml")])


def test_a_stop_reaches_the_comparison(tmp_path: Path) -> None:
    """On SIGTERM the program under way is told too, and waited for."""
    child = "import signal, sys, time; signal.signal(15, lambda *_: (open('told', 'w'), sys.exit(0)));"
    child += "open('ready', 'w'); time.sleep(60)"
    code = f"import sys; from kd_runner.cli.records import run_command; run_command([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait(timeout=30) == 143 and (tmp_path / "told").exists()
