"""All rivals. A new one is a file in this folder and its class in the list below."""

import dataclasses
from typing import Any

from c3r_jax.errors import ConfigError
from c3r_jax.methods.alignment import Alignment
from c3r_jax.methods.casn import CaSN
from c3r_jax.methods.evidence import ConfidenceLoss, EvidentialLoss
from c3r_jax.methods.group_dro import GroupDRO
from c3r_jax.methods.irm import IRM
from c3r_jax.methods.mixup import Mixup
from c3r_jax.methods.ogm_ge import OGMGE
from c3r_jax.methods.rival import Rival, check_setting, settings_of
from c3r_jax.methods.vrex import VREx

_CLASSES: tuple[type[Rival], ...] = (
    Rival,
    OGMGE,
    Mixup,
    IRM,
    VREx,
    GroupDRO,
    CaSN,
    Alignment,
    EvidentialLoss,
    ConfidenceLoss,
)

RIVALS = {rival.name: rival for rival in _CLASSES if not rival.fusion}  # by config.rival.name
FUSION_LOSSES = {rival.fusion: rival for rival in _CLASSES if rival.fusion}  # by config.model.fusion


def rival_settings() -> dict[str, dataclasses.Field]:
    """{name: field} of everything ``config.rival`` sets besides the name: the settings of all rivals.

    Examples:
      >>> {name: field.default for name, field in rival_settings().items()}
      {'strength': 1.0, 'warmup': 100, 'radius': 1.0, 'temperature': 0.1}
    """
    fields: dict[str, dataclasses.Field] = {}
    for rival in _CLASSES:
        fields = {**fields, **settings_of(rival)}
    return fields


def meaning_of(setting: str) -> str:
    """The meaning of a setting for each rival that reads it.

    Examples:
      >>> meaning_of("temperature")
      'alignment: temperature of the similarities.'
    """
    readers: dict[str, list[str]] = {}
    for rival in _CLASSES[1:]:
        if setting in settings_of(rival):
            readers.setdefault(settings_of(rival)[setting].metadata["meaning"], []).append(rival.fusion or rival.name)
    return "; ".join(f"{', '.join(names)}: {meaning}" for meaning, names in readers.items()) + "."


def check_fusion(name: str, fusion: str) -> None:
    """Refuses a rival beside a fusion that has its own loss.

    Args:
      name: the rival's name.
      fusion: a value of ``config.model.fusion``.

    Raises:
      ConfigError: naming both.
    """
    if name != Rival.name and fusion in FUSION_LOSSES:
        raise ConfigError(
            f"config.rival.name is {name!r}, but fusion {fusion!r} has a loss of its own: use rival 'none', or "
            "another fusion."
        )


def make_rival(name: str = Rival.name, fusion: str = "mean", *, environments: int = 0, **settings: Any) -> Rival:
    """The rival for a name and a fusion.

    Args:
      name: one of :data:`RIVALS`.
      fusion: a value of ``config.model.fusion``; one with its own loss is its own rival.
      environments: number of environments that training rows come from; 0: they are not known.
      settings: some of :func:`rival_settings`; settings of other rivals are checked but not used.

    Raises:
      ConfigError: on a rival beside a fusion that has its own loss.
      ValueError: on an unknown name or a setting out of bounds.
      TypeError: on an unknown setting.

    Examples:
      >>> make_rival(fusion="evidential", strength=0.3, radius=2.0)
      EvidentialLoss(strength=0.3, warmup=100)
    """
    if name not in RIVALS:
        raise ValueError(f"Rival.name is {name!r}: expected one of {', '.join(RIVALS)}.")
    check_fusion(name, fusion)
    known = rival_settings()
    for setting, value in settings.items():
        if setting not in known:
            raise TypeError(f"Rival has no setting {setting!r}: expected some of {', '.join(known)}.")
        check_setting(known[setting], value)
    chosen = FUSION_LOSSES.get(fusion, RIVALS[name])
    used = {setting: value for setting, value in settings.items() if setting in settings_of(chosen)}
    return chosen(**used, **({"environments": environments} if chosen.needs_environments else {}))
