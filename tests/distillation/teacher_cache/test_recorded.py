"""The recorded teacher: the real one's answers, each asked for once, and an error where they are stale."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.net_transforms import TokensToMap
from kd_runner.distillation.teacher_cache import identity
from kd_runner.distillation.teacher_cache.recorded import RecordedTeacher
from kd_runner.errors import ConfigError

NAMES = ["across", "logits", "map", "views", "best"]


class Net(nn.Module):
    """Counts the samples that it is asked for. `views` has three rows a sample, as a net of several cameras."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.asked = nn.Conv2d(3, 4, 3), 0

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        self.asked += len(image)
        x = self.conv(image)
        logits = x.mean((2, 3))
        return {"logits": logits, "map": x, "views": x.repeat_interleave(3, 0), "best": logits.argmax(1),
                "total": x.sum(), "across": logits.T, "mixed": logits.T @ logits, "huge": x * 1e6}  # fmt: skip


def teacher() -> FeatureExtractor:
    torch.manual_seed(0)
    return FeatureExtractor(
        Net().eval(), {"image": "image"}, {n: f":{n}" for n in (*NAMES, "total", "mixed", "huge")}, "t"
    )


def batch(*index: int) -> dict[str, Tensor]:
    images = [torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(i)) for i in index]
    return {"image": torch.stack(images), "index": torch.tensor(index)}


def recorded(folder: Path, names: list[str] = NAMES, state: dict[str, Any] | None = None, **options: Any):
    net = options.pop("teacher", None) or teacher()
    return RecordedTeacher(net, names, folder, {"weights": identity.weights(net.net)}, state or {}, 10, **options)


@torch.no_grad()
def test_the_answers_are_the_teachers(tmp_path: Path) -> None:
    kept, real = recorded(tmp_path, map_dtype="float32"), teacher()
    for samples in (batch(3, 1), batch(1, 7, 3), batch(7, 2)):
        stored, expected = kept(samples, NAMES), real(samples, NAMES)
        for name in NAMES:
            assert stored[name].dtype == expected[name].dtype
            torch.testing.assert_close(stored[name], expected[name], rtol=1e-6, atol=1e-6)
    assert (kept.computed, kept.read) == (4, 3)


@torch.no_grad()
def test_every_sample_is_asked_for_once_and_four_again(tmp_path: Path) -> None:
    first = recorded(tmp_path)
    for _ in range(3):
        for i in range(0, 10, 2):
            first(batch(i, i + 1), NAMES)
    assert first.computed == 10 and first.teacher.net.asked == 1 + 2 + 10 + 4  # shapes of one and two; four to compare
    second = recorded(tmp_path)
    answers = second(batch(*range(10)), NAMES)
    assert second.folder == first.folder and second.computed == 0 and second.teacher.net.asked == 4
    for name, value in first(batch(*range(10)), NAMES).items():
        assert torch.equal(value, answers[name])


@torch.no_grad()
def test_float16_is_close_and_what_it_cannot_hold_an_error(tmp_path: Path) -> None:
    stored, exact = recorded(tmp_path)(batch(1, 2), NAMES), teacher()(batch(1, 2), NAMES)
    assert torch.equal(stored["logits"], exact["logits"]) and not torch.equal(stored["map"], exact["map"])
    torch.testing.assert_close(stored["map"], exact["map"], rtol=5e-4, atol=1e-6)
    with pytest.raises(ConfigError, match=r"map_dtype: teacher.huge reaches .*use float32"):
        recorded(tmp_path, ["huge"])(batch(1, 2), ["huge"])
    assert recorded(tmp_path, ["huge"], map_dtype="float32")(batch(1, 2), ["huge"])["huge"].abs().max() > 65504


@pytest.mark.parametrize(("name", "message"), [("total", "a scalar"), ("mixed", "a dimension of the samples")])
def test_outputs_that_are_not_per_sample_are_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message), torch.no_grad():
        recorded(tmp_path, [name])(batch(1, 2), [name])


