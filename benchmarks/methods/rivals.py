"""Other fusions and ways of training with the estimator's network, alone and with C3R; their strength is selected."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

from c3r_jax import C3RClassifier
from c3r_jax.core.config import C3RConfig
from c3r_jax.methods.registry import RIVALS as KNOWN
from c3r_jax.methods.registry import make_rival
from c3r_jax.step.in_memory import Structure, weights_of
from configs.sweeps.rivals import RIVALS as STUDY

VALIDATION_SHARE = 0.25  # of the training rows, where a strength is selected


def _settings(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell of configs/sweeps/rivals.py as settings of :func:`benchmarks.safety.estimator`."""
    if "dropout" in cell:
        return {"modality_dropout": cell["dropout"]}
    return {"rival": {"name" if key == "rival" else key: value for key, value in cell.items()}}


# {name: settings}; the strengths are those of the study, several of a rival being selected from.
RIVALS = {
    name: _settings(cell)
    for name, cell in STUDY.items()
    if cell and not KNOWN[cell.get("rival", "none")].needs_environments  # the mean, without settings, is "plain"
}
PAIRS: dict[str, dict[str, Any]] = {"plain": {"regularised": False}, "c3r": {}}
for _name, _of_rival in RIVALS.items():
    PAIRS |= {_name: {"regularised": False, **_of_rival}, f"{_name} + c3r": _of_rival}


class WithRival(C3RClassifier):
    """The estimator with a rival's loss or fusion, as ``config.rival`` and ``config.model.fusion`` set them."""

    rival: Mapping[str, Any] = {}

    def _structure_of(self, *arguments: Any, **settings: Any) -> Structure:
        chosen = dataclasses.replace(make_rival(**self.rival), strength=1.0)  # its strength is among the weights
        structure = super()._structure_of(*arguments, **settings)
        return structure._replace(fusion=self.rival.get("fusion", "mean"), rival=chosen)

    def _weights(self, config: C3RConfig) -> np.ndarray:
        return weights_of(config, self.rival.get("strength", 1.0))


class Selected:
    """The estimator with the strength that is most accurate on validation rows, trained on all rows with it.

    Args:
      rival: settings, ``strength`` being several values; of two that are equally accurate, the first is chosen.
      settings: of the estimator.
    """

    def __init__(self, rival: Mapping[str, Any], **settings: Any):
        self.rival, self.settings = rival, settings

    def fit(self, inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> "Selected":
        """Trains every strength on three quarters of the rows, and the best of the rest on all."""
        train, held = train_test_split(
            np.arange(len(labels)),
            test_size=VALIDATION_SHARE,
            stratify=labels,
            random_state=self.settings.get("seed", 0),
        )

        def rows(chosen: np.ndarray) -> dict[str, np.ndarray]:
            return {name: values[chosen] for name, values in inputs.items()}

        def accuracy(strength: float) -> float:
            model = self._with(strength).fit(rows(train), labels[train])
            return float(accuracy_score(labels[held], model.predict(rows(held))))

        self.strength_ = max(self.rival["strength"], key=accuracy)
        self.model_ = self._with(self.strength_).fit(inputs, labels)
        return self

    def predict(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Class labels (n,)."""
        return self.model_.predict(inputs)

    def _with(self, strength: float) -> WithRival:
        return rival_estimator({**self.rival, "strength": strength}, **self.settings)


def rival_estimator(rival: Mapping[str, Any], **settings: Any) -> Any:
    """The estimator with a rival; where that has several strengths, with the one that validation selects."""
    if isinstance(rival.get("strength"), tuple):
        return Selected(rival, **settings)
    model = WithRival(**settings)
    model.rival = rival
    return model
