"""Distillation of feature maps against its authors' formulas in float64, element by element."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kd_runner.losses.attention_transfer import AttentionTransfer
from kd_runner.losses.cwd import CWD
from kd_runner.losses.hint import Hint
from kd_runner.losses.mgd import MGD
from kd_runner.losses.pkd import PKD
from kd_runner.losses.review_kd import ReviewKD, hierarchical_context
from kd_runner.losses.vid import VID
from tests.losses.references import assert_same, built, features

N, C, H, W = 2, 3, 4, 5


def maps() -> tuple[Tensor, Tensor]:
    return features(N, C, H, W, seed=1), features(N, C, H, W, seed=2)


def conv1x1(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    y = torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], x)
    return y if bias is None else y + bias[:, None, None]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_cwd_sums_over_locations_and_averages_over_images_and_channels(temperature: float) -> None:
    def reference(student: Tensor, teacher: Tensor) -> Tensor:
        total = student.new_zeros(())
        for n in range(N):
            for c in range(C):
                q, p = ((x[n, c] / temperature).exp() for x in (student, teacher))
                q, p = q / q.sum(), p / p.sum()
                total = total + (p * (p / q).log()).sum()
        return temperature**2 * total / (N * C)

    assert_same(CWD(temperature), reference, *maps())


def test_cwd_divides_by_the_channels_after_the_projection() -> None:
    """CIRKD's copy divides by those before it."""
    student, teacher = features(N, 6, H, W, seed=1), features(N, C, H, W, seed=2)
    loss = built(CWD(), student, teacher)
    projected = conv1x1(loss.projections[0].weight.detach(), student)
    torch.testing.assert_close(loss(student, teacher), CWD()(projected, teacher))


def test_cwd_with_a_mask_is_that_of_the_valid_locations_alone() -> None:
    student, teacher = maps()
    mask = torch.ones(N, H, W, dtype=torch.bool)
    mask[:, :, 3:] = False
    torch.testing.assert_close(CWD()(student, teacher, mask), CWD()(student[..., :3], teacher[..., :3]))


def test_pkd_is_half_the_error_of_standardized_channels_and_one_minus_their_correlation() -> None:
    def reference(student: Tensor, teacher: Tensor) -> Tensor:
        total = student.new_zeros(())
        for c in range(C):
            a, b = student[:, c].flatten(), teacher[:, c].flatten()
            a, b = ((x - x.sum() / len(x)) / (x.std() + 1e-6) for x in (a, b))
            total = total + ((a - b) ** 2).sum() / 2
        return total / student.numel()

    student, teacher = maps()
    assert_same(PKD(), reference, student, teacher)
    flat = [x.movedim(1, 0).flatten(1).numpy() for x in (student, teacher)]
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(*flat)]
    count = N * H * W  # an unbiased deviation leaves a factor
    assert PKD()(student, teacher).item() == pytest.approx((count - 1) / count * (1 - np.mean(correlations)), rel=1e-4)
    torch.testing.assert_close(PKD()(3 * student + 7, teacher), PKD()(student, teacher), rtol=1e-4, atol=0)


def test_hint_is_the_mean_squared_error_behind_a_convolution_with_bias() -> None:
    student, teacher = features(N, C, H, W, seed=1), features(N, 6, H, W, seed=2)
    loss = built(Hint(), student, teacher)
    layer = loss.regressors[0]

    def reference(student: Tensor, teacher: Tensor) -> Tensor:
        return (conv1x1(layer.weight, student, layer.bias) - teacher).pow(2).sum() / teacher.numel()

    assert_same(loss, reference, student, teacher)


def test_attention_transfer_is_the_form_of_the_public_code() -> None:
    def attention(x: Tensor) -> Tensor:
        a = torch.stack([sum(x[:, c] ** 2 for c in range(x.shape[1])) / x.shape[1]])[0].reshape(len(x), -1)
        return a / (a**2).sum(1, keepdim=True).sqrt()

    student, teacher = features(N, C, H, W, seed=1), features(N, 7, H, W, seed=2)
    assert_same(
        AttentionTransfer(), lambda s, t: ((attention(s) - attention(t)) ** 2).sum() / (N * H * W), student, teacher
    )


