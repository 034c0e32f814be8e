"""A wrong value, key or word of the configuration: one message with key, value and what is expected."""

import pytest

from kd_runner.cli import api, arguments
from kd_runner.config import entries, ranges, validate
from kd_runner.errors import ConfigError

REFUSED = {
    "kd.enabled=flase": "kd.enabled=flase: expected true or false",
    "kd.alpha=abc": "kd.alpha=abc: expected a number",
    "kd.temprature=3": "Did you mean 'kd.temperature'?",
    "seeds=3": "seeds=3: expected a list",
    "seeds=[0,1": "seeds=[0,1: it cannot be read",
    "experiment=voc_kdd": "Did you mean 'voc_kd'?",
    "loss.task_ce.weight=abc": "loss.task_ce.weight=abc: expected a number",
}
OUT_OF_RANGE = (
    "kd.alpha=1.5", "seeds=[]", "seeds=[1,1]", "trainer.max_epochs=-1", "trainer.max_epochs=abc",
    "trainer.precision=fp7", "data.steps_per_epoch=0", "data.num_workers=-1", "optimizer.lr=-1", "threads=0",
)  # fmt: skip


@pytest.mark.parametrize("word", REFUSED)
def test_what_hydra_refuses_is_one_message(word: str) -> None:
    with pytest.raises(ConfigError) as error:
        api.compose([word])
    assert REFUSED[word] in str(error.value) and str(error.value).count("\n") == 0


def test_values_out_of_range_are_named() -> None:
    for word in OUT_OF_RANGE:
        with pytest.raises(ConfigError) as error:
            ranges.check(api.compose([word]))
        assert str(error.value).startswith(f"{word}: expected"), word


def test_nan_is_refused_anywhere() -> None:
    with pytest.raises(ConfigError, match=r"loss\.task_ce\.weight=nan"):
        ranges.check(api.compose(["loss.task_ce.weight=nan"]))


def test_null_takes_an_entry_or_an_input_away() -> None:
    cfg = entries.clean(api.compose(["loss.cosine_features=null", "loss.kl_logits.inputs.mask=null"]))
    assert list(cfg.loss) == ["task_ce", "kl_logits"] and "mask" not in cfg.loss.kl_logits.inputs


def test_a_shorter_list_drops_what_the_variant_sets() -> None:
    cfg = entries.clean(api.compose(["experiment=orion_kd", "loss=[orion_detection,feature_mse]"]))
    validate.check(cfg)
    assert list(cfg.loss) == ["orion_detection", "feature_mse"]


@pytest.mark.parametrize(
    ("word", "new"),
    [("run=distill", "task=train"), ("task=teacher", "task=train_teacher"), ("teacher.taps.x=1", "teacher.features"),
     ("callbacks=[checkpoints,epoch_line]", "epoch_summary"), ("size=full", "scale")],
)  # fmt: skip
def test_words_of_versions_before_name_the_new_ones(word: str, new: str) -> None:
    with pytest.raises(ConfigError, match=new):
        arguments.check_renamed([word])


def test_flags_stand_first() -> None:
    words = ["experiment=mine", "--config-dir", "own", "-m", "seed=1"]
    assert arguments.flags_first(words) == ["--config-dir", "own", "-m", "experiment=mine", "seed=1"]
