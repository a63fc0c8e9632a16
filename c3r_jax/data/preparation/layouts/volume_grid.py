"""Where the voxels of medical volumes lie: one orientation for all, one grid for the volumes of a case, and the air."""

from typing import Any, NamedTuple

import nibabel
import numpy as np
from jaxtyping import Float32, Float64

from c3r_jax.data.preparation.layout import DamagedItem

APART = 0.5  # voxels by which the corners of two volumes of one grid may be apart
COMMON = 0.05  # share of voxels from which one value can be a background


class Placed(NamedTuple):
    """A volume and where it lies.

    Attributes:
      voxels: with axes towards right, anterior and superior, if the file says where its axes point to.
      affine: from voxel numbers to millimetres; None if the file does not say.
      turned: whether the file stores its axes in another order or direction.
      name: the file's name.
    """

    voxels: Float32[np.ndarray, "height width depth"]
    affine: Float64[np.ndarray, "4 4"] | None
    turned: bool
    name: str


def upright(image: Any, name: str) -> tuple[Any, Float64[np.ndarray, "4 4"] | None, bool]:
    """Turns and mirrors an image's axes to the closest of right, anterior, superior (nothing is interpolated).

    Args:
      image: an image of nibabel.
      name: its file's name.

    Returns:
      The image, its affine and whether it was turned; as it is, None and False if its header does not say where its
      axes point to (qform_code and sform_code are 0).

    Raises:
      DamagedItem: its affine is no grid, or its header gives two orientations.

    Examples:
      >>> left = nibabel.Nifti1Image(np.arange(2.0).reshape(2, 1, 1), np.diag([-1, 1, 1, 1]))
      >>> upright(left, "t1.nii")[0].get_fdata().ravel().tolist()
      [1.0, 0.0]
    """
    by_code = [image.header.get_qform(coded=True), image.header.get_sform(coded=True)]
    given = [affine for affine, code in by_code if code]
    if not given:
        return image, None, False
    for affine in given:
        grid = affine[:3, :3]
        if not np.isfinite(affine).all() or abs(np.linalg.det(grid)) < 1e-9:
            raise DamagedItem(f"{name} has the affine {affine.tolist()}, which is no grid: save it with a valid one")
    codes = [nibabel.orientations.aff2axcodes(affine) for affine in given]
    if len(set(codes)) > 1:
        raise DamagedItem(
            f"{name} has two orientations, {''.join(codes[0])} by its qform and {''.join(codes[1])} by its sform: save "
            "it with one"
        )
    turned = codes[0] != ("R", "A", "S")
    image = nibabel.as_closest_canonical(image)
    return image, np.asarray(image.affine, np.float64), turned


def check_one_grid(volumes: list[Placed]) -> None:
    """Refuses the volumes of a case unless they lie on one grid, to half a voxel.

    Raises:
      DamagedItem: naming the volume that lies elsewhere.
    """
    first = volumes[0]
    for other in volumes[1:]:
        if (first.affine is None) != (other.affine is None):
            silent, says = (first, other) if first.affine is None else (other, first)
            raise DamagedItem(
                f"{silent.name} does not say where its axes point to (qform_code and sform_code are 0), but "
                f"{says.name} does: copy the affine into it if both are of one grid"
            )
        if first.affine is None or other.affine is None:
            continue
        ends = np.array(np.meshgrid(*[[0, size - 1] for size in first.voxels.shape], [1])).reshape(4, -1)
        apart = np.linalg.norm(((first.affine - other.affine) @ ends)[:3], axis=0).max()
        spacing = np.linalg.norm(first.affine[:3, :3], axis=0).min()
        if apart > APART * spacing:
            raise DamagedItem(
                f"{other.name} lies on another grid than {first.name} (voxels of {_sizes(other)} from {_origin(other)} "
                f"instead of {_sizes(first)} from {_origin(first)}, in mm): resample it onto that grid"
            )


def _sizes(volume: Placed) -> str:
    affine = np.eye(4) if volume.affine is None else volume.affine
    return " x ".join(f"{size:.4g}" for size in np.linalg.norm(affine[:3, :3], axis=0))


def _origin(volume: Placed) -> str:
    affine = np.eye(4) if volume.affine is None else volume.affine
    return f"({', '.join(f'{value:.4g}' for value in affine[:3, 3])})"


def background_of(volume: Float32[np.ndarray, "*shape"], name: str) -> float:
    """The value outside of the brain: 0, the least value if it is negative, or that of all corners; the common one.

    Raises:
      DamagedItem: two of them are common, so that either could be meant.

    Examples:
      >>> background_of(np.array([-1024, -1024, 3, 4], np.float32), "t1.nii")
      -1024.0
    """
    corners = np.unique(volume[tuple(slice(None, None, max(1, size - 1)) for size in volume.shape)])
    candidates = {0.0, min(0.0, float(volume.min()))} | ({float(corners[0])} if corners.size == 1 else set())
    common = sorted(value for value in candidates if np.mean(np.equal(volume, value)) >= COMMON)
    if len(common) > 1:
        raise DamagedItem(
            f"{name} has two values that could be its background, {' and '.join(f'{value:g}' for value in common)}: "
            "set all voxels outside of the brain to 0"
        )
    return common[0] if common else 0.0
