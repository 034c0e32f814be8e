import torch
from torchvision.ops import sigmoid_focal_loss

from kd_runner.losses.functional.set_focal import focal_cost, focal_sum


def test_cost_is_what_an_assignment_changes() -> None:
    """Against torchvision: the loss of the object's class as a positive, less that as a negative."""
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(2, 1, 4, 5), torch.tensor([[3, 0, -1]])
    positive = sigmoid_focal_loss(logits, torch.ones_like(logits), 0.25, 2.0)
    negative = sigmoid_focal_loss(logits, torch.zeros_like(logits), 0.25, 2.0)
    cost = focal_cost(logits, labels)
    assert cost.shape == (2, 1, 4, 3) and (cost[..., 2] == 0).all()
    torch.testing.assert_close(cost[..., :2], (positive - negative)[..., [3, 0]])


def test_sum_leaves_out_what_has_no_weight() -> None:
    logits, labels = torch.tensor([[0.0, 2.0], [1.0, -1.0], [5.0, 5.0]]), torch.tensor([1, 2, 0])
    targets = torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    each = sigmoid_focal_loss(logits, targets, 0.25, 2.0).sum(1)
    torch.testing.assert_close(focal_sum(logits, labels), each.sum())
    weight = torch.tensor([1.0, 0.5, 0.0])
    torch.testing.assert_close(focal_sum(logits, labels, weight), each[0] + 0.5 * each[1])
