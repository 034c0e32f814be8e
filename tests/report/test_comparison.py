"""The summary of arms and seeds, and its tables."""

from typing import Any

from kd_runner.report.comparison import Summary, data_table, gain_sentences, reading, results_table, summarize


def run(score: float, **more: Any) -> dict[str, Any]:
    return {"scale": "mini", "metrics": {"miou": score}, "steps": 60, "seconds": 2.0, **more}


def summary(teacher: float = 0.9, **arms: list[float]) -> Summary:
    pool = {"train": {"samples": 12, "source": "VOC"}, "unlabeled": {"samples": 30, "source": "VOC, split rest"}}
    weights = {"chosen": "last", "monitor": "miou", "split": "the val split"}
    results = {name: [run(score, data=pool, weights=weights) for score in scores] for name, scores in arms.items()}
    control, *others = arms
    seeds = range(len(arms[control]))
    controls = [control, *(name for name in others if name == "equal_seconds")]
    treated = [name for name in others if name not in controls]
    return summarize("miou", list(seeds), {"miou": teacher}, results, treated[0], controls, treated)


def test_gains_are_paired_and_holm_corrected_over_the_arms() -> None:
    """Differences of .021, .05, .04 have p = .049: a gain alone, none beside another such arm."""
    control = [0.2, 0.3, 0.4]
    weak, clear = [0.221, 0.35, 0.44], [0.301, 0.4, 0.5]
    alone = summary(undistilled=control, a=weak)["gains"]["a"]
    assert 0.04 < alone["p_value"] < 0.05 and alone["verdict"] == "gain" and alone["control"] == "undistilled"
    several = summary(undistilled=control, a=weak, b=weak, c=clear)
    assert several["gains"]["a"]["verdict"] == "no gain (after Holm's correction)"
    assert several["gains"]["c"]["verdict"] == "gain"
    assert "Holm-corrected over the 3 arms" in reading(several)
    assert "Weights: those after the last step, measured on the val split" in reading(several)


def test_a_weak_teacher_has_no_share_and_no_gap() -> None:
    table = results_table(summary(teacher=0.1, undistilled=[0.5, 0.6], distilled=[0.6, 0.65]))
    assert not {"gap closed, %", "of teacher, %", "taught by"} & set(table[0])


def test_pools_of_unlabeled_samples_are_named() -> None:
    assert data_table(summary(undistilled=[0.1], distilled=[0.2]))[1] == [
        "undistilled", 12, "VOC", 30, "VOC, split rest",
    ]  # fmt: skip


def test_the_headline_is_the_gain_over_the_harder_control() -> None:
    arms = {"undistilled": [0.2, 0.3, 0.4], "equal_seconds": [0.29, 0.41, 0.5], "distilled": [0.301, 0.4, 0.5]}
    several = summary(**arms)
    gained = several["gains"]["distilled"]
    assert gained["against"]["undistilled"]["verdict"] == "gain"
    assert gained["control"] == "equal_seconds" and gained["verdict"] == "no gain (the interval holds zero)"
    first, second = gain_sentences("distilled", gained)
    assert first.startswith("**distilled** against equal_seconds, the harder control: +0.03 ±")
    assert second.startswith("**distilled** against undistilled: +10.03 ±")
    head, *rows = results_table(several)
    assert rows[3][head.index("against")] == "equal_seconds"


def test_a_null_teacher_that_gains_takes_the_gain_from_the_teacher() -> None:
    """Its differences to the easier control are .02, .03, .025, p = .013; a correction would not change its verdict."""
    runs = {"undistilled": [0.2, 0.3, 0.4], "equal_seconds": [0.3, 0.4, 0.45], "distilled": [0.4, 0.5, 0.61],
            "null_teacher": [0.22, 0.33, 0.425]}  # fmt: skip
    results = {name: [run(score) for score in scores] for name, scores in runs.items()}
    controls = ["undistilled", "equal_seconds"]
    made = summarize("miou", [0, 1, 2], {"miou": 0.9}, results, "distilled", controls, ["distilled"], ["null_teacher"])
    gained = made["gains"]["null_teacher"]
    assert gained["control"] == "undistilled" and gained["verdict"] == "gain" and "Holm" not in reading(made)
    (sentence,) = gain_sentences("null_teacher", gained)
    assert sentence.startswith("**null_teacher** against undistilled (a null teacher): +2.50 ±")
    assert "The gain is not the teacher's" in sentence
