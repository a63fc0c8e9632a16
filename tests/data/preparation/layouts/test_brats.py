"""BraTS: small volumes written by the tests come back normalised, masks as class ids, damage with its reason."""

import gzip

import nibabel
import numpy as np
import pytest

from c3r_jax.data.preparation.layout import DamagedItem, Item
from c3r_jax.data.preparation.layouts.brats import MODALITIES, Brats2020, Brats2021, split_of
from tests.data.preparation.media_files import (
    BRATS_CASES,
    SmallBrats,
    brats_mask,
    brats_volume,
    write_brats_case,
    write_nifti,
)
from tests.data.preparation.media_files import BRATS_SHAPE as SHAPE


def read(source, number):
    layout = SmallBrats()
    assert layout.problems(source) == []
    items = {item.key: item for split in layout.items(source).values() for item in split}
    return layout.reader(source)(items[f"BraTS20_Training_{number:03d}"])


def expected_of(raw):
    """By the definition, in float64."""
    inside = raw[raw != 0].astype(np.float64)
    return np.where(raw == 0, 0.0, (raw - inside.mean()) / inside.std())[..., None]


@pytest.mark.parametrize("below", ["", "MICCAI_BraTS2020_TrainingData", "a/b"])
def test_cases_come_back_normalised_with_class_ids(tmp_path, below):
    for number in (1, 7):
        write_brats_case(tmp_path / below, number, endings=(".nii.gz", ".nii"))
    for number in (1, 7):
        record = read(tmp_path, number)
        for i, modality in enumerate(MODALITIES):
            assert record[modality].dtype == np.float32 and record[modality].shape == (*SHAPE, 1)
            np.testing.assert_allclose(
                record[modality], expected_of(brats_volume(10 * number + i)), rtol=2e-6, atol=1e-6
            )
        np.testing.assert_array_equal(record["label"], np.where(brats_mask(number) == 4, 3, brats_mask(number)))
        assert record["label"].dtype == np.uint8 and sorted(record) == sorted([*MODALITIES, "label"])


def test_scaled_and_float_files_are_read_as_their_header_says(tmp_path):
    case = write_brats_case(tmp_path, 1)
    raw = brats_volume(99)
    write_nifti(case / f"{case.name}_t1.nii.gz", raw, np.float64)
    write_nifti(case / f"{case.name}_seg.nii.gz", brats_mask(1), np.float32, slope=1.0)
    record = read(tmp_path, 1)
    np.testing.assert_allclose(record["t1"], expected_of(raw), rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(record["label"], np.where(brats_mask(1) == 4, 3, brats_mask(1)))


def test_split_depends_on_the_name_alone(tmp_path):
    names = [f"BraTS20_Training_{i:03d}" for i in range(1, 370)]
    counts = {split: sum(split_of(name) == split for name in names) for split in Brats2020.splits}
    assert counts == Brats2020.published_sizes
    for number in BRATS_CASES:
        write_brats_case(tmp_path, number)
    found = SmallBrats().items(tmp_path)
    assert {int(item.key[-3:]): split for split, items in found.items() for item in items} == BRATS_CASES


def test_missing_modalities_are_none(tmp_path):
    write_brats_case(tmp_path, 1, skip=("t1ce", "flair"))
    record = read(tmp_path, 1)
    assert record["t1ce"] is None and record["flair"] is None and record["t2"] is not None


def test_mask_of_the_odd_name_is_found(tmp_path):
    case = write_brats_case(tmp_path, 355, skip=("seg",))
    write_nifti(case / "W39_1998.09.19_Segm.nii", brats_mask(355))
    assert read(tmp_path, 355)["label"].max() == 3


def spoil_shape(case):
    write_nifti(case / f"{case.name}_t2.nii.gz", np.ones((6, 5, 5)))


def spoil_nan(case):
    write_nifti(case / f"{case.name}_t2.nii.gz", np.full(SHAPE, np.nan), np.float32)


def spoil_zeros(case):
    write_nifti(case / f"{case.name}_t2.nii.gz", np.zeros(SHAPE))


def spoil_mask(case):
    write_nifti(case / f"{case.name}_seg.nii.gz", np.full(SHAPE, 3))


def spoil_half(case):
    path = case / f"{case.name}_t2.nii.gz"
    path.write_bytes(path.read_bytes()[:-60])


def spoil_bomb(case):
    (case / f"{case.name}_t2.nii.gz").write_bytes(gzip.compress(bytes(10_000_000)))


def spoil_large(case):
    (case / f"{case.name}_t2.nii.gz").unlink()
    (case / f"{case.name}_t2.nii").write_bytes(bytes(100_000))


def spoil_text(case):
    (case / f"{case.name}_t2.nii.gz").write_bytes(gzip.compress(b"no volume" * 99))


def spoil_lfs(case):
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (case / f"{case.name}_t2.nii.gz").write_bytes(text)


def as_plain(path):
    path.write_bytes(gzip.decompress(path.read_bytes()))


def as_packed_without_ending(path):
    path.rename(path.with_suffix(""))  # .nii


def as_second_version(path):
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti2Image(np.asarray(image.dataobj), image.affine), path)


def with_a_last_axis(path):
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine), path)


