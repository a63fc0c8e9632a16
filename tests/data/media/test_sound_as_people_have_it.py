"""Sound files as programs write them: floats in the range of int16, and headers that do not know their length."""

import collections
import io
import struct

import numpy as np
import pytest
from scipy.io import wavfile

from c3r_jax.data.media.audio import spectrogram, unit_samples
from c3r_jax.data.preparation.layout import DamagedItem
from c3r_jax.data.preparation.layouts.clips import int16_samples, with_length
from c3r_jax.errors import DataError

RATE = 16000
TONE = np.round(20_000 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.int16)


def wav(samples, rate=RATE):
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


@pytest.mark.parametrize(
    "samples",
    [
        TONE.astype(np.float32),
        TONE.astype(np.float64),
        np.where(np.arange(RATE) < 160, TONE, 0).astype(np.float32),  # all but silent
        np.stack([TONE, TONE], 1).astype(np.float32),
    ],
)
def test_floats_in_the_range_of_int16_are_divided_and_counted(samples):
    repairs = collections.Counter()
    found = int16_samples(wav(samples), RATE, repairs)
    np.testing.assert_array_equal(found, (samples if samples.ndim == 1 else samples[:, 0]).astype(np.int16))
    assert repairs == {"floats of a sound in the range of int16, divided by 32768": 1}
    expected = spectrogram(found, RATE, "fbank")
    if samples.ndim == 1:
        np.testing.assert_allclose(spectrogram(samples, RATE, "fbank"), expected, atol=1e-5)


@pytest.mark.parametrize("peak", [1.0, 1.3, 1.9])
def test_loud_floats_are_cut_off_at_one(peak):
    sound = (peak * TONE / 20_000).astype(np.float32)
    repairs = collections.Counter()
    expected = np.clip(np.round(sound.astype(np.float64) * 32768), -32768, 32767)
    np.testing.assert_array_equal(int16_samples(wav(sound), RATE, repairs), expected)
    assert not repairs


def test_a_click_is_cut_off():
    sound = (TONE / 32768).astype(np.float32)
    sound[77] = 5.5
    assert int16_samples(wav(sound), RATE)[77] == 32767


@pytest.mark.parametrize("scale", [32767 / 20_000, 3.7 / 20_000, 2.0**31 / 20_000, 2.0**20])
def test_floats_in_an_unknown_range_are_refused(scale):
    sound = (scale * TONE.astype(np.float64) + 0.25).astype(np.float64)
    with pytest.raises(DamagedItem, match="its sound is of floats up to .* would be cut off: divide it by the largest"):
        int16_samples(wav(sound), RATE)
    with pytest.raises(DataError, match="the sound is of floats"):
        spectrogram(sound, RATE, "stft")


def with_sizes(content, whole, data):
    """The file with other sizes in its header."""
    place = content.index(b"data")
    return (
        content[:4] + struct.pack("<I", whole) + content[8 : place + 4] + struct.pack("<I", data) + content[place + 8 :]
    )


def with_list(content):
    """The file with a LIST chunk before its samples, as ffmpeg writes it."""
    place = content.index(b"data")
    return content[:place] + b"LIST" + struct.pack("<I", 5) + b"INFO\0\0" + content[place:]


@pytest.mark.parametrize(
    ("whole", "data"),
    [(0xFFFFFFFF, 0xFFFFFFFF), (0, 0), (0x7FFFF024, 0x7FFFF000), (0xFFFFFFFF, 0), (36, 0), (0x80000024, 0x80000000)],
)
@pytest.mark.parametrize("change", [lambda content: content, with_list, lambda content: content + b"\x01"])
def test_a_header_that_does_not_know_the_length(whole, data, change):
    content = change(wav(TONE))
    if whole == 36 and b"LIST" in content:
        whole = content.index(b"data")
    repairs = collections.Counter()
    np.testing.assert_array_equal(int16_samples(with_sizes(content, whole, data), RATE, repairs), TONE)
    assert repairs == {"the length of a sound, which its header did not know": 1}


def test_headers_that_know_it_stay_as_they_are():
    content = wav(TONE)
    assert with_length(content) == (content, False)
    for cut in (content[:-100], content[: len(content) // 2]):
        with pytest.raises(DamagedItem, match="cut short"):
            int16_samples(cut, RATE)
    for other in (b"", b"RIFF", content[:20], b"OggS" + content[4:]):
        assert with_length(other) == (other, False)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([0, 128, 255], np.uint8), [-1, 0, 127 / 128]),
        (np.array([-(2**31), 2**30], np.int32), [-1, 0.5]),
        (np.array([1.0, -1.0, 2.0]), [1, -1, 2]),
    ],
)
def test_units_by_type(samples, expected):
    np.testing.assert_array_equal(unit_samples(samples)[0], expected)
