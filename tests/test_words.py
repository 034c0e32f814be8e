"""The project's words. What has a name in the field carries that name; words of earlier versions do not come back."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The change log and the documentation of errors name old words, a table in cli/arguments.py maps them to the new ones.
MAY_SAY_OLD_WORDS = {
    *("CHANGELOG.md", "docs/config.md", "src/kd_runner/cli/arguments.py"),
    *("tests/test_words.py", "tests/config/test_mistakes.py"),
}
# Words as they must not stand in any text: regular expression -> what to say.
OLD_WORDS = {
    r"\bTappedNet\b": "FeatureExtractor",
    r"\b[Tt]aps?\b|\b[Tt]apped\b": "feature",
    r"\b[Ww]ires?\b|\b[Ww]iring\b|\b[Ww]ired\b": "input, input spec",
    r"\bTrainOrder\b": "ResumableBatchSampler",
    r"\bSeeded\b": "SeededDataset",
    r"\bShard\b": "EvalShardSampler",
    r"\bViews\b": "FixedAugmentations",
    r"\bEpochLine\b": "EpochSummary",
    r"\bStudentFiles\b": "SaveWeights",
    r"\b(Driving|Segmentation|Roi|Scheduled)Pictures\b": "DetectionVisualizer and its kin",
    r"\bGtPaste(Off)?\b": "ObjectSample, DisableObjectSample",
    r"\blook_\d": "cross_attn_0",
    r"\bkept_(mid|high)\b": "kept_heads_mid",
    r"\blines_many\b|\bline_logits_many\b": "lines_one2many",
    r"\bplaced_queries\b": "position_init_queries",
    r"\blaid_out\b": "to_memory_format",
    r"\bgrowing=": "extendable_key=",
    r"that the user can mend": "user-fixable",
    r"What of a net a checkpoint filled": "Result of matching checkpoint tensors to a model",
    r"whosever they were": "FIFO queue of recent embeddings",
    r"away from those of others": "pulls together, pushes apart",
    r"has a say in another": "LayerNorm only: independent of each other",
    r"[Ww]ho sees whom": "attention mask",
    # American spelling.
    r"[Cc]olour": "color",
    r"[Bb]ehaviour": "behavior",
    r"[Nn]eighbour": "neighbor",
    r"[Ff]avour": "favor",
    r"(?i)(normal|quant|initial|minim|maxim|summar|serial|recogn|general|visual|regular|voxel|binar)is[aei]": "-ize",
    r"(?i)(optim|organ)is[ea]": "-ize",
    r"\b[Cc]entre[sd]?\b|_centres?\b|\bcentres?_": "center",
    r"\b[Mm]etres?\b": "meter",
    r"[Ll]abelled|[Ll]abelling|[Mm]odelled|[Mm]odelling|[Tt]ravelled|[Cc]ancelled": "labeled, modeled",
    r"\b[Gg]rey": "gray",
    r"[Aa]rtefact": "artifact",
    r"\b[Dd]istils?\b": "distill",
}  # fmt: skip

# Names that say nothing of what they hold. Variables, arguments, attributes and functions get another.
OLD_NAMES = set(
    "found place ours theirs told begun at share scope wanted pick make once begin blend distills tap taps wire".split()  # noqa: SIM905
)


def texts() -> dict[str, str]:
    """Every text file that git tracks: path -> contents."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    kinds = {".py", ".yaml", ".yml", ".md", ".toml", ".cff", ".svg", ".txt", ""}
    read = {}
    for name in files:
        path = ROOT / name
        if name and path.is_file() and path.suffix in kinds and name not in MAY_SAY_OLD_WORDS:
            try:
                read[name] = path.read_text()
            except UnicodeDecodeError:  # an embedded data file
                continue
    return read


def old_words(text: str) -> list[str]:
    """`line: word (what to say)` of every old word in a text."""
    hits = []
    there = {word: new for word, new in OLD_WORDS.items() if re.search(word, text)}
    for number, line in enumerate(text.splitlines() if there else [], 1):
        for word, new in there.items():
            if match := re.search(word, line):
                hits.append(f"{number}: {match.group()} (say: {new})")
    return hits


def old_names(source: str) -> list[str]:
    """`line: name` of every old name that Python code defines or gives a value."""
    hits = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.arg):
            names = [node.arg]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names = [node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names = [node.attr]
        elif isinstance(node, ast.alias):
            names = [node.asname or ""]
        hits += [f"{getattr(node, 'lineno', 0)}: {name}" for name in names if name.lstrip("_") in OLD_NAMES]
    return hits


def test_all_files_are_read() -> None:
    assert len(texts()) > 300 and {"README.md", "scripts/test", "conf/config.yaml"} <= set(texts())


def test_no_old_word() -> None:
    hits = [f"{name}:{hit}" for name, text in texts().items() for hit in old_words(text)]
    assert hits == []


def test_no_old_name() -> None:
    sources = {name: text for name, text in texts().items() if name.endswith(".py")}
    hits = [f"{name}:{hit}" for name, text in sources.items() for hit in old_names(text)]
    assert hits == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("net = TappedNet(m, taps={})", 2),
        ("A wireframe, a laptop, the Shards", 0),
        ("the centre and the colour", 2),
        ("optimistic, center_distance, labeled", 0),
        ("Errors that the user can mend", 1),
    ],
)
def test_old_words_are_seen(text: str, count: int) -> None:
    assert len(old_words(text)) == count


def test_old_names_are_seen() -> None:
    assert old_names("def make(at, x):\n    found = x.found\n    self.share, y = x\n    f(scope=1)") == [
        "1: make",
        "1: at",
        "2: found",
        "3: share",
    ]
    assert old_names("class Maker:\n    def made(self, x):\n        return x.at[0].place(once=1)") == []
