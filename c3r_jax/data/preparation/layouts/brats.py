"""BraTS 2020 and 2021: segmentation of brain tumours in four kinds of magnetic resonance images."""

import os
import pathlib
from collections.abc import Callable
from typing import ClassVar

import nibabel
import numpy as np
from jaxtyping import Float32, UInt8

from c3r_jax.data.counter_rng import uniform
from c3r_jax.data.preparation.layout import DamagedItem, Item, Layout, Record
from c3r_jax.data.preparation.layouts.volume_grid import Placed, background_of, check_one_grid, upright
from c3r_jax.data.preparation.source_files import is_clutter, resolve_inside
from c3r_jax.errors import DataError
from c3r_jax.files.archives import gunzip
from c3r_jax.files.natural import in_natural_order
from c3r_jax.files.pointers import lfs_hint
from c3r_jax.tasks.segmentation import SEGMENTATION

MODALITIES = ("flair", "t1", "t1ce", "t2")
ENDINGS = (".nii.gz", ".nii")
_CLASSES = {0: 0, 1: 1, 2: 2, 4: 3}  # {value in the files: class id}
_SHARES = {"train": 0.6, "validation": 0.75, "test": 1.0}  # cumulative
ROUNDING = 1e-3  # largest distance of a mask's value to a whole number
_DEPTH = 3  # largest number of folders between the source and a case's files


class Brats2020(Layout):
    """``<case>/<case>_{flair,t1,t1ce,t2,seg}.nii[.gz]``, at most two folders below the source.

    Only the official training cases have masks, so they are split here: a case belongs to train (60 %), validation
    (15 %) or test (25 %) by a fixed hash of its name, independently of the other cases. 369 cases are published,
    numbered from 1, which determines the sizes of the splits.

    Volumes are turned to one orientation (axes towards right, anterior, superior) as their affines say, and the volumes
    of a case must lie on one grid. Each volume is normalised separately: its voxels other than the background (the
    brain) get mean 0 and standard deviation 1, and the others 0. The background is 0, or what :func:`background_of`
    finds. Classes are 0 background, 1 necrotic and non-enhancing core, 2 oedema and
    3 enhancing tumour, which the files call 4; the regions of the challenge are whole tumour (1, 2, 3), core (1, 3)
    and enhancing (3). A case without one of the four images naturally lacks that modality. Case 355 of 2020 was
    published with a mask of another name (``W39_1998.09.19_Segm.nii``), which is also found.

    References:
      B. Menze et al., The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS), 2015.
      U. Baid et al., The RSNA-ASNR-MICCAI BraTS 2021 Benchmark, 2021.
    """

    name = "brats2020"
    title = "BraTS 2020 (brain tumours; four MR images, segmentation)"
    homepage = "https://www.med.upenn.edu/cbica/brats2020/data.html"
    license = "by registration, for research; cite the BraTS papers"
    task = SEGMENTATION
    regions = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}  # whole tumour, core, enhancing: of class ids
    kinds = dict.fromkeys(MODALITIES, "volume")
    shapes = {**dict.fromkeys(MODALITIES, (240, 240, 155, 1)), "label": (240, 240, 155)}
    published_sizes = {"train": 226, "validation": 60, "test": 83}
    splits = {"train": "train", "validation": "train", "test": "train"}
    version = "1.1.0"  # 1.0.0 ignored affines and took 0 for every background
    part_size = 4  # a case has 150 megabytes

    prefix: ClassVar[str] = "BraTS20_Training_"

    def problems(self, source: pathlib.Path) -> list[str]:
        """See :class:`Layout`."""
        if self._cases(source):
            return []
        return [
            f"{source} has no case {self.prefix}*/{self.prefix}*_flair.nii or .nii.gz: get the training data where "
            f"{self.homepage} says, and unpack it."
        ]

    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """Fixed by the benchmark."""
        return ("background", "necrotic and non-enhancing core", "oedema", "enhancing tumour")

    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """See :class:`Layout`: one item per case, sorted by name."""
        items: dict[str, list[Item]] = {split: [] for split in self.splits}
        for case in self._cases(source):
            items[split_of(case.name)].append(Item(case.name, None, place=str(case.relative_to(source))))
        return items

    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """See :class:`Layout`; "label" is the mask, uint8 of the volumes' shape without channels."""
        shape = self.shapes["label"]

        def volume(path: pathlib.Path) -> Placed:
            return read_placed(resolve_inside(source, path.relative_to(source).as_posix()), shape)

        def read(item: Item) -> Record:
            case = source / item.place
            paths = {name: path for name in MODALITIES if (path := _find(case, name)) is not None}
            if not paths:
                raise DamagedItem("it has none of the four images")
            mask_path = _find(case, "seg") or _odd_mask(case)
            if mask_path is None:
                raise DamagedItem(f"its mask {case.name}_seg.nii is missing")
            volumes, mask = {name: volume(path) for name, path in paths.items()}, volume(mask_path)
            placed = [*volumes.values(), mask]
            check_one_grid(placed)
            record: Record = {"label": classes_of(mask.voxels, mask.name), **dict.fromkeys(MODALITIES)}
            other = 0
            for name, one in volumes.items():
                background = background_of(one.voxels, one.name)
                other += background != 0
                record[name] = normalised(one.voxels - np.float32(background), one.name)[..., None]
            turned = sum(one.turned for one in placed)
            mended = {
                "volumes that were stored in another orientation than others of their case": turned % len(placed),
                "volumes whose background was not 0": other,
                "masks whose values were rounded": int((mask.voxels != np.round(mask.voxels)).any()),
            }
            mended = {repair: count for repair, count in mended.items() if count}
            return record | ({"mended": mended} if mended else {})

        return read

    def _cases(self, source: pathlib.Path) -> list[pathlib.Path]:
        """Folders that are named like a case and contain a file of that case."""
        cases = []
        for folder, names, files in os.walk(source):
            path = pathlib.Path(folder)
            names[:] = [name for name in names if not is_clutter(name)]
            if path.name.startswith(self.prefix) and any(file.startswith(f"{path.name}_") for file in files):
                cases.append(path)
            if len(path.relative_to(source).parts) >= _DEPTH:
                names.clear()
        return in_natural_order(cases, lambda path: path.name)


