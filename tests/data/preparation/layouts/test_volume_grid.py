"""Volumes of a case are brought to one orientation; other grids, and backgrounds of two meanings, are refused."""

import nibabel
import numpy as np
import pytest

from c3r_jax.data.preparation.layout import DamagedItem
from c3r_jax.data.preparation.layouts.brats import MODALITIES
from tests.data.preparation.layouts.test_brats import expected_of, read
from tests.data.preparation.media_files import BRATS_SHAPE as SHAPE
from tests.data.preparation.media_files import brats_mask, brats_volume, write_brats_case

AFFINE = np.array([[1.0, 0, 0, -10], [0, 1, 0, 5], [0, 0, 2, 1], [0, 0, 0, 1]])


def stored_as(volume, codes, affine=AFFINE):
    """The same volume with its axes towards ``codes``, as another scanner would store it."""
    image = nibabel.Nifti1Image(np.asarray(volume, np.int16), affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(affine), nibabel.orientations.axcodes2ornt(codes)
    )
    return image.as_reoriented(turn)


def write_case(tmp_path, change):
    """A case of which ``change(name, image)`` gives each volume."""
    case = write_brats_case(tmp_path, 1)
    for i, name in enumerate((*MODALITIES, "seg")):
        raw = brats_mask(1) if name == "seg" else brats_volume(10 + i)
        nibabel.save(change(name, raw), case / f"{case.name}_{name}.nii.gz")


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SLA", "AIL"])
@pytest.mark.parametrize("part", ["t2", "seg", None])
def test_another_orientation_gives_the_same_voxels(tmp_path, codes, part):
    """Of one image, of the mask, and of all."""
    write_case(tmp_path, lambda name, raw: stored_as(raw, codes if part in (None, name) else "RAS"))
    record = read(tmp_path, 1)
    for i, name in enumerate(MODALITIES):
        np.testing.assert_allclose(record[name], expected_of(brats_volume(10 + i)), rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(record["label"], np.where(brats_mask(1) == 4, 3, brats_mask(1)))
    mixed = part is not None and codes != "RAS"
    assert record.get("mended") == (
        {"volumes that were stored in another orientation than others of their case": 1} if mixed else None
    )


def shifted(millimetres):
    return lambda raw: nibabel.Nifti1Image(
        np.asarray(raw, np.int16), AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 1]) * millimetres
    )


def spaced(raw):
    return nibabel.Nifti1Image(np.asarray(raw, np.int16), AFFINE @ np.diag([1.2, 1, 1, 1]))


def silent(raw):
    return nibabel.Nifti1Image(np.asarray(raw, np.int16), None)


def flat(raw):
    image = nibabel.Nifti1Image(np.asarray(raw, np.int16), AFFINE)
    image.set_sform(np.diag([0, 1, 1, 1]) @ AFFINE, 1)
    return image


def two_ways(raw):
    image = stored_as(raw, "RAS")
    image.set_qform(AFFINE @ np.diag([-1, 1, 1, 1]), 1)
    return image


@pytest.mark.parametrize(
    "change, reason",
    [
        (shifted(3.0), r"_t2\.nii\.gz lies on another grid than .*_flair\.nii\.gz .*from \(-7, 5, 1\) instead of"),
        (spaced, r"_t2\.nii\.gz lies on another grid .*voxels of 1\.2 x 1 x 2"),
        (silent, r"_t2\.nii\.gz does not say where its axes point to .*but .*_flair\.nii\.gz does"),
        (flat, r"_t2\.nii\.gz has the affine .*which is no grid"),
        (two_ways, r"_t2\.nii\.gz has two orientations, LAS by its qform and RAS by its sform"),
    ],
)
def test_another_grid_is_refused_by_name(tmp_path, change, reason):
    write_case(tmp_path, lambda name, raw: change(raw) if name == "t2" else stored_as(raw, "RAS"))
    with pytest.raises(DamagedItem, match=reason):
        read(tmp_path, 1)


@pytest.mark.parametrize("make", [silent, shifted(0.1)])
def test_a_case_that_says_nothing_and_rounded_affines_are_as_they_lie(tmp_path, make):
    write_case(tmp_path, lambda name, raw: make(raw) if make is silent or name == "t2" else stored_as(raw, "RAS"))
    np.testing.assert_allclose(read(tmp_path, 1)["t1"], expected_of(brats_volume(11)), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    "background, dtype", [(-1024, np.int16), (-1, np.int16), (-3024, np.float32), (-0.5, np.float64)]
)
def test_a_background_below_zero_is_no_brain(tmp_path, background, dtype):
    raw = brats_volume(12)
    moved = np.where(raw == 0, background, raw).astype(dtype)
    write_case(
        tmp_path,
        lambda name, one: nibabel.Nifti1Image(moved, AFFINE) if name == "t1ce" else stored_as(one, "RAS"),
    )
    record = read(tmp_path, 1)
    np.testing.assert_allclose(record["t1ce"], expected_of(raw), rtol=2e-5, atol=2e-5)
    assert record["mended"] == {"volumes whose background was not 0": 1}


def test_a_border_of_another_value_is_no_brain_either(tmp_path):
    raw = np.zeros(SHAPE, np.int16)
    raw[1:-1, 1:-1, 1:-1] = np.arange(1, 25).reshape(4, 3, 2)
    write_case(tmp_path, lambda name, one: stored_as(np.where(raw == 0, 5000, raw) if name == "t1" else one, "RAS"))
    np.testing.assert_allclose(read(tmp_path, 1)["t1"], expected_of(raw), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("value", [-1024, -1, -3])
def test_two_backgrounds_are_refused(tmp_path, value):
    """Such as zeros of a resampling around the air of a scan."""
    raw = brats_volume(11)
    raw[:2] = value
    write_case(tmp_path, lambda name, one: stored_as(raw if name == "t1" else one, "RAS"))
    with pytest.raises(DamagedItem, match=rf"_t1\.nii\.gz has two values .*background, {value} and 0: set all voxels"):
        read(tmp_path, 1)


def test_brains_of_mean_zero_keep_their_zeros_outside(tmp_path):
    raw = expected_of(brats_volume(11))[..., 0].astype(np.float32)
    write_case(tmp_path, lambda name, one: nibabel.Nifti1Image(raw, AFFINE) if name == "t1" else stored_as(one, "RAS"))
    record = read(tmp_path, 1)
    assert "mended" not in record
    np.testing.assert_allclose(record["t1"], expected_of(raw), rtol=2e-5, atol=2e-5)
