"""Accuracy against torchmetrics' own, and what a constant prediction would have."""

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy

from kd_runner.metrics.top_k_accuracy import TopKAccuracy


def test_values_are_those_of_torchmetrics_and_the_level_that_of_the_largest_classes() -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(16, 6), torch.randint(0, 6, (16,))) for _ in range(3)]
    metric = TopKAccuracy(6, ks=(1, 3))
    others = [MulticlassAccuracy(6, average="micro", top_k=k) for k in (1, 3)]
    for preds, target in batches:
        metric.update(preds, target)
        for other in others:
            other.update(preds, target)
    values = metric.compute()
    assert [values["top1"].item(), values["top3"].item()] == pytest.approx([o.compute().item() for o in others])
    counts = sorted(torch.cat([target for _, target in batches]).bincount().tolist(), reverse=True)
    assert metric.constant_levels == pytest.approx({"top1": counts[0] / 48, "top3": sum(counts[:3]) / 48})
