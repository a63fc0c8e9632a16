"""Files of CMU-MOSEI, BraTS, CREMA-D and IEMOCAP as people have them on disk, made small with known content."""

import io
import pathlib
import pickle

import nibabel
import numpy as np
from PIL import Image
from scipy.io import wavfile

from c3r_jax.data.preparation.layouts.brats import MODALITIES, Brats2020
from c3r_jax.data.preparation.layouts.mosei import Mosei, MoseiUnaligned

MOSEI_SIZES = {"train": 5, "valid": 3, "test": 4}
BRATS_SHAPE = (6, 5, 4)
BRATS_CASES = {1: "train", 7: "validation", 8: "test"}
CREMAD_CLIPS = {
    "train": {"1001_DFA_ANG_XX": "Anger", "1002_DFA_SAD_XX": "Sad"},
    "test": {"1003_IEO_HAP_LO": "Happy"},
}
IEMOCAP_CLIPS = {
    "train": {"Ses01F_impro01_F000": ("Excuse me, é", "Neutral")},
    "dev": {"Ses01F_impro01_F001": ("Yeah.", "Happy")},
    "test": {"Ses02M_script01_1_F002": ("No!", "Angry")},
}


class SmallBrats(Brats2020):
    """The layout with volumes that tests can afford."""

    shapes = {**dict.fromkeys(MODALITIES, (*BRATS_SHAPE, 1)), "label": BRATS_SHAPE}


def mosei_part(layout, n, seed):
    """A split as the layout's public file has it."""
    generator = np.random.default_rng(seed)
    part = {name: generator.normal(size=(n, *layout.shapes[name])).astype(np.float32) for name in layout.kinds}
    labels = np.linspace(-3, 3, n)
    if layout in (Mosei, MoseiUnaligned):
        texts = np.array([f"sentence {i}" for i in range(n)])
        part |= {"raw_text": texts, "text_bert": np.ones((n, 3, 50), np.float32)}
        part |= {"id": [f"video{seed}$_${i}" for i in range(n)], "regression_labels": labels.astype(np.float32)}
        part |= {"annotations": ["Positive"] * n, "classification_labels": np.ones(n)}
    else:
        ids = np.array([[f"video{seed}".encode(), str(i).encode(), b"9.5"] for i in range(n)], object)
        part |= {"labels": labels[:, None, None].astype(np.float32), "id": ids}
    if layout is MoseiUnaligned:
        part |= {f"{name}_lengths": [int(i) for i in generator.integers(1, 99, n)] for name in ("audio", "vision")}
    return part


def mosei_content(layout, sizes=None):
    return {split: mosei_part(layout, n, i) for i, (split, n) in enumerate((sizes or MOSEI_SIZES).items())}


def write_mosei(layout, folder, content):
    with open(folder / layout.files[0], "wb") as file:
        pickle.dump(content, file, protocol=4)


def write_nifti(path, volume, dtype=np.int16, slope=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.asarray(volume, dtype), np.eye(4))
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    nibabel.save(image, path)


def brats_volume(seed):
    """Raw voxels: half of them background."""
    generator = np.random.default_rng(seed)
    return generator.integers(1, 900, BRATS_SHAPE) * (generator.random(BRATS_SHAPE) < 0.5)


def brats_mask(seed):
    return np.random.default_rng(seed).choice([0, 1, 2, 4], BRATS_SHAPE)


def write_brats_case(folder, number, endings=(".nii.gz",), skip=()):
    """The four images ``brats_volume(10 * number + i)`` and the mask ``brats_mask(number)``."""
    name = f"BraTS20_Training_{number:03d}"
    for i, modality in enumerate((*MODALITIES, "seg")):
        if modality not in skip:
            content = brats_mask(number) if modality == "seg" else brats_volume(10 * number + i)
            write_nifti(folder / name / f"{name}_{modality}{endings[i % len(endings)]}", content)
    return folder / name


def tone(n, rate=16000, frequency=440.0):
    return np.round(20000 * np.sin(2 * np.pi * frequency * np.arange(n) / rate)).astype(np.int16)


def wav(samples, rate=16000):
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


def picture(shade):
    file = io.BytesIO()
    Image.new("RGB", (12, 8), (shade, 0, 0)).save(file, "jpeg")
    return file.getvalue()


def write_clip(source, sound, frames, count=7, rate=16000):
    """500 samples of a tone, and frames whose red grows by ten."""
    files = {sound: wav(tone(500), rate)} | {f"{frames}/{i * 30:05d}.jpg": picture(10 * i) for i in range(count)}
    for name, content in files.items():
        path = pathlib.Path(source, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_cremad(source, clips=None):
    for split, some in (clips or CREMAD_CLIPS).items():
        lines = [f"{name}.flv {label}\n" for name, label in some.items()]
        (source / f"my_{split}_cre.txt").write_text("".join(lines) + "\n")
        for name in some:
            write_clip(source, f"audio/{split}/{name}.wav", f"visual/{split}_imgs/Image-01-FPS/{name}")


def write_iemocap(source, clips=None):
    """The clips of "dev" lack frames."""
    for split, some in (clips or IEMOCAP_CLIPS).items():
        lines = [f"{name}.mp4 [split|sign] {text} [split|sign] {label}\n" for name, (text, label) in some.items()]
        (source / f"my_{split}_iemo.txt").write_text("".join(lines), encoding="utf-8")
        for name in some:
            count = 0 if split == "dev" else 4
            write_clip(source, f"audio/{split}/{name}.wav", f"visual/{split}_imgs/{name}", count=count)
