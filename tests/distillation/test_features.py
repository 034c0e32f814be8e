"""Features by module path, from nets that return anything."""

from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.errors import ConfigError


class Times(nn.Module):
    """Multiplies; packs the product the way it is told."""

    def __init__(self, factor: float, pack: Any = lambda x: x):
        super().__init__()
        self.factor, self.pack = factor, pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(self.factor * x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain = Times(2)
        self.pair = Times(3, lambda x: (x, -x))
        self.list = Times(5, lambda x: [x, -x])
        self.dict = Times(7, lambda x: {"a": x, "b": -x})
        self.nested = Times(11, lambda x: {"levels": [(x, -x)], 0: x})
        self.number = Times(13, lambda x: {"loss": 1.0})
        self.blocks = nn.ModuleList([Times(17), nn.Sequential(Times(19))])
        self.unused = Times(0)
        self.alias = self.plain

    def forward(self, image: Tensor, scale: Tensor | None = None) -> dict[str, Any]:
        for name in ("plain", "pair", "list", "dict", "nested", "number"):
            getattr(self, name)(image)
        for block in self.blocks:
            block(image)
        return {"out": 23 * image, "all": [29 * image], "scale": scale}


BATCH = {"image": torch.ones(1), "target": torch.zeros(1)}


def extractor(**features: str) -> FeatureExtractor:
    return FeatureExtractor(Net(), inputs={"image": "image"}, features=features, role="student")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("plain", 2), ("alias", 2), ("pair:0", 3), ("pair:1", -3), ("pair:-1", -3), ("list:1", -5), ("dict:b", -7),
        ("nested:levels.0.1", -11), ("nested:0", 11), ("blocks.0", 17), ("blocks.1.0", 19), (":out", 23),
        (":all.0", 29),
    ],
)  # fmt: skip
def test_a_path_gives_its_tensor(path: str, value: float) -> None:
    assert extractor(x=path)(BATCH, ["x"])["x"].item() == value


def test_only_what_is_asked_for_is_given() -> None:
    """A feature that nobody reads cannot fail either."""
    net = extractor(low="plain", mid="pair:0", logits=":out", broken=":all.5", silent="unused")
    assert net(BATCH, ["low", "logits"]).keys() == {"low", "logits"}
    assert net(BATCH, []) == {}


def test_a_net_that_returns_a_tensor_is_tapped_by_a_colon() -> None:
    net = FeatureExtractor(Times(3), inputs={"x": "image"}, features={"logits": ":"}, role="student")
    assert net(BATCH, ["logits"])["logits"].item() == 3


def test_inputs_are_passed_by_the_argument_names_of_the_net() -> None:
    net = FeatureExtractor(Net(), {"image": "picture", "scale": "size"}, {"scale": ":scale"}, "student")
    assert net({"picture": torch.ones(1), "size": torch.tensor(0.5)}, ["scale"])["scale"].item() == 0.5


def test_a_module_that_runs_twice_gives_its_last_output() -> None:
    layer = Times(2)
    net = FeatureExtractor(nn.Sequential(layer, layer), {"input": "image"}, {"x": "0"}, "student")
    assert net(BATCH, ["x"])["x"].item() == 4


def test_gradients_flow_through_a_tap() -> None:
    image = torch.ones(1, requires_grad=True)
    extractor(x="dict:b")({"image": image}, ["x"])["x"].backward()
    assert image.grad.item() == -7


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("plian", "student.features.x: the net has no module 'plian'. Did you mean 'plain'?"),
        ("net.blocks.0", "student.features.x: the net has no module 'net.blocks.0'. Did you mean 'blocks.0'?"),
    ],
)
def test_a_misspelt_module_gets_the_nearest_at_once(path: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        extractor(x=path)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("blocks", "module 'blocks' exists but is never called .* container; 'blocks.1' inside it did run"),
        ("unused", "module 'unused' exists but is never called in the forward pass"),
        ("dict", "returns a mapping; choose one with ':a'. It has a, b"),
        ("dict:aa", "no entry 'aa'. Did you mean 'a'"),
        ("pair", "returns a tuple of 2; choose one with ':0'"),
        ("list:2", "a list of 2 has no item '2'"),
        ("pair:first", "a tuple of 2 has no item 'first'"),
        ("plain:out", "a Tensor has no item 'out'"),
        (":uot", "no entry 'uot'. Did you mean 'out'"),
        (":", "returns a mapping; choose one with ':out'"),
        (":all", "returns a list of 1"),
        ("number:loss", "a float, not a tensor"),
        (":scale", "a NoneType, not a tensor"),
    ],
)
def test_a_feature_that_gives_no_tensor_says_why(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^student\.features\.x.*{message}"):
        extractor(x=path)(BATCH, ["x"])


def test_a_name_that_is_no_tap_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"student\.features has no 'logit', .* Did you mean 'logits'"):
        extractor(logits=":out")(BATCH, ["logit"])


