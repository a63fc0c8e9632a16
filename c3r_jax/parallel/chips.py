"""Published figures of accelerators: what a chip can do at best, per chip and in one direction."""

from typing import NamedTuple

from c3r_jax.errors import ConfigError

GIB = 2**30


class Multiprocessors(NamedTuple):
    """What the compiler for a GPU needs to know about it.

    Attributes:
      count: streaming multiprocessors.
      capability: (major, minor) compute capability.
      clock_ghz: highest clock rate.
      lanes: float32 units of a multiprocessor.
      shared_bytes: shared memory of a multiprocessor.
      block_bytes: shared memory that one block may have.
      cache_bytes: the second-level cache.
    """

    count: int
    capability: tuple[int, int]
    clock_ghz: float
    lanes: int
    shared_bytes: int
    block_bytes: int
    cache_bytes: int


class Chip(NamedTuple):
    """Published figures of a chip.

    Attributes:
      title: its name for people.
      platform: JAX's name of its compiler, "tpu" or "cuda".
      flops: dense bfloat16 operations per second.
      memory: bytes.
      bandwidth: memory bandwidth, bytes per second.
      links: bytes per second that a chip can send over all links to the chips of its slice (TPU) or host (GPU).
      network: bytes per second that a chip can send to other slices or hosts, by the data center's network.
      clock: cycles per second in which the compiler estimates; None where it does not.
      gpu: its multiprocessors, for GPUs.
    """

    title: str
    platform: str
    flops: float
    memory: float
    bandwidth: float
    links: float
    network: float
    clock: float | None = None
    gpu: Multiprocessors | None = None


# TPUs: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}: peak compute, HBM capacity and bandwidth, and interconnect,
# which the pages give for both directions together (v5e 400, v5p 1,200, v6e 800 GB/s: half of it here), or as the
# sum of one direction (v4: six links of 50 GB/s in N. Jouppi et al., TPU v4, ISCA 2023). Network: v5p 50 Gbit/s a chip;
# v5e 6.4 and v6e 25.6 Tbit/s for the 256 chips of a pod; v4: 81 Tbit/s between two pods of 3,072 chips, as measured by
# A. Chowdhery et al., PaLM, 2022, arXiv 2204.02311. Cycles: v4 1,050 MHz in the paper above; the others from the peak
# and the multiply-add units of the matrix units: 4 x 128 x 128 (v5e), 8 x 128 x 128 (v5p) and 4 x 256 x 256 (v6e).
# GPUs: NVIDIA's data sheets of A100 80GB SXM, H100 SXM, H200 SXM and HGX B200: bfloat16 without sparsity; NVLink is
# given there for both directions together (600, 900, 900 and 1,800 GB/s: half of it here). Network: the adapters of
# DGX A100 (200 Gbit/s a GPU) and of DGX H100, H200 and B200 (400 Gbit/s). Multiprocessors: the architecture white
# papers (Ampere, Hopper, Blackwell) and the table of compute capabilities in the CUDA C++ Programming Guide.
CHIPS = {
    "v4": Chip("TPU v4", "tpu", 275e12, 32 * GIB, 1.2e12, 300e9, 3.3e9, 1.05e9),
    "v5e": Chip("TPU v5e", "tpu", 197e12, 16 * GIB, 0.819e12, 200e9, 3.125e9, 1.5e9),
    "v5p": Chip("TPU v5p", "tpu", 459e12, 95 * GIB, 2.765e12, 600e9, 6.25e9, 1.75e9),
    "v6e": Chip("TPU v6e", "tpu", 918e12, 32 * GIB, 1.6e12, 400e9, 12.5e9, 1.75e9),
    "a100": Chip(
        "A100 80GB SXM", "cuda", 312e12, 80e9, 2.039e12, 300e9, 25e9,
        gpu=Multiprocessors(108, (8, 0), 1.41, 64, 164 << 10, 163 << 10, 40 << 20),
    ),
    "h100": Chip(
        "H100 SXM", "cuda", 989e12, 80e9, 3.35e12, 450e9, 50e9,
        gpu=Multiprocessors(132, (9, 0), 1.98, 128, 228 << 10, 227 << 10, 50 << 20),
    ),
    "h200": Chip(
        "H200 SXM", "cuda", 989e12, 141e9, 4.8e12, 450e9, 50e9,
        gpu=Multiprocessors(132, (9, 0), 1.98, 128, 228 << 10, 227 << 10, 50 << 20),
    ),
    "b200": Chip(
        "B200 SXM", "cuda", 2250e12, 180e9, 8.0e12, 900e9, 50e9,
        gpu=Multiprocessors(148, (10, 0), 1.965, 128, 228 << 10, 227 << 10, 126 << 20),
    ),
}  # fmt: skip


def find_chip(name: str) -> Chip:
    """The figures of a chip.

    Raises:
      ConfigError: it is not in the table.

    Examples:
      >>> find_chip("v5p").memory / 2**30
      95.0
    """
    if name not in CHIPS:
        raise ConfigError(f"the chip {name!r} is unknown: expected one of {', '.join(CHIPS)}.")
    return CHIPS[name]


def description(chip: Chip) -> str:
    """A GPU as the text that NVIDIA's part of XLA compiles for, when there is none in this machine.

    Examples:
      >>> description(find_chip("h100")).splitlines()[1].strip()
      'core_count: 132'
    """
    gpu = chip.gpu
    assert gpu is not None
    major, minor = gpu.capability
    # From 9.0 on the compiler has instructions of one capability alone, as every card of it has.
    exact = " feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
    fields = {
        "core_count": gpu.count,
        "fpus_per_core": gpu.lanes,
        "clock_rate_ghz": gpu.clock_ghz,
        "l2_cache_size": gpu.cache_bytes,
        "memory_bandwidth": int(chip.bandwidth),
        "device_memory_size": int(chip.memory),
        "shared_memory_per_core": gpu.shared_bytes,
        "shared_memory_per_block_optin": gpu.block_bytes,
        # The same for all of these capabilities.
        "shared_memory_per_block": 48 << 10,
        "threads_per_warp": 32,
        "threads_per_block_limit": 1024,
        "threads_per_core_limit": 2048,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    lines = [f"  {name}: {value}" for name, value in fields.items()]
    lines.append(f"  cuda_compute_capability {{ major: {major} minor: {minor}{exact} }}")
    versions = 'platform_name: "CUDA"\ndnn_version_info { major: 9 minor: 8 patch: 0 }'
    return "\n".join(["gpu_device_info {", *lines, "}", versions, f'device_description_str: "{chip.title}"', ""])
