"""When how much of the pruning is due."""

from dataclasses import dataclass

from kd_runner.errors import nearest

SHAPES = {
    "linear": lambda t: t,
    "cubic": lambda t: 1 - (1 - t) ** 3,
}


@dataclass(frozen=True)
class Schedule:
    """Rounds of pruning at the start of epochs (0 is before any training); the default is one shot before training.

    Args:
        start: epoch of the first round.
        end: epoch of the last round.
        rounds: number of rounds, evenly spaced.
        shape: `linear`, or `cubic` (Zhu & Gupta 2017, arXiv 1710.01878, equation 1: fast first, then ever slower) of
            the round's number, so that the last round reaches the whole ratio.
    """

    start: int = 0
    end: int = 0
    rounds: int = 1
    shape: str = "linear"

    def __post_init__(self):
        if self.shape not in SHAPES:
            raise ValueError(f"schedule.shape: no shape {self.shape!r}.{nearest(self.shape, SHAPES)}")
        if self.start < 0:
            raise ValueError(f"schedule.start: an epoch, at least 0, got {self.start}")
        if self.rounds < 1:
            raise ValueError(f"schedule.rounds: at least 1, got {self.rounds}")
        if self.rounds == 1 and self.end not in (0, self.start):
            raise ValueError(f"schedule.end: one round happens at start={self.start}, end={self.end} is unused")
        if self.rounds > 1 and self.end - self.start + 1 < self.rounds:
            raise ValueError(f"schedule.rounds: {self.rounds} rounds do not fit into epochs {self.start} to {self.end}")

    def epochs(self) -> list[int]:
        """The epochs at whose start a round happens, ascending.

        Returns:
            One epoch per round.
        """
        span = self.end - self.start
        return [
            self.start + (2 * i * span + self.rounds - 1) // (2 * (self.rounds - 1) or 1) for i in range(self.rounds)
        ]

    def fraction(self, epoch: int) -> float:
        """Fraction of the final ratio that is due in `epoch`: 0 before the first round, 1 from the last.

        Args:
            epoch: number of the epoch that starts, from 0.

        Returns:
            The fraction, in [0, 1].
        """
        done = sum(start <= epoch for start in self.epochs())
        return SHAPES[self.shape](done / self.rounds)
