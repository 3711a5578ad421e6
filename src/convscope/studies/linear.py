"""Linear classifiers on features: softmax and support vectors, scikit-learn's."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import ConvscopeError, OptionError

Kind = Literal["softmax", "svm"]
KINDS: tuple[Kind, ...] = ("softmax", "svm")

TITLES: dict[str, str] = {"softmax": "softmax", "svm": "linear SVM"}

_GRAM = 12_000
"""Pictures up to which the products of all pairs are held, 1.2 GB."""


def check_sklearn() -> None:
    """Refuse linear classifiers where nothing can fit them. Raises ConvscopeError."""
    try:
        import sklearn as _  # noqa: F401
    except ImportError:
        raise ConvscopeError("linear classifiers need scikit-learn: pip install 'convscope[study]'") from None


@dataclass(frozen=True)
class Fitting:
    """How a classifier is fitted: `c` is the inverse of the penalty's weight, `iterations` the most steps."""

    kind: Kind
    c: float = 1.0
    iterations: int = 1000

    def check(self, count: int) -> None:
        """Raise OptionError for more pictures than the classifier can learn from."""
        if self.kind == "svm" and count > _GRAM:
            raise OptionError(
                f"a linear SVM of {count:,} pictures needs the products of all pairs, {count**2 * 8 / 1e9:.1f} GB: "
                f"take at most {_GRAM:,} pictures, or classifier softmax"
            )

    def answers(self, learn: np.ndarray, labels: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, bool]:
        """Fit to features (n, numbers) and labels (n,); return the labels of others, and whether the fit converged.

        Every feature is brought to mean 0 and standard deviation 1 on what is learnt from, and all by one factor to a
        mean squared length of 1, so that the same `c` suits layers with few and with many numbers.
        """
        middle, spread = learn.mean(0), learn.std(0)
        spread[spread == 0] = 1  # constant: says nothing
        scale = spread * np.sqrt(learn.shape[1])
        learn, test = (learn - middle) / scale, (test - middle) / scale
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            answers = self._fitted(learn, labels, test)
        return answers, not any("onverge" in str(each.message) or "max_iter" in str(each.message) for each in said)

    def _fitted(self, learn: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import SVC

        if self.kind == "softmax":
            softmax: Any = LogisticRegression(C=self.c, max_iter=self.iterations)
            return softmax.fit(learn, labels).predict(test)
        # One against one, by the products of pairs: a layer may have many more numbers than there are pictures.
        steps = -1 if self.iterations == 0 else self.iterations * 100
        machine: Any = SVC(C=self.c, kernel="precomputed", max_iter=steps)
        return machine.fit(learn @ learn.T, labels).predict(test @ learn.T)
