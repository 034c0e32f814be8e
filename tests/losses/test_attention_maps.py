"""AttentionKL compared with a float64 sum over all distributions, and on attention maps of EvaViT."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_runner.losses.attention_maps import AttentionKL
from kd_runner.models.orion.eva_vit import EvaViT
from kd_runner.pruning.surgery import cut

HEADS = {
    "blocks": "blocks.*",
    "qkv": ["attn.q_proj", "attn.k_proj", "attn.v_proj"],
    "qkv_bias": ["attn.q_bias", None, "attn.v_bias"],
    "proj": "attn.proj",
    "num_heads": "attn.num_heads",
}


def maps(rows: int, heads: int, tokens: int, seed: int = 0) -> Tensor:
    return logits(rows, heads, tokens, seed).softmax(-1)


def logits(rows: int, heads: int, tokens: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(rows, heads, tokens, tokens, generator=torch.Generator().manual_seed(seed))


def numbers(kept: list[list[int]] | None) -> list[Tensor] | None:
    return None if kept is None else [torch.tensor(heads) for heads in kept]


def divergence(student: Tensor, teacher: Tensor) -> float:
    """Mean KL over all distributions, one after the other."""
    p, q = (m.double().numpy().reshape(-1, m.shape[-1]) for m in (teacher, student))
    return float(np.mean([np.sum(a * np.log(a / b)) for a, b in zip(p, q)]))


def test_is_the_mean_kl_of_kept_heads_and_of_levels() -> None:
    student, teacher = [maps(2, 2, 5, 1), maps(6, 3, 4, 2)], [maps(2, 4, 5), maps(6, 4, 4, 3)]
    kept = [[3, 0], [0, 1, 2]]
    expected = np.mean([divergence(a, b[:, k]) for a, b, k in zip(student, teacher, kept)])
    assert AttentionKL()(student, teacher, numbers(kept)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_temperature_acts_on_the_logits_behind_the_maps(temperature: float) -> None:
    student, teacher = logits(2, 3, 6, 1), logits(2, 3, 6, 2)
    expected = temperature**2 * divergence((student / temperature).softmax(-1), (teacher / temperature).softmax(-1))
    value = AttentionKL(temperature)([student.softmax(-1)], [teacher.softmax(-1)])
    assert value.item() == pytest.approx(expected, rel=1e-3)


def test_rows_heads_and_queries_do_not_scale_it() -> None:
    student, teacher = maps(1, 2, 4, 1), maps(1, 2, 4, 2)
    single = AttentionKL()([student], [teacher])
    assert torch.allclose(AttentionKL()([student.repeat(3, 2, 1, 1)], [teacher.repeat(3, 2, 1, 1)]), single)


def test_padding_queries_do_not_count() -> None:
    student, teacher = maps(2, 3, 5, 1), maps(2, 3, 5, 2)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    expected = np.average(
        [divergence(student[:1], teacher[:1]), divergence(student[1:, :, :2], teacher[1:, :, :2])], weights=[5, 2]
    )
    assert AttentionKL()([student], [teacher], query_mask=[mask]).item() == pytest.approx(expected, rel=1e-4)
    student[1, :, 2:] = maps(1, 3, 5, 7)[0, :, 2:]
    assert AttentionKL()([student], [teacher], query_mask=[mask]).item() == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match=r"level 0: query mask \(2, 4\), 2 rows of 5 queries"):
        AttentionKL()([student], [teacher], query_mask=[mask[:, :4]])
    with pytest.raises(ValueError, match="1 student levels, 2 query masks"):
        AttentionKL()([student], [teacher], query_mask=[mask, mask])


def test_heads_are_compared_with_the_heads_they_came_from() -> None:
    teacher = maps(2, 4, 5)
    assert AttentionKL()([teacher[:, [2, 0]]], [teacher], numbers([[2, 0]])).item() == pytest.approx(0, abs=1e-6)
    assert AttentionKL()([teacher[:, [2, 0]]], [teacher], numbers([[0, 2]])).item() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities_of_zero_are_safe(dtype: torch.dtype) -> None:
    hard = torch.eye(4).expand(1, 2, 4, 4).to(dtype)
    student = hard.roll(1, -1).clone().requires_grad_()
    value = AttentionKL()([student], [hard])
    value.backward()
    assert value.item() == pytest.approx(-np.log(1e-6), rel=0.01)
    assert student.grad.isfinite().all()


def test_gradient_descent_reaches_the_teacher() -> None:
    student, teacher = logits(1, 2, 4, 1).requires_grad_(), maps(1, 3, 4).requires_grad_()
    loss = AttentionKL()
    optimizer = torch.optim.Adam([student], lr=0.1)
    first = loss([student.softmax(-1)], [teacher], numbers([[0, 2]])).item()
    for _ in range(60):
        optimizer.zero_grad()
        value = loss([student.softmax(-1)], [teacher], numbers([[0, 2]]))
        value.backward()
        optimizer.step()
    assert teacher.grad is None and value.item() < 0.01 * first


def test_maps_of_a_pruned_eva() -> None:
    """Windowed and global blocks; a net that differs in the removed heads alone has the kept heads' own maps."""

    def built() -> EvaViT:
        torch.manual_seed(0)
        return EvaViT(patch_size=4, embed_dim=16, depth=2, num_heads=4, window_size=2, window_block_indexes=[0])

    def recorded(net: EvaViT) -> list[Tensor]:
        maps_of_blocks: list[Tensor] = []
        hooks = [
            b.attn.attn_weights.register_forward_hook(lambda *args: maps_of_blocks.append(args[2])) for b in net.blocks
        ]
        net(torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1)))
        for hook in hooks:
            hook.remove()
        return maps_of_blocks

    teacher, student, kept = built(), built(), [[0, 3], [1, 2]]
    cut(student, HEADS, {"heads": {f"blocks.{i}": heads for i, heads in enumerate(kept)}})
    student_maps, teacher_maps = recorded(student), recorded(teacher)
    assert [tuple(m.shape) for m in student_maps] == [(8, 2, 4, 4), (2, 2, 9, 9)]
    assert AttentionKL()(student_maps[:1], teacher_maps[:1], numbers(kept[:1])).item() == pytest.approx(0, abs=1e-6)
    assert AttentionKL()(student_maps, teacher_maps, numbers(kept)).item() > 0  # behind the removed heads all differs


@pytest.mark.parametrize(
    ("student", "teacher", "kept", "message"),
    [
        ([(1, 2, 4)], [(1, 2, 4)] * 2, None, "1 student levels, 2 teacher levels"),
        ([(1, 2, 4)], [(1, 2, 4)], [[0], [1]], "2 lists of kept heads"),
        ([(1, 2, 4)], [(1, 2, 5)], None, "differ in the number of heads only"),
        ([(1, 2, 4)], [(1, 4, 4)], None, "kept_heads names 4 heads"),
        ([(1, 2, 4)], [(1, 4, 4)], [[1, 1]], "different numbers from 0 to 3"),
        ([(1, 2, 6)], [(1, 4, 6)], [[0, 4]], "different numbers from 0 to 3"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(student: list, teacher: list, kept: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionKL()([maps(*s) for s in student], [maps(*s) for s in teacher], numbers(kept))
    with pytest.raises(ValueError, match="temperature"):
        AttentionKL(temperature=0)


def test_maps_need_four_axes() -> None:
    with pytest.raises(ValueError, match="heads, queries, keys"):
        AttentionKL()([torch.ones(2, 4, 4)], [torch.ones(2, 4, 4)])
