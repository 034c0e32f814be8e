"""A folder of arrays as a teacher."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_runner.distillation import recording
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.recorded_forms import int8, top_k
from kd_runner.distillation.recorded_teacher import RecordedTeacher, check_views
from kd_runner.errors import ConfigError

SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np

folder = Path(sys.argv[1])
folder.mkdir()
names = ["c", "a", "b"]
logits = np.lib.format.open_memmap(folder / "logits.npy", "w+", np.float16, (3, 4, 2, 2))
for row, name in enumerate(names):
    logits[row] = ord(name)  # here: what the teacher says of the image
logits.flush()
(folder / "recording.json").write_text(json.dumps({
    "outputs": {"logits": {"shape": [4, 2, 2], "dtype": "float16"}},
    "keys": names,
    "source": "a script without torch",
}))
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording that a script without torch has written."""
    path = tmp_path_factory.mktemp("recorded") / "teacher"
    subprocess.run([sys.executable, "-c", SCRIPT, str(path)], check=True)
    return path


def test_rows_are_found_by_name(folder: Path) -> None:
    inputs = {"index": "index", "key": "key"}
    teacher = FeatureExtractor(RecordedTeacher(folder), inputs, {"logits": ":logits"}, "teacher")
    batch = {"index": torch.tensor([0, 1]), "key": ["a", "c"]}
    assert teacher(batch)["logits"][:, 0, 0, 0].tolist() == [ord("a"), ord("c")]
    with pytest.raises(ConfigError, match="sample 'd' is not in"):
        teacher({"index": torch.tensor([0]), "key": ["d"]})
    with pytest.raises(ConfigError, match=r"names its samples; give \{key: key\}"):
        RecordedTeacher(folder)(index=torch.tensor([0]))


def test_without_names_the_index_is_the_row(tmp_path: Path) -> None:
    recording.write(tmp_path, {"logits": np.arange(6.0).reshape(3, 2)})
    teacher = RecordedTeacher(tmp_path)
    assert teacher(index=torch.tensor([2, 0]))["logits"].tolist() == [[4, 5], [0, 1]]
    with pytest.raises(ConfigError, match="3 samples, none of index 3"):
        teacher(index=torch.tensor([3]))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"keys": ["a", "a", "b"]}, "names 'a' twice"),
        ({"keys": ["a", "b"]}, "3 rows for 2 keys"),
        ({"outputs": {"logits": {"shape": [2, 2, 4], "dtype": "float16"}}}, r"\(4, 2, 2\) of float16 .* \(2, 2, 4\)"),
        ({"outputs": {"logits": {"shape": [4, 2, 2], "dtype": "float32"}}}, "float16 for a sample.* float32"),
        ({"outputs": {"logit": {"shape": [4, 2, 2], "dtype": "float16"}}}, "no .*logit.npy"),
        ({"output": {}}, "no such entry 'output'.*'outputs'"),
    ],
)
def test_what_the_json_says_is_checked(folder: Path, tmp_path: Path, change: dict, expected: str) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = json.loads((folder / "recording.json").read_text()) | change
    (tmp_path / "recording.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=expected):
        RecordedTeacher(tmp_path)


def test_sparse_forms_keep_what_they_promise(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 11, 6, 6)).astype(np.float32)
    forms = {"top": "top_k", "small": "int8"}
    recording.write(tmp_path, {"top": logits, "small": logits, "whole": logits}, forms=forms, k=1)
    read = RecordedTeacher(tmp_path)(index=torch.arange(5))
    exact, top = torch.from_numpy(logits).softmax(1), read["top"].softmax(1)
    assert top.argmax(1).equal(exact.argmax(1)) and torch.allclose(top.amax(1), exact.amax(1), atol=2e-3)
    channel = np.abs(logits).max((2, 3))[:, :, None, None]
    assert (np.abs(read["small"].numpy() - logits) <= channel / 254 + 1e-6).all()
    sizes = {name: sum(file.stat().st_size - 128 for file in tmp_path.glob(f"{name}*.npy")) for name in read}
    assert sizes["top"] / sizes["whole"] == pytest.approx(5 / 22)  # 2 x 2 bytes and an index, of 11 x 2 bytes


def test_the_rest_of_top_k_is_the_mean_of_the_others() -> None:
    values, indices = top_k(np.log([[5.0, 1.0, 3.0, 1.0]]), 1)
    assert np.exp(values.astype(np.float32))[0].tolist() == pytest.approx([5, 5 / 3], rel=1e-3)
    assert indices.tolist() == [[0]]
    assert int8(np.array([[[2.0, -4.0]]]))[0].tolist() == [[[64, -127]]]
    with pytest.raises(ValueError, match=r"k=4: 1 \.\. 3"):
        top_k(np.zeros((1, 4)), 4)


def test_random_views_are_refused(folder: Path) -> None:
    class Samples:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
            return {"image": torch.full((2,), float(key[1]))}

    with pytest.raises(ConfigError, match="'image' of training sample 0 looks different"):
        check_views(RecordedTeacher(folder), Samples())
    check_views(RecordedTeacher(folder, any_view=True), Samples())
