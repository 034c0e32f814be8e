"""A student that learned nothing is named as such."""

from kd_runner.report.training_level import constant_level, untrained_sentence


class Measured:
    def __init__(self) -> None:
        self.constant_levels = {"miou": 0.088}


def test_arms_within_two_percent_of_a_constant_prediction_are_named() -> None:
    """0.088 + 0.02 * 0.912 = 0.106."""
    level = constant_level([object(), Measured()], "miou")
    sentence = untrained_sentence("miou", {"undistilled": 0.1, "distilled": 0.11}, level)
    assert sentence is not None and "undistilled 0.1000" in sentence and "distilled 0.11" not in sentence
    assert "most frequent class (miou 0.0880" in sentence
    assert untrained_sentence("miou", {"undistilled": 0.11}, level) is None
    assert untrained_sentence("miou", {"undistilled": float("nan")}, level) is not None


def test_detection_has_the_level_of_finding_nothing_and_unknown_metrics_none() -> None:
    sentence = untrained_sentence("map", {"it": 0.001}, 0.0)
    assert sentence is not None and "finding nothing (map 0.0000; it 0.0010)" in sentence
    assert constant_level([object()], "accuracy") is None
    assert untrained_sentence("accuracy", {"it": 0.0}, None) is None
