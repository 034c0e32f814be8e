"""Boxes to codes and back, and selection of the best boxes."""

import math

import torch

from kd_runner.geometry.orion_coder import best_boxes, decode, encode

BOUNDS = torch.tensor([-60.0, -60, -10, 60, 60, 10])


def test_the_order_of_a_code_is_the_public_one() -> None:
    """x, y, log w, log l, z, log h, then sine and cosine of -heading - pi/2, which are -cos and -sin of the heading."""
    box = torch.tensor([3.0, -4.0, 0.5, 4.5, 2.0, 1.6, 2.0, 5.0, -1.0])
    expected = [3, -4, math.log(2), math.log(4.5), 0.5, math.log(1.6), -math.cos(2), -math.sin(2), 5, -1]
    torch.testing.assert_close(encode(box), torch.tensor(expected))


def test_decode_inverts_encode_for_any_length_of_the_direction() -> None:
    torch.manual_seed(0)
    boxes = torch.rand(20, 9) * 3 + 0.1  # yaw within (0, pi)
    codes = encode(boxes)
    codes[:, 6:8] *= torch.rand(20, 1) + 0.5
    torch.testing.assert_close(decode(codes), boxes, atol=1e-5, rtol=1e-5)


def test_a_query_may_give_several_boxes_and_the_best_come_first() -> None:
    logits = torch.tensor([[[2.0, 1.0], [-3.0, 1.5]]])
    codes = torch.zeros(1, 2, 10)
    codes[0, :, 0] = torch.tensor([7.0, 8.0])
    boxes, scores, labels = best_boxes(logits, codes, 3, 0.0, BOUNDS)
    torch.testing.assert_close(scores[0], torch.tensor([2.0, 1.5, 1.0]).sigmoid())
    assert labels.tolist() == [[0, 1, 1]] and boxes[0, :, 0].tolist() == [7, 8, 7]


def test_boxes_below_the_score_or_out_of_range_are_dropped() -> None:
    codes = torch.zeros(1, 3, 10)
    codes[0, 1, 1] = 61
    _, scores, labels = best_boxes(torch.tensor([[[2.0], [3.0], [-3.0]]]), codes, 9, 0.2, BOUNDS)
    assert labels.tolist() == [[-1, 0, -1]]
    assert (scores > 0).tolist() == [[False, True, False]]


def test_the_range_is_that_of_the_center() -> None:
    """Number 4 of a code is z; a large number 2 is a wide box."""
    codes = torch.zeros(1, 2, 10)
    codes[0, 0, 4] = 11.0
    codes[0, 1, 2] = 11.0
    _, _, labels = best_boxes(torch.tensor([[[2.0], [1.0]]]), codes, 2, 0.2, BOUNDS)
    assert labels.tolist() == [[-1, 0]]
