"""Confusion matrix and IoU against counts made by hand."""

import torch

from kd_runner.metrics.confusion import confusion_matrix, iou_per_class


def test_rows_are_true_classes_and_columns_predicted_ones() -> None:
    target, preds = torch.tensor([[0, 0, 1], [1, 1, 2]]), torch.tensor([[0, 1, 1], [1, 0, 0]])
    assert confusion_matrix(preds, target, 4).tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_iou_is_nan_only_where_a_class_is_nowhere() -> None:
    """Class 0: 1 of 4; class 1: 2 of 4; class 2: true once, never predicted; class 3: nowhere."""
    iou = iou_per_class(torch.tensor([[1, 1, 0, 0], [1, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]))
    assert iou[:3].tolist() == [0.25, 0.5, 0.0] and iou[3].isnan()