@torch.no_grad()
def test_other_weights_are_another_folder_and_other_files_an_error(tmp_path: Path) -> None:
    recorded(tmp_path, state={"data.root": {"files": 3}})(batch(1), NAMES)
    with pytest.raises(ConfigError, match=r"state.data.root.files: 3 then, 4 now.*Delete it"):
        recorded(tmp_path, state={"data.root": {"files": 4}})(batch(1), NAMES)
    other = teacher()
    other.net.conv.bias.data += 0.5
    assert recorded(tmp_path, teacher=other).folder != recorded(tmp_path).folder


@torch.no_grad()
def test_what_the_teacher_no_longer_says_is_an_error(tmp_path: Path) -> None:
    """Pixels that changed although name, size and time of the file did not."""
    recorded(tmp_path)(batch(1, 2), NAMES)
    changed = batch(1, 2)
    changed["image"][1] += 0.3
    with pytest.raises(ConfigError, match=r"of sample 2 is off by .*Delete that folder"):
        recorded(tmp_path)(changed, NAMES)


@torch.no_grad()
def test_a_view_is_a_row_of_its_own(tmp_path: Path) -> None:
    kept = recorded(tmp_path, views=2)
    plain, flipped = batch(1, 2), batch(1, 2)
    flipped["image"] = flipped["image"].flip(3)
    for view, samples in enumerate((plain, flipped, plain)):
        samples["view"] = torch.full((2,), view % 2)
        torch.testing.assert_close(kept(samples, ["logits"])["logits"], teacher()(samples, ["logits"])["logits"])
    assert kept.computed == 4


@torch.no_grad()
def test_stored_tokens_of_a_vit_are_the_live_ones_and_a_mirrored_row_is_refused(tmp_path: Path) -> None:
    """A ViT is not exact under mirroring: the map of a mirrored image is not the mirrored map."""
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=24, num_heads=2)
    net = FeatureExtractor(
        vit.eval(), {"x": "image"}, {"tokens": "norm"}, "teacher", transforms={"tokens": TokensToMap()}
    )
    torch.nn.init.normal_(vit.pos_embed, std=1.0)  # positions matter, as they do in a trained net
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    samples = {"image": image, "index": torch.tensor([0, 1])}
    live = net(samples)["tokens"]
    recorded(tmp_path, ["tokens"], teacher=net)(samples, ["tokens"])
    stored = recorded(tmp_path, ["tokens"], teacher=net)(samples, ["tokens"])["tokens"]  # float16, read back
    assert stored.shape == (2, 24, 4, 4) and not torch.equal(stored, live)
    assert float(torch.cosine_similarity(stored, live, dim=1).min()) >= 0.9999
    mirrored = {**samples, "image": image.flip(3)}
    assert float(torch.cosine_similarity(stored.flip(3), net(mirrored)["tokens"], dim=1).mean()) < 0.99
    with pytest.raises(ConfigError, match="the teacher's tokens of sample 0 is off by"):
        recorded(tmp_path, ["tokens"], teacher=net)(mirrored, ["tokens"])


def test_the_state_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "a"
    file.write_bytes(b"123")
    before = identity.files(tmp_path)
    (tmp_path / ".hidden").write_bytes(b"")
    assert identity.files(tmp_path) == before and before["files"] == 1 and before["bytes"] == 3
    file.write_bytes(b"1234")
    assert {line.split(":")[0] for line in identity.differences(before, identity.files(tmp_path))} == {"bytes", "state"}


@torch.no_grad()
def test_a_change_in_mid_training_shows_at_the_next_check(tmp_path: Path) -> None:
    kept, changed = recorded(tmp_path), batch(1, 2)
    for _ in range(3):  # written, and then twice compared
        kept(batch(1, 2), NAMES)
    changed["image"] += 0.3
    kept(changed, NAMES)  # four have been compared: what is stored is believed
    kept.check_again()
    with pytest.raises(ConfigError, match="is off by"):
        kept(changed, NAMES)