class Brats2021(Brats2020):
    """As :class:`Brats2020`; 1,251 cases are published, including those of 2020 under other names."""

    name = "brats2021"
    title = "BraTS 2021 (brain tumours; four MR images, segmentation)"
    homepage = "https://www.synapse.org/brats2021"
    published_sizes = {}  # of 1,251 cases; their numbers have gaps
    prefix = "BraTS2021_"


def split_of(case: str) -> str:
    """The split of a case, which depends only on its name.

    Examples:
      >>> [split_of(f"BraTS20_Training_{i:03d}") for i in (1, 2, 3)]
      ['train', 'train', 'train']
    """
    number = float(uniform(0, "split", case)[0])
    return next(split for split, end in _SHARES.items() if number < end)


def read_nifti(path: pathlib.Path, shape: tuple[int, ...]) -> Float32[np.ndarray, "height width depth"]:
    """The voxels of :func:`read_placed`."""
    return read_placed(path, shape).voxels


def read_placed(path: pathlib.Path, shape: tuple[int, ...]) -> Placed:
    """Reads a NIfTI-1 or NIfTI-2 volume of a known shape, turned to axes towards right, anterior, superior.

    Whether it is compressed is what the file says, not its name; further axes of length 1 are dropped.

    Raises:
      DamagedItem: the file is damaged or too large, its affine is no grid, or the volume has another shape or
        non-finite voxels.
    """
    limit = 65_536 + 8 * int(np.prod(shape))  # the largest number type, a header and its extensions
    try:
        content = _content(path, limit)
        second = content[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # the length of its header, 540
        kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
        image, affine, turned = upright(nibabel.squeeze_image(kind.from_bytes(content)), path.name)
        if image.shape != shape:
            raise DamagedItem(f"{path.name} has shape {image.shape}, expected {shape}")
        volume = np.asarray(image.dataobj)
    except DamagedItem:
        raise
    except DataError as error:
        raise DamagedItem(str(error)) from error
    except Exception as error:  # the reader raises many kinds of errors on damaged files
        raise DamagedItem(f"{path.name} is no whole NIfTI file ({type(error).__name__}: {error})") from error
    if volume.dtype.kind not in "iuf" or not np.isfinite(volume).all():
        raise DamagedItem(f"{path.name} has voxels that are no finite numbers")
    return Placed(volume.astype(np.float32), affine, turned, path.name)


def _content(path: pathlib.Path, limit: int) -> bytes:
    """The unpacked content of a volume's file; many are packed without, or not packed with the ending .gz."""
    with path.open("rb") as file:
        start = file.read(200)
    if hint := lfs_hint(start):
        raise DamagedItem(f"{path.name} {hint}")
    if start.startswith(b"\x1f\x8b"):
        return gunzip(path, limit=limit)
    if path.stat().st_size > limit:
        raise DamagedItem(f"{path.name} has {path.stat().st_size:,} bytes, more than {limit:,}")
    return path.read_bytes()


def normalised(volume: Float32[np.ndarray, "*shape"], name: str) -> Float32[np.ndarray, "*shape"]:
    """Normalises the nonzero voxels of a volume to mean 0 and standard deviation 1; the others stay 0.

    Raises:
      DamagedItem: there are fewer than two different nonzero values.

    Examples:
      >>> normalised(np.array([0.0, 1.0, 3.0], np.float32), "t1").tolist()
      [0.0, -1.0, 1.0]
    """
    brain = volume != 0
    values = volume[brain].astype(np.float64)
    if not values.size or not values.std() > 0:
        raise DamagedItem(f"{name} has no brain: its voxels other than 0 are {values.size} of one value")
    result = np.zeros_like(volume)
    result[brain] = (values - values.mean()) / values.std()
    return result


def classes_of(mask: Float32[np.ndarray, "*shape"], name: str) -> UInt8[np.ndarray, "*shape"]:
    """Class ids 0 to 3 of a mask with values 0, 1, 2 and 4, up to the rounding of scaled files.

    Raises:
      DamagedItem: the mask has another value.
    """
    whole = np.round(mask)
    mask = np.where(np.abs(mask - whole) <= ROUNDING, whole, mask)
    unknown = np.setdiff1d(mask, list(_CLASSES))
    if unknown.size:
        hint = ": 3 is the enhancing tumour since 2023 and was the non-enhancing core until 2016; write 4 or 1 for it"
        raise DamagedItem(
            f"{name} has values {unknown[:5].tolist()}, expected {', '.join(map(str, _CLASSES))} only"
            + hint * (3 in unknown)
        )
    return np.where(mask == 4, 3, mask).astype(np.uint8)


def _odd_mask(case: pathlib.Path) -> pathlib.Path | None:
    """The mask of case 355 of 2020, by its other name."""
    return next((path for path in sorted(case.glob("*_Segm.nii*")) if not is_clutter(path.name)), None)


def _find(case: pathlib.Path, name: str) -> pathlib.Path | None:
    paths = (case / f"{case.name}_{name}{ending}" for ending in ENDINGS)
    return next((path for path in paths if path.is_file()), None)
