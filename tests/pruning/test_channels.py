"""Coupled channels of any net: found by tracing, cut exactly, rebuilt from JSON without a trace."""

import copy
from functools import cache

import pytest
import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from kd_runner.models.bevfusion.second import SECOND, SECONDFPN
from kd_runner.models.hierarchical_unet.roi_unet import ROIUNet
from kd_runner.models.segmentation.mobilenet_v3_aspp import MobileNetV3ASPP
from kd_runner.pruning import spec as specs
from kd_runner.pruning.budget import Budget
from kd_runner.pruning.channels import expand, to_runs
from kd_runner.pruning.layout import Layout, find_units
from kd_runner.pruning.masks import masked
from kd_runner.pruning.prune import prune
from kd_runner.pruning.scores import Gradient, Magnitude, Random, Taylor
from kd_runner.pruning.surgery import cut
from kd_runner.pruning.trace import Traced


class Everything(nn.Module):
    """A residual sum, concatenation, split, depthwise and transposed convolution, a flattened map and a LayerNorm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.block = nn.Sequential(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.PReLU(6), nn.Conv2d(6, 8, 3, padding=1))
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU())
        self.split = nn.Conv2d(8, 10, 1)
        self.first, self.second = nn.Conv2d(5, 5, 1), nn.Conv2d(5, 5, 1)
        self.up = nn.ConvTranspose2d(18, 7, 2, stride=2)
        self.norm = LayerNorm2d(7)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.head = nn.Linear(7 * 4, 4)
        self.dense = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.stem(image)
        x = self.depthwise(x + self.block(x))
        left, right = self.split(x).chunk(2, 1)
        joined = torch.cat((self.first(left), x, self.second(right)), 1)
        y = F.relu(self.norm(self.up(joined)))
        return {"scores": self.head(F.adaptive_avg_pool2d(y, 2).flatten(1)), "map": self.dense(self.grouped(x))}


NETS = {
    "everything": (Everything, (3, 8, 8)),
    "mobilenet_v3_aspp": (
        lambda: MobileNetV3ASPP(5, width_mult=0.25, aspp_channels=8, skip_channels=4, aspp_rates=[1]), (3, 32, 32)
    ),
    "roi_unet": (lambda: ROIUNet(4, 4), (4, 10, 7)),
    "second": (lambda: nn.Sequential(SECOND(4, [6, 8], [1, 1], [1, 2]), SECONDFPN([6, 8], [5, 5], [1, 2])), (4, 8, 8)),
}  # fmt: skip


def build(name: str = "everything") -> tuple[nn.Module, Tensor]:
    return copy.deepcopy(_build(name))


@cache
def traced() -> Layout:
    net, x = build()
    return Traced().layout(net, (x,))


@cache
def _build(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    construct, shape = NETS[name]
    net = construct().double().eval()
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.is_floating_point():
            tensor.data += 0.2 * torch.rand_like(tensor)
    return net, torch.randn(2, *shape, dtype=torch.float64)


def outputs(net: nn.Module, x: Tensor) -> Tensor:
    values = net(x)
    values = list(values.values()) if isinstance(values, dict) else [values] if isinstance(values, Tensor) else values
    return torch.cat([y.flatten(1) for y in values], 1)


def half(net, layout, seed=0):
    generator = torch.Generator().manual_seed(seed)
    units = find_units(net, layout, "channels")
    return {
        "channels": {g: torch.randperm(u.count, generator=generator)[: u.count // 2].tolist() for g, u in units.items()}
    }


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_a_cut_net_equals_the_masked_one_and_comes_back_from_json(name):
    net, x = build(name)
    layout = Traced().layout(net, (x[:1],))
    kept = half(net, layout)
    masks = {"channels": {g: torch.zeros(layout.channels[g]["of"], dtype=x.dtype) for g in layout.channels}}
    for group, indices in kept["channels"].items():
        masks["channels"][group][indices] = 1
    whole, before = outputs(net, x), sum(p.numel() for p in net.parameters())
    with masked(net, layout, masks):
        expected = outputs(net, x)
    assert (expected - whole).abs().max() > 1e-3 * whole.abs().max()
    spec = specs.narrowed(specs.whole(net, layout), kept)
    cut(net, layout, kept)
    torch.testing.assert_close(outputs(net, x), expected, rtol=0, atol=1e-9 * expected.abs().max().item())
    assert sum(p.numel() for p in net.parameters()) < 0.6 * before
    again, _ = build(name)
    specs.apply(again, specs.loads(specs.dumps(spec), "spec")).load_state_dict(net.state_dict())
    assert torch.equal(outputs(again, x), outputs(net, x))


def test_what_is_coupled_is_one_group_and_outputs_keep_their_width():
    layout = traced()
    # A grouped convolution reads the stem, its residual and the depthwise layer, so they stay. So does what `split`
    # makes, whose halves the library takes one for the other. `head` and `dense` make the outputs.
    assert {name: group["of"] for name, group in layout.channels.items()} == {
        "block.0": 6, "first": 5, "second": 5, "up": 7,
    }  # fmt: skip
    members = {m["tensor"]: m["runs"] for m in layout.channels["second"]["members"]}
    assert members["up.weight"] == [[0, 13, 5, 1]]
    assert {m["tensor"]: m["runs"] for m in layout.channels["up"]["members"]}["head.weight"] == [[0, 0, 7, 4]]


def test_layers_keep_and_features_hold_their_width():
    net, x = build()
    assert set(Traced(layers=["block", "up"]).layout(net, (x,)).channels) == {"block.0", "up"}
    assert "first" not in Traced(keep=["first"]).layout(net, (x,)).channels
    assert "block.0" not in Traced().layout(net, (x,), features=["block.1"]).channels
    net.second.weight.requires_grad_(False)
    assert "second" not in Traced().layout(net, (x,)).channels
    with pytest.raises(ValueError, match=r"layout\.keep: 'fist' matches no module\. Did you mean 'first'"):
        Traced(keep=["fist"]).layout(net, (x,))


class Sums(nn.Module):
    """What a trace does not see: a mean over the channels."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).relu()
        return self.three(self.two(x)) + x.detach().mean(1, keepdim=True)