@pytest.mark.parametrize("change", [as_plain, as_packed_without_ending, as_second_version, with_a_last_axis])
def test_other_forms_of_a_volume_are_the_same_volume(tmp_path, change):
    write_brats_case(tmp_path, 1)
    expected = read(tmp_path, 1)
    for path in sorted((tmp_path / "BraTS20_Training_001").glob("*.nii.gz")):
        change(path)
    found = read(tmp_path, 1)
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(("shift", "rounded"), [(2e-5, True), (-9e-4, True), (0.0, False)])
def test_masks_that_are_not_quite_whole(tmp_path, shift, rounded):
    case = write_brats_case(tmp_path, 1)
    expected = read(tmp_path, 1)["label"]
    write_nifti(case / f"{case.name}_seg.nii.gz", brats_mask(1) + shift, np.float32)
    found = read(tmp_path, 1)
    np.testing.assert_array_equal(found["label"], expected)
    assert ("masks whose values were rounded" in found.get("mended", {})) == rounded
    write_nifti(case / f"{case.name}_seg.nii.gz", brats_mask(1) + 0.01, np.float32)
    with pytest.raises(DamagedItem, match="expected 0, 1, 2, 4 only"):
        read(tmp_path, 1)


def test_what_macos_leaves_is_no_case(tmp_path):
    case = write_brats_case(tmp_path, 1)
    copy = tmp_path / "__MACOSX" / case.name
    copy.mkdir(parents=True)
    for path in case.iterdir():
        (copy / path.name).write_bytes(b"fork")
        (case / f"._{path.name}").write_bytes(b"fork")
    (case / f"{case.name}_seg.nii.gz").rename(case / "W39_1998.09.19_Segm.nii.gz")
    (case / "._W39_1998.09.19_Segm.nii.gz").write_bytes(b"fork")
    items = [item for listed in Brats2020().items(tmp_path).values() for item in listed]
    assert [item.key for item in items] == [case.name] and read(tmp_path, 1)["label"].any()


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (spoil_shape, r"_t2\.nii\.gz has shape \(6, 5, 5\), expected \(6, 5, 4\)"),
        (spoil_nan, r"_t2\.nii\.gz has voxels that are no finite numbers"),
        (spoil_zeros, r"_t2\.nii\.gz has no brain"),
        (spoil_mask, r"_seg\.nii\.gz has values \[3\.0\], expected 0, 1, 2, 4 only: 3 is the enhancing tumour since"),
        (spoil_lfs, r"_t2\.nii\.gz is a pointer of Git LFS, not the file itself: run `git lfs pull`"),
        (spoil_half, r"_t2\.nii\.gz is damaged or cut short"),
        (spoil_bomb, r"_t2\.nii\.gz may be a decompression bomb"),
        (spoil_large, r"_t2\.nii has 100,000 bytes, more than"),
        (spoil_text, r"_t2\.nii\.gz is no whole NIfTI file"),
        (
            lambda case: (case / f"{case.name}_seg.nii.gz").unlink(),
            r"its mask BraTS20_Training_001_seg\.nii is missing",
        ),
    ],
)
def test_damaged_cases_say_why(tmp_path, spoil, reason):
    spoil(write_brats_case(tmp_path, 1))
    with pytest.raises(DamagedItem, match=reason):
        read(tmp_path, 1)


def test_links_are_followed_within_the_source_only(tmp_path):
    source = tmp_path / "source"
    case = write_brats_case(source, 1)
    volume = case / f"{case.name}_t2.nii.gz"
    expected = read(source, 1)["t2"]
    for place in (source / "store", tmp_path / "elsewhere"):
        place.mkdir()
        volume.resolve().rename(place / volume.name)
        volume.unlink(missing_ok=True)
        volume.symlink_to(place / volume.name)
        if place.parent == source:
            np.testing.assert_array_equal(read(source, 1)["t2"], expected)
            continue
        with pytest.raises(DamagedItem, match=r"_t2\.nii\.gz' is a link that leads out of the source directory"):
            read(source, 1)


def test_case_without_any_image_is_damaged(tmp_path):
    write_brats_case(tmp_path, 1, skip=MODALITIES)
    with pytest.raises(DamagedItem, match="none of the four images"):
        read(tmp_path, 1)


@pytest.mark.parametrize("layout", [Brats2020, Brats2021])
def test_a_source_without_cases_is_explained(tmp_path, layout):
    (tmp_path / "BraTS20_Validation_001").mkdir()
    (problem,) = layout().problems(tmp_path)
    assert str(tmp_path) in problem and layout.prefix in problem and layout.homepage in problem


def test_volumes_of_the_published_size(tmp_path):
    """The shape of the real files, read through the layout itself."""
    name, shape = "BraTS2021_00000", (240, 240, 155)
    raw = np.zeros(shape, np.int16)
    raw[100:140, 100:140, 60:90] = np.arange(40)[:, None, None] + 1
    write_nifti(tmp_path / name / f"{name}_t1ce.nii", raw)
    write_nifti(tmp_path / name / f"{name}_seg.nii.gz", 4 * (raw > 20), np.uint8)
    layout = Brats2021()
    (item,) = [item for items in layout.items(tmp_path).values() for item in items]
    assert item == Item(name, None, place=name)
    record = layout.reader(tmp_path)(item)
    assert record["t1ce"].shape == layout.shapes["t1ce"] and record["flair"] is None
    brain = record["t1ce"][..., 0][raw != 0].astype(np.float64)
    assert abs(brain.mean()) < 1e-6 and abs(brain.std() - 1) < 1e-6
    np.testing.assert_array_equal(record["label"] == 3, raw > 20)
