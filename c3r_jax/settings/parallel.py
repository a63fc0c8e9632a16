"""How a run is split over devices: ``config.parallel``."""

from dataclasses import dataclass

from c3r_jax.settings.fields import Part, setting


@dataclass(frozen=True)
class ParallelSettings(Part, place="parallel"):
    """The strategy, and the axes of the mesh."""

    strategy: str = setting("pmap", "pmap: the state on every device; mesh: the state split over devices, by jit.")
    fsdp: int = setting(1, "mesh: devices that share each large parameter.", least=1)
    tensor: int = setting(1, "mesh: devices that share the matrices of transformer and mixer blocks.", least=1)
    min_size: int = setting(65536, "mesh: parameters of fewer elements are copied to every device.", least=0)