def test_channels_whose_cut_is_not_exact_keep_their_width():
    net, x = Sums().eval(), torch.randn(1, 3, 4, 4)
    assert set(Traced().layout(net, (x,)).channels) == {"two"}


class Expanded(nn.Module):
    """Two layers that must have the same width, which a trace does not see either."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three, self.four = (nn.Conv2d(n, m, 1) for n, m in ((3, 8), (3, 8), (16, 8), (8, 2)))

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        return self.four(self.three(torch.cat((one, self.two(x.mean((2, 3), keepdim=True)).expand_as(one)), 1)))


def test_channels_whose_numbers_are_tied_keep_their_width():
    assert set(Traced().layout(Expanded().eval(), (torch.randn(1, 3, 4, 4),)).channels) == {"three"}


def test_a_net_that_cannot_be_traced_is_named():
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no autograd here")

    with pytest.raises(ValueError, match="Broken cannot be traced: no autograd here"):
        Traced(layers=[]).layout(Broken(), (torch.ones(1, 1),))
    with pytest.raises(ValueError, match="no channels of Linear can be cut"):
        Traced(layers=[]).layout(nn.Linear(2, 2), (torch.ones(1, 2),))


@pytest.mark.parametrize("score", [Magnitude(), Gradient(), Taylor(), Random()], ids=lambda s: type(s).__name__)
def test_every_score_prunes_in_rounds_with_the_optimizer(score):
    net, x = build()
    optimizer = torch.optim.AdamW(net.train().parameters())
    outputs(net, x).square().mean().backward()
    optimizer.step()
    layout = traced()
    spec = None
    for fraction in (0.5, 1.0):
        spec = prune(
            net, layout=layout, score=score, channels=Budget(0.5), fraction=fraction, spec=spec, optimizer=optimizer,
            loss=lambda image: outputs(net, image).square().mean(), batches=[x],
        )  # fmt: skip
    assert {g: len(e["kept"]) for g, e in spec["channels"].items()} == {"block.0": 3, "first": 3, "second": 3, "up": 4}
    assert {id(p) for p in optimizer.state} == {id(p) for p in net.parameters()}
    assert all(s["exp_avg"].shape == p.shape for p, s in optimizer.state.items())
    outputs(net, x).mean().backward()
    optimizer.step()


def test_scores_of_a_channel_by_hand():
    """Two readers, one sample: Taylor is |sum over both of input * gradient|, which is the gradient of a factor."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)).double()
    net[0].weight.data = torch.tensor([2.0, -3.0]).view(2, 1, 1, 1).double()
    net[1].weight.data = torch.tensor([5.0, 1.0]).view(1, 2, 1, 1).double()
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    layout = Traced().layout(net, (x,))
    for score, expected in ((Taylor(), [10.0, 3.0]), (Gradient(), [10.0, 3.0]), (Magnitude(), [10**0.5, 3**0.5])):
        scores = score(net, layout, loss=lambda batch: net(batch).sum(), batches=[x])
        assert scores["channels"]["0"].tolist() == pytest.approx(expected)


def test_another_spec_of_other_widths_takes_a_state_dict_of_its_own():
    (net, x), (other, _) = build(), build()
    layout = traced()
    current = prune(net, layout=layout, score=Random(1), channels=Budget(0.5))
    target = prune(other, layout=layout, score=Random(2), channels=Budget(0.3))
    specs.reshape(net, current, target)
    net.load_state_dict(other.state_dict())
    assert torch.equal(outputs(net, x), outputs(other, x))


def test_reshaping_keeps_the_weights_of_channels_that_are_in_both():
    net, x = build()
    layout = traced()
    whole = specs.whole(net, layout)
    target = specs.narrowed(whole, {"channels": {"first": [1, 3], "second": [0, 4]}})
    expected = copy.deepcopy(net)
    cut(expected, layout, {"channels": {"first": [1, 3], "second": [0, 4]}})
    specs.reshape(net, whole, target)
    assert torch.equal(outputs(net, x), outputs(expected, x))


def test_runs():
    pairs = [(3, 0), (4, 1), (5, 2), (8, 0), (9, 0), (10, 1), (11, 1)]
    assert to_runs(pairs) == [[0, 3, 3, 1], [0, 8, 2, 2]]
    units, positions = expand(to_runs(pairs))
    assert list(zip(positions.tolist(), units.tolist())) == pairs
