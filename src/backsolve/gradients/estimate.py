"""What a stochastic estimator returns: a number, how far it may be off, and what it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from ..errors import describe

__all__ = ["Cost", "StochasticEstimate", "check_confidence", "check_count", "check_positive", "generator", "number"]


class Cost(NamedTuple):
    """Work done for an estimate."""

    solves: int = 0
    """Right-hand sides solved for with A or Aᴴ."""
    matvecs: int = 0
    """Products of A with a vector, those inside of solves not counted."""
    steps: int = 0
    """Steps of random walks, or entries evaluated."""

    @property
    def unit(self) -> str:
        """The dearest kind of work that was done."""
        return next((name for name, count in zip(self._fields, self, strict=True) if count), "solves")

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in zip(self._fields, self, strict=True) if count) or "none"


@dataclass(frozen=True, repr=False, eq=False)
class StochasticEstimate:
    """A mean of independent samples, with what is known of its error.

    Attributes
    ----------
    value : float, or 0-d array of a framework
        The estimate, differentiable where the arguments were; NaN where there is a gradient only.
    draws : (samples,) array
        The samples that it is the mean of; none where the value is exact.
    cost : Cost
        Solves, products and steps that it took. Those of a backward pass come on top.
    confidence : float
        Level of `interval`.
    gradient : array or tuple of arrays, optional
        An estimate of the gradient, where the function says so; unbiased if the value is.
    gradient_error : array, optional
        Standard error of each entry of `gradient`.
    excess : float
        What the interval is widened by, on either side, for an error that sampling does not show.
    surely : float
        Half width of an interval that holds whatever the distribution (Hoeffding); infinite where samples are
        unbounded.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> from backsolve import gradients
    >>> est = gradients.trace_inverse(np.diag([1.0, 2.0, 4.0]), rng=0, probes=4, gradient=False)
    >>> float(est.value), est.standard_error, est.cost.solves
    (1.75, 0.0, 4)
    """

    value: Any
    draws: Any
    cost: Cost
    confidence: float = 0.95
    gradient: Any = None
    gradient_error: Any = None
    excess: float = 0.0
    surely: float = np.inf

    @property
    def samples(self) -> int:
        """How many samples the mean is of."""
        return int(self.draws.shape[0])

    @property
    def standard_error(self) -> float:
        """Standard deviation of the mean, estimated from its samples; 0 where the value is exact."""
        if not self.samples:
            return 0.0
        return float(np.std(np.asarray(self.draws), ddof=1) / np.sqrt(self.samples)) if self.samples > 1 else np.inf

    @property
    def half_width(self) -> float:
        """Half of `interval`: the quantile of Student's t times the standard error, or `surely` if that is smaller."""
        if not self.samples:
            return self.excess
        if self.samples == 1:
            return self.surely + self.excess
        wide = float(stdtrit(self.samples - 1, 0.5 + self.confidence / 2)) * self.standard_error
        return min(wide, self.surely) + self.excess

    @property
    def interval(self) -> tuple[float, float]:
        """Confidence interval of the value, at the level `confidence`.

        Student's t takes the mean for normal: with few samples of a skewed kind it is too short, `surely` is not.
        """
        value, half = self._number, self.half_width
        return value - half, value + half

    @property
    def variance_cost(self) -> float:
        """Variance of the mean times its cost in `cost.unit`: the same for any number of samples, so it compares."""
        return self.standard_error**2 * getattr(self.cost, self.cost.unit)

    @property
    def _number(self) -> float:
        return number(self.value)

    def __repr__(self) -> str:
        if not self.samples:
            return f"StochasticEstimate: {self._number:.8g}, exact; {self.cost}"
        low, high = self.interval
        shown = f"{self._number:.8g} ± {self.standard_error:.2g} ({self.samples} samples)"
        level = f"{self.confidence:.0%} interval [{low:.8g}, {high:.8g}]"
        work = f"{self.cost}; variance x cost {self.variance_cost:.3g} ({self.cost.unit})"
        return f"StochasticEstimate: {shown}; {level}; {work}"


def generator(caller: str, rng: Any) -> np.random.Generator:
    """The Generator given, or a counter-based one for a seed."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool) and rng >= 0:
        return np.random.Generator(np.random.Philox(int(rng)))
    raise TypeError(
        f"{caller}: rng must be a numpy.random.Generator or an integer seed; got {describe(rng)}: "
        "give one, so that the draw can be repeated."
    )


def check_count(caller: str, name: str, value: Any, least: int = 1) -> int:
    """A count that is an integer of at least `least`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{caller}: {name} must be an integer of at least {least}; got {describe(value)}.")
    return int(value)


def check_confidence(caller: str, value: Any) -> float:
    """A level between 0 and 1."""
    if not isinstance(value, float) or not 0 < value < 1:
        raise ValueError(f"{caller}: confidence must be a float in (0, 1); got {describe(value)}.")
    return value


def check_positive(caller: str, name: str, value: Any) -> float:
    """A positive finite number."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not 0 < value < np.inf:
        raise ValueError(f"{caller}: {name} must be a positive number; got {describe(value)}.")
    return float(value)


def number(value: Any) -> float:
    """A 0-d array of any framework as a float."""
    return float(value.detach() if hasattr(value, "detach") else value)
