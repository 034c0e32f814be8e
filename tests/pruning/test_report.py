"""Parameters and multiply-adds against arithmetic."""

import pytest
import torch

from kd_runner.models.orion.eva_vit import EvaViT
from kd_runner.pruning.report import cost, multiply_adds, table
from kd_runner.pruning.surgery import cut


def by_hand(
    heads: int, hidden: int, *, dim=1024, head_dim=64, grid=40, window=16, windowed=16, whole=8, patch=16
) -> int:
    """Multiply-adds of ORION's backbone: windowed blocks project and attend to the padded grid."""
    tokens, padded, width = grid**2, (-(-grid // window) * window) ** 2, heads * head_dim
    mlp = 3 * dim * hidden * tokens
    attention = sum(
        n * (4 * dim * width * t + 2 * width * t * s)
        for n, t, s in ((windowed, padded, window**2), (whole, tokens, tokens))
    )
    return 3 * patch**2 * dim * tokens + (windowed + whole) * mlp + attention


@pytest.mark.parametrize(
    ("heads", "hidden", "giga", "parameters"),
    [
        (16, 2730, 592.9, 303_388_608),
        (8, 2730, 458.1, 253_032_384),
        (8, 1365, 297.1, 152_262_624),
        (8, 1357, 296.1, 151_672_032),
    ],
)
def test_full_size(heads, hidden, giga, parameters):
    with torch.device("meta"):
        net = EvaViT(num_heads=heads, head_dim=64, hidden=hidden)
    result = cost(net, torch.empty(1, 3, 640, 640, device="meta"))
    assert result["parameters"] == parameters
    assert result["multiply_adds"] == by_hand(heads, hidden)
    assert result["multiply_adds"] / 1e9 == pytest.approx(giga, abs=0.05)


def test_counting_leaves_the_net_alone(case):
    case.net.train()
    before = [p.clone() for p in case.net.parameters()]
    count = multiply_adds(case.net, case.image)
    assert count > 0 and multiply_adds(case.net, case.image.repeat(3, 1, 1, 1)) == 3 * count
    assert case.net.training and all(torch.equal(p, q) for p, q in zip(case.net.parameters(), before))
    assert all(p.device.type == "cpu" for p in case.net.parameters())


def test_what_runs_in_training_only_is_not_counted():
    class WithAuxiliaryHead(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) if not self.training else super().forward(super().forward(x))

    assert multiply_adds(WithAuxiliaryHead(3, 3).train(), torch.zeros(5, 3)) == 5 * 3 * 3


def test_table_says_what_is_left(eva):
    before = cost(eva.net, eva.image)
    cut(eva.net, eva.layout, {"hidden": {block: list(range(12)) for block in ("blocks.0", "blocks.1")}})
    after = cost(eva.net, eva.image)
    gone = 2 * 12 * (2 * 33 + 2 + 32)  # w1 and w2 with bias, norm, w3
    assert before["parameters"] - after["parameters"] == gone
    percent = 100 * after["parameters"] / before["parameters"]
    expected = f"| parameters | {before['parameters']:,} | {after['parameters']:,} | {percent:.1f} % |"
    assert expected in table(before, after)
