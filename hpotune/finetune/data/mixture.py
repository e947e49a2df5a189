"""Which rows of a mixture an epoch trains: a pure function of weights, row counts and the seed `data.seed`.

The rows of each source are read, held out and tokenized whatever its weight is; then positions among them are drawn:

    weights -> exact counts (largest remainder) -> passes over each source in an order of its own -> positions

A source with more rows than its count gives the first ones of its order, so a higher weight adds rows to those that a
lower one has. One with fewer gives all of them, then again in another order: no row is used twice more than another.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from hpotune.config.schema.data_config import MixtureSource
from hpotune.config.schema.study_config import REGRESSION, DataConfig, ModelConfig
from hpotune.finetune.data.stored_sequence import Positions, selected
from hpotune.finetune.data.tokenization import FileRows, TokenizedRow
from hpotune.finetune.model.labels import class_order
from hpotune.finetune.trial_errors import DataError, DatasetNotCached, UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceUse:
    """What an epoch trains of one source."""

    name: str
    path: str
    available: int
    """Its training rows that can be used."""
    weight: float
    share: float
    """Its part of the training rows, by the weights."""
    rows: int
    """Training rows of an epoch, repeated ones included."""

    @property
    def passes(self) -> int:
        """How often a row of the source is used in an epoch, at most."""
        return math.ceil(self.rows / self.available) if self.rows else 0

    @property
    def warnings(self) -> list[str]:
        """That rows are repeated, or that the weight gives none."""
        where = f"data.mixture.{self.name}.weight: a share of {100 * self.share:.3g} % is {self.rows:,} rows an epoch"
        if self.passes > 1:
            return [
                f"{where}, and {self.path} has {self.available:,}: they are repeated, up to {self.passes} times; lower "
                "the weight or data.rows"
            ]
        if self.weight > 0 and self.rows == 0:
            return [f"{where}: none of {self.path} is trained; raise it or data.rows"]
        return []


def source_uses(available: Mapping[str, int], data: DataConfig) -> list[SourceUse]:
    """What an epoch trains of each source. `available`: its training rows that can be used.

    Raises: DataError for a source with a weight and without a row.
    """
    weights = {name: one.weight for name, one in data.mixture.items()}
    for name, weight in weights.items():
        if weight and not available.get(name):
            raise DataError(
                f"data.mixture.{name}: has no training row, and the weight {weight:g}; lower its validation, or "
                "set the weight to 0"
            )
    total = data.rows if data.rows is not None else sum(available.values())
    counts = exact_counts(list(weights.values()), total)
    whole = sum(weights.values())
    return [
        SourceUse(
            name=name,
            path=data.mixture[name].path,
            available=available.get(name, 0),
            weight=weight,
            share=weight / whole,
            rows=count,
        )
        for (name, weight), count in zip(weights.items(), counts, strict=True)
    ]


def exact_counts(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers with the sum `total` in the ratio of the weights, by the largest remainder; first ones win ties."""
    whole = sum(weights)
    wanted = [weight / whole * total for weight in weights]
    counts = [math.floor(one) for one in wanted]
    order = sorted(range(len(weights)), key=lambda index: counts[index] - wanted[index])
    for index in [one for one in order if weights[one] > 0][: total - sum(counts)]:
        counts[index] += 1
    return counts


def mixed_rows(
    rows: Sequence[TokenizedRow], data: DataConfig
) -> tuple[Sequence[TokenizedRow], list[SourceUse]]:
    """The training rows of an epoch, in the order of the sources, and what is used of each.

    Without a mixture the rows themselves, and nothing. Raises: DataError as `source_uses`.
    """
    if not data.mixture:
        return rows, []
    pools = by_source(rows, data)
    uses = source_uses({name: len(pool) for name, pool in pools.items()}, data)
    mixed = [
        pools[use.name][_positions(use.rows, use.available, name=use.name, seed=data.seed)] for use in uses
    ]
    return selected(rows, np.concatenate(mixed)), uses


def by_source(rows: Sequence[TokenizedRow], data: DataConfig) -> dict[str, Positions]:
    """The indices of the rows of each source of the mixture; without one, of all under the empty name."""
    names = list(data.mixture) or [""]
    if isinstance(rows, FileRows):
        return {name: rows.of_source(name) for name in names}
    pools: dict[str, list[int]] = {name: [] for name in names}
    for index, row in enumerate(rows):
        pools[row.source].append(index)
    return {name: np.array(pool, dtype=np.int64) for name, pool in pools.items()}


def positions(count: int, available: int, *, name: str, seed: int) -> list[int]:
    """Positions of `count` rows among those of a source; it depends on its name, not on the other sources."""
    return [int(position) for position in _positions(count, available, name=name, seed=seed)]


def _positions(count: int, available: int, *, name: str, seed: int) -> Positions:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    passes = [rng.permutation(available) for _ in range(math.ceil(count / available) if count else 0)]
    return np.concatenate([np.empty(0, dtype=np.int64), *passes])[:count]


@contextmanager
def of_source(name: str) -> Iterator[None]:
    """A context in which an error of a key of `data` names the key of the mixture's source."""
    try:
        yield
    except (DataError, UserError) as error:
        if not name:
            raise
        raise type(error)(source_text(str(error), name)) from error


class _Labelled(Protocol):
    @property
    def labels(self) -> list[str]:
        """As DataSplit.labels."""


Part = TypeVar("Part", bound=_Labelled)


def read_sources(
    model: ModelConfig,
    data: DataConfig,
    *,
    data_root: str | None,
    read: Callable[..., Part],
    ordered: Callable[[Part, Sequence[str]], Part],
) -> tuple[list[Part], list[str] | None]:
    """The rows of each source, and the label names in the order of the class numbers (None for a language model).

    `read`: load_rows, or another with its arguments. `ordered`: gives the rows of a source the numbers of these names.
    Raises: DataError, UserError, with the keys of the source.
    """
    labelled = model.task == "sequence_classification"
    parts: list[Part] = []
    for name, source in data.sources.items():
        with of_source(name):
            try:
                parts.append(
                    read(
                        source,
                        data_root=data_root,
                        labelled=labelled,
                        source=name,
                        problem_type=model.problem_type,
                    )
                )
            except DatasetNotCached as error:
                raise DatasetNotCached(f"data.path: {error}") from error
    if not labelled:
        return parts, None
    if model.problem_type == REGRESSION:
        return parts, parts[0].labels
    labels = class_order(model, list(dict.fromkeys(name for part in parts for name in part.labels)))
    return [ordered(part, labels) for part in parts], labels


def source_text(text: str, name: str) -> str:
    """A message on a key of `data`, of a source of the mixture; empty name: there is no mixture."""
    key = re.match(r"data\.([a-z_]+)", text)
    if not name:
        return text
    if key and key[1] in MixtureSource.model_fields:
        return f"data.mixture.{name}.{text.removeprefix('data.')}"
    return f"{text} (source {name} of data.mixture)" if key else f"source {name} of data.mixture: {text}"
