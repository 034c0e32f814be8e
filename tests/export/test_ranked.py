"""Ranked rows: near scores may change places, a true difference stays one."""

import numpy as np

from kd_runner.export.ranked import paired

RANKED = {"scores": ["boxes", "labels"]}


def outputs(scores: list[float], rows: list[int]) -> dict[str, np.ndarray]:
    """One sample; row r holds the box (r, 10 r) and the label r."""
    numbers = np.array([rows])
    boxes = np.stack([numbers, 10 * numbers], -1).astype(np.float32)
    return {"scores": np.array([scores], np.float32), "boxes": boxes, "labels": numbers}


def test_rows_that_rounding_swapped_are_paired() -> None:
    expected = outputs([0.9, 0.5000001, 0.5, 0.1], [0, 1, 2, 3])
    got = outputs([0.9, 0.5000002, 0.4999999, 0.1], [0, 2, 1, 3])
    matched = paired(expected, got, RANKED)
    assert (matched["labels"] == expected["labels"]).all() and (matched["boxes"] == expected["boxes"]).all()
    assert (matched["scores"] == got["scores"]).all() and (got["labels"] == [[0, 2, 1, 3]]).all()


def test_rows_whose_scores_tell_them_apart_stay() -> None:
    expected = outputs([0.9, 0.5, 0.4, 0.1], [0, 1, 2, 3])
    assert (paired(expected, outputs([0.9, 0.5, 0.4, 0.1], [0, 2, 1, 3]), RANKED)["labels"] == [[0, 2, 1, 3]]).all()


def test_another_box_is_no_swap() -> None:
    expected = outputs([0.9, 0.5000001, 0.5, 0.1], [0, 1, 2, 3])
    matched = paired(expected, outputs([0.9, 0.5000002, 0.4999999, 0.1], [0, 2, 7, 3]), RANKED)
    assert (matched["labels"] == [[0, 7, 2, 3]]).all() or (matched["labels"] == [[0, 2, 7, 3]]).all()
    assert np.abs(matched["boxes"] - expected["boxes"]).max() >= 50


def test_the_last_place_may_hold_either_of_two() -> None:
    expected = outputs([0.9, 0.5, 0.1], [0, 1, 2])
    matched = paired(expected, outputs([0.9, 0.5, 0.1000001], [0, 1, 5]), RANKED)
    assert (matched["labels"] == expected["labels"]).all() and matched["scores"][0, 2] != expected["scores"][0, 2]
    assert (paired(expected, outputs([0.9, 0.5, 0.1], [4, 1, 2]), RANKED)["labels"] == [[4, 1, 2]]).all()


def test_nothing_is_ranked() -> None:
    got = outputs([0.9, 0.5], [1, 0])
    assert (paired(outputs([0.9, 0.5], [0, 1]), got, {})["labels"] == got["labels"]).all()
