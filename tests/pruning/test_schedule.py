"""Rounds and fractions."""

import pytest

from kd_runner.pruning.schedule import Schedule


def test_one_shot_is_before_training():
    assert Schedule().epochs() == [0]
    assert [Schedule(start=2).fraction(epoch) for epoch in range(4)] == [0, 0, 1, 1]


def test_linear_rounds_are_evenly_spaced_and_reach_the_whole():
    schedule = Schedule(start=1, end=10, rounds=4)
    assert schedule.epochs() == [1, 4, 7, 10]
    assert [schedule.fraction(e) for e in (0, 1, 3, 4, 9, 10, 99)] == [0, 0.25, 0.25, 0.5, 0.75, 1, 1]


def test_cubic_follows_zhu_and_gupta():
    schedule = Schedule(start=0, end=3, rounds=4, shape="cubic")
    final = 0.5  # s_t = s_f + (s_i - s_f) (1 - t)^3 with s_i = 0
    for done in (1, 2, 3, 4):
        assert final * schedule.fraction(done - 1) == pytest.approx(final + (0 - final) * (1 - done / 4) ** 3)


@pytest.mark.parametrize("shape", ["linear", "cubic"])
@pytest.mark.parametrize(("start", "end", "rounds"), [(0, 4, 5), (0, 9, 4), (3, 20, 7), (5, 6, 2)])
def test_rounds_are_different_epochs_and_fractions_rise(start, end, rounds, shape):
    schedule = Schedule(start=start, end=end, rounds=rounds, shape=shape)
    epochs = schedule.epochs()
    assert len(set(epochs)) == rounds and (epochs[0], epochs[-1]) == (start, end)
    fractions = [schedule.fraction(e) for e in range(end + 1)]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert [e for e in range(end + 1) if fractions[e] > (fractions[e - 1] if e else 0)] == epochs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": "cubick"}, "shape.*Did you mean 'cubic'"),
        ({"rounds": 0}, "rounds"),
        ({"start": -1}, "start"),
        ({"rounds": 4, "end": 2}, "rounds.*do not fit"),
        ({"end": 5}, "end"),
    ],
)
def test_bad_schedules_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**arguments)