def test_attention_transfer_resizes_rows_and_columns_each() -> None:
    """Halves of a teacher of 8 x 10; RepDistiller would pool to 4 x 4."""
    student, teacher = features(N, C, H, W, seed=1), features(N, 7, 2 * H, 2 * W, seed=2)
    blocks = teacher.reshape(N, 7, H, 2, W, 2).mean((3, 5))
    torch.testing.assert_close(AttentionTransfer()(student, teacher), AttentionTransfer()(student, blocks))


def test_vid_is_the_likelihood_of_the_public_code_and_learns_its_variances() -> None:
    student, teacher = features(N, C, H, W, seed=1), features(N, 6, H, W, seed=2)
    loss = built(VID(initial_variance=5.0), student, teacher)
    first, _, second, _, third = loss.means[0]
    raw = loss.variances[0]
    assert math.log(1 + math.exp(raw[0].item())) + 1e-5 == pytest.approx(5.0)

    def reference(student: Tensor, teacher: Tensor) -> Tensor:
        x = conv1x1(first.weight, student).clamp(min=0)
        x = conv1x1(third.weight, conv1x1(second.weight, x).clamp(min=0))
        variance = ((1 + raw.exp()).log() + 1e-5)[:, None, None]
        return (0.5 * ((x - teacher) ** 2 / variance + variance.log())).sum() / teacher.numel()

    assert_same(loss, reference, student, teacher)
    loss.zero_grad()
    loss(student, teacher).backward()
    assert (raw.grad != 0).all()


def test_mgd_is_a_sum_over_channels_and_locations_divided_by_images() -> None:
    """The mask that the loss draws is recovered from zeros of the projected map, hooked before the generator."""
    student, teacher = features(N, C, H, W, seed=1), features(N, 6, H, W, seed=2)
    loss = built(MGD(alpha=2e-5, masked=0.5), student, teacher)
    seen: list[Tensor] = []
    loss.generators[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    loss.eval()(student, teacher)
    kept = (seen[0] != 0).any(1, keepdim=True)
    assert 0.2 < kept.double().mean() < 0.8
    project, (first, _, second) = loss.projections[0], loss.generators[0]

    def conv3x3(layer: torch.nn.Conv2d, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1))
        shifted = (
            torch.einsum("oc,bchw->bohw", layer.weight[:, :, i, j], padded[:, :, i : i + H, j : j + W])
            for i in range(3)
            for j in range(3)
        )
        return sum(shifted) + layer.bias[:, None, None]

    def reference(student: Tensor, teacher: Tensor) -> Tensor:
        x = conv1x1(project.weight, student, project.bias) * kept
        x = conv3x3(second, conv3x3(first, x).clamp(min=0))
        return 2e-5 * ((x - teacher) ** 2).sum() / N

    assert_same(loss, reference, student, teacher)


def test_mgd_masks_the_given_fraction_and_draws_anew_every_step() -> None:
    """`masked` is the masked fraction: mask 0 where uniform > 1 - lambda."""
    student = features(8, C, 20, 20)
    loss = built(MGD(masked=0.8), student, student)
    seen: list[Tensor] = []
    loss.generators[0].register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0] != 0).any(1)))
    for _ in range(2):
        loss(student, student)
    assert seen[0].double().mean().item() == pytest.approx(0.2, abs=0.03)
    assert not torch.equal(*seen)


def test_hierarchical_context_weighs_ever_coarser_averages() -> None:
    """Full size 1, then 1/2 of 4 x 4, 1/4 of 2 x 2, 1/8 of the mean; divided by the sum."""
    student, teacher = features(N, C, 8, 8, seed=1), features(N, C, 8, 8, seed=2)

    def reference(student: Tensor, teacher: Tensor) -> Tensor:
        value, total = ((student - teacher) ** 2).mean(), 1.0
        for cells, weight in ((4, 0.5), (2, 0.25), (1, 0.125)):
            size = 8 // cells
            a, b = (x.reshape(N, C, cells, size, cells, size).mean((3, 5)) for x in (student, teacher))
            value, total = value + weight * ((a - b) ** 2).mean(), total + weight
        return value / total

    assert_same(hierarchical_context, reference, student, teacher)
    small = features(N, C, 2, 2, seed=1)  # 4 x 4 and 2 x 2 are no averages of it
    expected = (small.square().mean() + small.mean((2, 3)).square().mean() / 2) / 1.5
    torch.testing.assert_close(hierarchical_context(small, torch.zeros_like(small)), expected)


