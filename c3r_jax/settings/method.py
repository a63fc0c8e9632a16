"""Modality dropout: ``config.modality_dropout``."""

from dataclasses import dataclass

from c3r_jax.settings.fields import Part, setting


@dataclass(frozen=True)
class ModalityDropoutSettings(Part, place="modality_dropout"):
    """Modality dropout, alone or combined with another method."""

    switch: str = setting("auto", "auto: on for method modality_dropout alone.", choices=("auto", "on", "off"))
    rate: float = setting(0.4, "Share of training examples that lose some of their modalities.", least=0, most=1)