def test_an_input_that_the_batch_lacks_is_told_the_nearest() -> None:
    net = FeatureExtractor(Net(), {"image": "images"}, {"x": "plain"}, "teacher")
    with pytest.raises(ConfigError, match=r"teacher\.inputs\.image: the batch has no 'images'. Did you mean 'image'"):
        net(BATCH, ["x"])


@pytest.mark.parametrize(
    "features", [{"x": "plain", "y": ":out"}, {"x": "plain", "y": "pair"}, {"x": "plain", "y": "unused"}]
)
def test_no_hook_is_left_behind(features: dict[str, str]) -> None:
    """Nor after an exception: in a hook (y is a tuple), or after the pass (y is never called)."""
    net = extractor(**features)
    try:
        net(BATCH, ["x", "y"])
    except ConfigError:
        assert features["y"] != ":out"
    assert not any(m._forward_hooks for m in net.net.modules())


def test_no_hook_is_left_behind_when_the_net_itself_fails() -> None:
    net = extractor(x="plain")
    with pytest.raises(TypeError):
        net({"image": None}, ["x"])
    assert not any(m._forward_hooks for m in net.net.modules())


@pytest.mark.parametrize(("batch", "names"), [(BATCH, ["x", "z"]), ({}, ["x"])])
def test_no_hook_is_left_behind_when_a_name_is_wrong(batch: dict[str, Tensor], names: list[str]) -> None:
    net = extractor(x="plain")
    with pytest.raises(ConfigError):
        net(batch, names)
    assert not any(m._forward_hooks for m in net.net.modules())


def test_the_net_stays_a_plain_one() -> None:
    plain = nn.Sequential(nn.Linear(2, 2))
    net = FeatureExtractor(plain, {"input": "image"}, {"x": "0"}, "student")
    assert net.net is plain and list(net.net.state_dict()) == ["0.weight", "0.bias"]


class InPlace(nn.Module):
    """A convolution's output, changed in place by the ReLU behind it."""

    def __init__(self, inplace: bool):
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, 2, 1), nn.ReLU(inplace=inplace)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(image))


@pytest.mark.parametrize("grad", [True, False])
def test_a_feature_that_a_later_module_changes_in_place_is_refused(grad: bool) -> None:
    image = {"image": torch.randn(1, 1, 4, 4)}
    with torch.set_grad_enabled(grad):
        net = FeatureExtractor(InPlace(True), {"image": "image"}, {"x": "conv", "y": "act"})
        assert net(image, ["y"])["y"].min() >= 0
        with pytest.raises(ConfigError, match=r"student\.features\.x \(conv\): a later module changes this output"):
            net(image, ["x"])
        FeatureExtractor(InPlace(False), {"image": "image"}, {"x": "conv"})(image, ["x"])


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant: bool):
        super().__init__()
        self.stem, self.body, self.use_reentrant = nn.Linear(2, 2), nn.Linear(2, 2), use_reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.utils.checkpoint.checkpoint(self.body, self.stem(x), use_reentrant=self.use_reentrant)


def test_a_feature_without_gradient_is_refused_in_training() -> None:
    batch = {"x": torch.randn(3, 2)}
    net = FeatureExtractor(Checkpointed(True), {"x": "x"}, {"x": "body"})
    with pytest.raises(ConfigError, match=r"student\.features\.x \(body\): it is computed without gradients"):
        net(batch, ["x"])
    with torch.no_grad():
        assert net(batch, ["x"])["x"].shape == (3, 2)
    net.net.eval()
    net(batch, ["x"])
    free = FeatureExtractor(Checkpointed(False), {"x": "x"}, {"x": "body"})
    free(batch, ["x"])["x"].sum().backward()
    assert free.net.body.weight.grad is not None


class Refuses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("size: 3 is too small")


def test_what_a_net_refuses_in_its_own_words_is_one_message() -> None:
    with pytest.raises(ConfigError, match=r"^teacher\.net: size: 3 is too small$"):
        FeatureExtractor(Refuses(), inputs={"x": "x"}, features={}, role="teacher")({"x": torch.zeros(1)})
