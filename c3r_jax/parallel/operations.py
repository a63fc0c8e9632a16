"""Floating-point operations of the matrix products and convolutions of a compiled program."""

import functools
import json
import math
import re

import numpy as np

from c3r_jax.parallel.hlo import Execution, Instruction, Module, shapes

_WINDOW = re.compile(r"window=\{([^}]*)\}")
_LABELS = re.compile(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)")
_GROUPS = re.compile(r"\b(feature|batch)_group_count=(\d+)")
_MATRIX_CALL = re.compile(r'custom_call_target="__cublas')
_CONVOLUTION_CALL = re.compile(r'custom_call_target="__cudnn\$conv(?:BiasActivation)?(\w*)')


def operations(module: Module, execution: Execution) -> int:
    """Operations of one run of an instruction: 2 for each product that is summed; 0 unless it multiplies matrices.

    A product of (n, k) and (k, m) has 2 n k m. A convolution has 2 for each pair of an output and an input within the
    window; positions in the padding, or between the elements of a dilated input, count nothing. NVIDIA's libraries are
    called by custom calls, whose attributes have the same numbers.

    Args:
      module: the program.
      execution: an instruction and where it stands.

    Examples:
      >>> from c3r_jax.parallel.hlo import executions, parse
      >>> text = '''ENTRY %main {
      ...   %a = f32[8,3] parameter(0)
      ...   %b = f32[3,5] parameter(1)
      ...   %c = f32[8,5] dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
      ... }'''
      >>> sum(operations(parse(text), each) for each in executions(parse(text)))
      240
    """
    instruction = execution.instruction
    where = module.computations[execution.computation]
    if instruction.kind == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
        return _product(instruction, where, [int(d) for d in contracted[1].split(",") if d] if contracted else [])
    if instruction.kind == "convolution":
        return _convolution(instruction, *_sizes(instruction, where))
    if instruction.kind == "custom-call":
        if _MATRIX_CALL.search(instruction.rest):
            contracted = re.search(r'"lhs_contracting_dimensions":(\[[^\]]*\])', instruction.rest)
            return _product(instruction, where, [int(d) for d in json.loads(contracted[1])] if contracted else [])
        call = _CONVOLUTION_CALL.search(instruction.rest)
        if call:
            first, second, result = _sizes(instruction, where)
            # Of image, filter and output, each call computes one from the other two, which count the same pairs.
            if call[1] == "BackwardInput":
                return _convolution(instruction, result, second, first)
            if call[1] == "BackwardFilter":
                return _convolution(instruction, first, result, second)
            return _convolution(instruction, first, second, result)
    return 0


def _sizes(instruction: Instruction, where: dict[str, Instruction]) -> tuple[tuple[int, ...], ...]:
    """Sizes of two operands and of the (first) result."""
    inputs = [shapes(where[name].shape)[0][1] for name in instruction.operands[:2]]
    return *inputs, shapes(instruction.shape)[0][1]


def _product(instruction: Instruction, where: dict[str, Instruction], contracted: list[int]) -> int:
    left, _, result = _sizes(instruction, where)
    return 2 * math.prod(result) * math.prod(left[d] for d in contracted)


def _convolution(
    instruction: Instruction, image: tuple[int, ...], kernel: tuple[int, ...], result: tuple[int, ...]
) -> int:
    labels = _LABELS.search(instruction.rest)
    if labels is None:
        return 0
    image_labels, kernel_labels, result_labels = labels.groups()
    window = _WINDOW.search(instruction.rest)
    settings = dict(word.split("=", 1) for word in window[1].split()) if window else {}
    pairs = 1
    for axis in range(len(result) - 2):
        place = str(axis)
        pairs *= _pairs(
            image[image_labels.index(place)],
            kernel[kernel_labels.index(place)],
            result[result_labels.index(place)],
            int(_axis(settings, "stride", axis, "1")),
            int(_axis(settings, "pad", axis, "0_0").split("_")[0]),
            int(_axis(settings, "lhs_dilate", axis, "1")),
            int(_axis(settings, "rhs_dilate", axis, "1")),
        )
    groups = {name: int(count) for name, count in _GROUPS.findall(instruction.rest)}
    inputs = kernel[kernel_labels.index("i")]  # of one group
    batch = image[image_labels.index("b")] // groups.get("batch", 1)
    return 2 * inputs * result[result_labels.index("f")] * batch * pairs


def _axis(settings: dict[str, str], name: str, axis: int, default: str) -> str:
    return settings[name].split("x")[axis] if name in settings else default


@functools.lru_cache(maxsize=4096)
def _pairs(image: int, kernel: int, result: int, stride: int, pad: int, spread: int, holes: int) -> int:
    """Pairs of output and kernel positions along one axis that meet an element of the image."""
    ends = np.arange(result, dtype=np.int64)[:, None] * stride - pad
    places = ends + np.arange(kernel, dtype=np.int64)[None, :] * holes
    inside = (places >= 0) & (places < (image - 1) * spread + 1) & (places % spread == 0)
    return int(inside.sum())
