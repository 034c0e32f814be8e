"""Check of losses that keep one row per training sample."""

from collections.abc import Iterable

from kd_runner.data.module import DataModule
from kd_runner.distillation.loss_terms import LossTerm
from kd_runner.errors import ConfigError


def check_memory_rows(terms: Iterable[LossTerm], data: DataModule) -> None:
    """Compare `n_data` of losses that read `batch.index` with the number of training samples.

    Args:
        terms: the loss terms.
        data: the data module; labeled and unlabeled training samples count.

    Raises:
        ConfigError: there are more samples than rows, or rows that no sample ever fills.
    """
    samples = getattr(data.train.samples, "num_indices", len(data.train))
    for term in terms:
        rows = getattr(term.fn, "n_data", None)
        if rows is not None and rows != samples and term.inputs.spec.get("index") == "batch.index":  # type: ignore[union-attr]
            more = "" if rows < samples else "; rows without a sample would stay random and be drawn as negatives"
            raise ConfigError(f"loss.{term.name}.fn.n_data={rows}: there are {samples} training samples{more}")
