"""Where a quick model's scores lie near a threshold, a more exact one looks again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.bundle import Threshold
from pipeline.runtimes import Runtime
from pipeline.types import Detections

_SURE = 1e-6
"""Scores closer than this to 0 or 1 have odds that mean nothing."""


class Recheck:
    """The more exact model, and when it is asked.

    A score s is near a threshold t if the odds s / (1 - s) and t / (1 - t) lie within a factor of
    each other: rounding moves what the network puts out before its sigmoid, the logarithm of the
    odds, so that one factor is right for thresholds of 0.1 and of 0.7.

    Attributes:
        runtime: what runs the more exact model; it takes the same input.
    """

    def __init__(
        self,
        runtime: Runtime,
        labels: Sequence[str],
        bands: Mapping[str, Threshold],
        odds: float,
        *,
        one_fails: bool,
    ) -> None:
        """Assemble it.

        Args:
            runtime: runs the more exact model.
            labels: class names, in the order of the label numbers.
            bands: per label, from which score on a defect is unsure, and fails.
            odds: the factor, above 1.
            one_fails: a defect that clearly fails decides alone; else, as where a recipe tolerates
                some, every score near a threshold is looked at again.
        """
        self.runtime = runtime
        self._unsure = _logit(np.array([bands[label].unsure for label in labels]))
        self._fail = _logit(np.array([bands[label].fail for label in labels]))
        self._far = float(np.log(odds))
        self._one_fails = one_fails

    def asks(self, found: Detections) -> bool:
        """Return whether what the quick model found must be looked at again."""
        if len(found) == 0:
            return False
        score = _logit(found.score.astype(np.float64))
        above = score - self._fail[found.label]
        if self._one_fails and above.max() >= self._far:
            return False
        # Between the two thresholds lies doubt, however wide the band is.
        is_near = (above < self._far) & (score - self._unsure[found.label] > -self._far)
        return bool(is_near.any())


def _logit(share: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(share, _SURE, 1 - _SURE)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float64)