def test_hierarchical_context_averages_the_valid_part_of_a_cell() -> None:
    student = features(1, 1, 2, 2)
    mask = torch.tensor([[[True, True], [False, True]]])
    valid = student[0, 0][mask[0]]
    expected = (valid.square().mean() + valid.mean() ** 2 / 2) / 1.5
    torch.testing.assert_close(hierarchical_context(student, torch.zeros_like(student), mask), expected)


def test_review_kd_fuses_from_the_deepest_level() -> None:
    """Two levels in evaluation mode: batch norm is a scale of 1 / sqrt(1 + 1e-5)."""
    student = [features(N, 3, 4, 6, seed=1), features(N, 5, 2, 3, seed=2)]
    teacher = [features(N, 4, 4, 6, seed=3), features(N, 6, 2, 3, seed=4)]
    loss = built(ReviewKD(width=2), student, teacher).eval()
    norm = 1 / math.sqrt(1 + 1e-5)

    def conv3x3(weight: Tensor, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), weight) * norm

    def reference(shallow: Tensor, deep: Tensor) -> Tensor:
        y = conv1x1(loss.inward[1][0].weight, deep) * norm
        value = hierarchical_context(conv3x3(loss.outward[1][0].weight, y), teacher[1])
        y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = conv1x1(loss.inward[0][0].weight, shallow) * norm
        gate = 1 / (1 + (-conv1x1(loss.gates[0].weight, torch.cat([x, y], 1), loss.gates[0].bias)).exp())
        z = x * gate[:, 0:1] + y * gate[:, 1:2]
        return value + hierarchical_context(conv3x3(loss.outward[0][0].weight, z), teacher[0])

    assert_same(lambda s: loss([s, student[1]], teacher), lambda s: reference(s, student[1]), student[0])
    assert_same(lambda s: loss([student[0], s], teacher), lambda s: reference(student[0], s), student[1])


def test_levels_of_unlike_size_weigh_the_same_but_for_review_kd() -> None:
    (a, b), c, d = maps(), features(N, C, 2, 2, seed=3), features(N, C, 2, 2, seed=4)
    for loss in (CWD(), PKD(), AttentionTransfer()):
        torch.testing.assert_close(loss([a, c], [b, d]), (loss(a, b) + loss(c, d)) / 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PKD()([features(2, 3)], [features(2, 3)] * 2), "1 student levels, 2 teacher levels"),
        (lambda: PKD()(features(2, 3), features(2, 4)), "channel mismatch: student has 3, teacher 4"),
        (lambda: PKD()(features(2, 3), features(4, 3)), "level 0: 2 samples of the student, 4 of the teacher"),
        (lambda: PKD()(features(2), features(2)), r"maps \(B, C, H, W\) needed, not \(2,\)"),
        (lambda: PKD(-1)(features(2, 3, 4), features(2, 5, 4)), "tokens and vectors cannot be resized"),
        (lambda: CWD()(features(2, 3), features(2, 3)), "one location"),
        (lambda: AttentionTransfer()(features(2, 3), features(2, 3)), "one location"),
        (lambda: CWD(0.0), "temperature must be above 0, not 0.0"),
        (lambda: MGD(masked=1.0), r"masked must be in \[0, 1\), not 1.0"),
        (lambda: VID(0.0), "initial_variance must be above"),
        (lambda: PKD()(*maps(), features(3, 4, 5) > 0), r"mask \(3, 4, 5\) for 2 samples"),
    ],
)
def test_what_does_not_fit_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
