"""Published encoders, to be given published weights."""

from c3r_jax.models.pretrained.architectures import ARCHITECTURES, Architecture
from c3r_jax.models.pretrained.encoder import PretrainedEncoder

__all__ = ["ARCHITECTURES", "Architecture", "PretrainedEncoder"]
