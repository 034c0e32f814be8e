"""README and docs: every command composes, every code block runs, the site builds, numbers are those of the records."""

import gc
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file

import kd_runner
from kd_runner.config import entries, validate
from tests.docs.composer import Composer
from tests.docs.markdown import PAGES, ROOT, blocks, commands, overrides

ALL = commands()
RUNNER = {command: page for command, page in ALL.items() if overrides(command) is not None}
OTHERS = {command: page for command, page in ALL.items() if command not in RUNNER}


@pytest.fixture(scope="session")
def my_kd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's folder that the guides describe: every block that begins with `# my_kd/...`."""
    folder = tmp_path_factory.mktemp("guides")
    for block in blocks():
        if block.file is not None:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)  # as a user copies it
    return folder / "my_kd"


@pytest.fixture
def importable(my_kd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(my_kd))


@pytest.fixture(scope="session")
def composer(my_kd: Path) -> Composer:
    gc.collect()
    gc.freeze()  # composing makes many objects; a collection need not walk through those of PyTorch
    return Composer(my_kd)


# A check that a guide makes is made by test_a_guide_works_as_written.
COMPOSED = {
    command: page
    for command, page in RUNNER.items()
    if not (page.startswith("docs/guides/own_") and "task=check" in command.split())
}


@pytest.mark.parametrize("command", COMPOSED, ids=[f"{page}: {command}" for command, page in COMPOSED.items()])
def test_a_command_composes(command: str, composer: Composer, importable: None) -> None:
    """Groups, keys, values, `_target_`s, arguments and feature names of the command are valid."""
    for cfg in composer.configurations(overrides(command) or []):
        OmegaConf.set_struct(cfg, False)
        cfg = cfg.copy()
        del cfg["hydra"]
        if not {"--cfg", "--help", "--info"} & set(command.split()):  # these only show what is composed
            validate.check(entries.clean(cfg))


@pytest.mark.parametrize("command", OTHERS)
def test_another_command_exists(command: str) -> None:
    """Scripts and benchmarks exist and know the flags, extras are declared, folders of tests exist."""
    program, *words = command.split()
    if program == "python" and words[0] == "-m":
        program, words = words[1].replace(".", "/"), words[2:]
        assert (ROOT / "src" / f"{program}.py").is_file()
        return
    if program == "python":
        source = (ROOT / words[0]).read_text()
        for flag in (word for word in words[1:] if word.startswith("--")):
            assert f'"{flag}"' in source, f"{words[0]} has no {flag}"
    elif program.startswith("scripts/"):
        assert os.access(ROOT / program, os.X_OK)
        for path in (word for word in words if word.startswith("tests/")):
            assert (ROOT / path).exists()
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert re.fullmatch(r"'?kd-runner\[(\w+)\]'?", words[1])[1] in extras  # type: ignore[index]
    else:
        assert program == "tensorboard", f"unknown command {command!r}"


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: f"{block.page}: {block.text[:40]!r}")
def test_a_yaml_block_is_valid(block) -> None:
    """It parses; a loss that is shown is the one that ships."""
    content = OmegaConf.create(block.text)
    for name in content if isinstance(content, DictConfig) else ():
        shipped = ROOT / "conf" / "loss" / f"{name}.yaml"
        if block.file is None and shipped.is_file():
            assert content[name] == OmegaConf.load(shipped)[str(name)], f"conf/loss/{name}.yaml is another one"


