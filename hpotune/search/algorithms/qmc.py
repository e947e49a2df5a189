"""QMC, quasi-Monte Carlo: Sobol and Halton points by row, without state in the storage.

So parallel workers never take the same point. (Optuna's QMCSampler counts points in a study attribute, which is
read and then written: two workers can get the same number.)
Source: Sobol 1967, Halton 1960; scrambling by Owen 1998 and 2017, as in scipy.stats.qmc.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.design import DesignSampler
from hpotune.search.base.unit_cube import Axis


class _SequenceSampler(DesignSampler):
    """Point `row` of a scrambled sequence over all names."""

    @abstractmethod
    def engine(self, columns: int) -> Any:  # noqa: ANN401 - scipy has no types
        """The scipy engine at its first point."""

    def unit(self, row: int, column: int, axis: Axis) -> float:
        """The coordinate of that point; a redraw takes a point beyond those of the budget."""
        return float(self.point(row + self.setup.salt * self.setup.trials)[column])

    def point(self, row: int) -> np.ndarray:
        """One point of the sequence. Shape (columns,)."""
        engine = self.engine(max(1, len(self.columns)))
        if row:  # scipy cannot skip zero points of a scrambled sequence
            engine.fast_forward(row)
        point: np.ndarray = engine.random(1)[0]
        return point


class SobolSampler(_SequenceSampler):
    """The scrambled Sobol sequence."""

    def engine(self, columns: int) -> Any:  # noqa: ANN401
        """scipy's Sobol."""
        from scipy.stats.qmc import Sobol  # type: ignore[import-untyped]  # 0.3 s to import; only drawing needs it

        return Sobol(d=columns, scramble=True, rng=self.setup.seed)


class HaltonSampler(_SequenceSampler):
    """The scrambled Halton sequence."""

    def engine(self, columns: int) -> Any:  # noqa: ANN401
        """scipy's Halton."""
        from scipy.stats.qmc import Halton

        return Halton(d=columns, scramble=True, rng=self.setup.seed)


ALGORITHMS = {
    "sobol": Algorithm(
        make=SobolSampler,
        when="an even first exploration of a space; better than random at small budgets",
        cost="0.001 s",
        parallel="any number of workers",
        source="Sobol 1967; Owen 1998; scipy.stats.qmc",
        conditions=True,
        objectives=True,
    ),
    "qmc": Algorithm(
        make=SobolSampler,
        when="the old name of sobol",
        cost="0.001 s",
        parallel="any number of workers",
        source="as sobol",
        conditions=True,
        objectives=True,
    ),
    "halton": Algorithm(
        make=HaltonSampler,
        when="as sobol, where the number of trials is no power of two",
        cost="0.001 s",
        parallel="any number of workers",
        source="Halton 1960; Owen 2017, arXiv 1706.02808; scipy.stats.qmc",
        conditions=True,
        objectives=True,
    ),
}