PYTHON_PAGES = dict.fromkeys(block.page for block in blocks("python") if block.file is None)


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_blocks_run(
    page: str, tmp_path: Path, started: Callable[..., Path], tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order; `compose` gives the tiny task; an ended run is at outputs/voc_kd/my_run if the page reads it."""
    texts = [block.text for block in blocks("python") if block.page == page and block.file is None]
    if any("outputs/voc_kd/my_run" in text for text in texts):
        started(*tiny, "hydra.run.dir=outputs/voc_kd/my_run")
    real = kd_runner.compose
    monkeypatch.setattr(
        kd_runner, "compose", lambda words=(), **more: real([*tiny, "export=none", *words], **more), raising=False
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for text in texts:
        exec(compile(text, page, "exec"), names)


def write_teacher(folder: Path, num_classes: int) -> None:
    """Random weights of the teacher of guides/own_model.md, in the layout that its yaml reads."""
    from torchvision.models.segmentation import deeplabv3_resnet50

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    net = deeplabv3_resnet50(num_classes=num_classes, weights_backbone=None)
    save_file(net.state_dict(), folder / "teacher.safetensors")


def checks_of(page: str) -> list[list[str]]:
    """The words of the commands of a page that say task=check."""
    lists = [overrides(command) or [] for command, where in RUNNER.items() if where == page]
    return [words for words in lists if "task=check" in words]


@pytest.mark.parametrize("page", ["own_loss", "own_model", "own_data", "own_experiment"])
def test_a_guide_works_as_written(
    page: str,
    my_kd: Path,
    tmp_path: Path,
    started: Callable[..., Path],
    tiny: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Its `task=check` commands, with the guide's own files and a tiny data set."""
    (tmp_path / "my_kd").symlink_to(my_kd)
    monkeypatch.chdir(tmp_path)
    more = list(tiny)
    if page == "own_model":
        write_teacher(tmp_path / "outputs/mine/teacher", num_classes=11)
        more = [word for word in tiny if not word.startswith(("++teacher", "teacher", "student"))]
    if page == "own_data":
        write_teacher(tmp_path / "outputs/shapes/teacher", num_classes=3)
        for block in blocks("python"):
            if block.page.endswith("own_data.md") and block.file is None:
                exec(compile(block.text, block.page, "exec"), {})
        more = []
    more.append("export=none")  # half a minute of processor time, and not what these guides are about
    checks = checks_of(f"docs/guides/{page}.md")
    assert checks
    for words in checks:
        started(*more, *words)
        assert "Nothing was kept" in capfd.readouterr().out


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """No broken link or anchor, no missing reference of the API page."""
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "FeatureExtractor" in (tmp_path / "site" / "api" / "index.html").read_text()


def test_links_of_the_readme_exist() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text()):
            assert (ROOT / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", ["README.md", "docs/results/index.md"])
def test_results_are_those_of_the_records(page: str) -> None:
    """Teacher, undistilled, distilled and gain of every row, to the digits that are shown."""
    rows = re.findall(r"^\| \[.*?\]\(([\w/]*?\w+_mini\.md)\)(.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert len(rows) == 5
    for link, row in rows:
        record = (ROOT / page).parent.joinpath(link).read_text()
        shown = re.findall(r"(?<![\w.])[+-]?\d+\.\d+", row.replace("*", ""))
        arms = [
            re.search(rf"^\| {arm} \| ([\d.]+)", record, re.MULTILINE)
            for arm in ("teacher", "undistilled", "distilled")
        ]
        # The first sentence is the headline: the gain over the harder control.
        sentence = r"^\*\*distilled\*\* against \w+(?:, the harder control)?: ([+-][\d.]+) ± ([\d.]+) points"
        gain = re.search(sentence, record, re.MULTILINE)
        assert gain is not None and all(arms)
        expected = [f"{float(arm[1]):.3f}" for arm in arms if arm]
        assert shown[:3] == expected, link
        for text, value in zip(shown[3:5], gain.groups(), strict=True):
            assert abs(float(text) - float(value)) <= 0.0501, link


def test_the_figure_is_that_of_its_script(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "draw_architecture", tmp_path / "new.svg"], check=True)
    assert (tmp_path / "new.svg").read_text() == (ROOT / "docs" / "assets" / "architecture.svg").read_text()


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == version


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES:
        if page.is_relative_to(ROOT / "docs"):
            assert f" {page.relative_to(ROOT / 'docs')}\n" in navigation, page


def test_no_file_names_a_package_registry() -> None:
    hosts = ["py" + "pi.org", "python" + "hosted.org", "anaconda" + ".org", "npm" + "js.org", "hugging" + "face.co"]
    done = subprocess.run(
        ["git", "grep", "-l", *(f"-e{host}" for host in hosts)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == ""
