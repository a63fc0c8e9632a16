"""Spectra against slow float64 formulas, and the shapes that published loaders make."""

import numpy as np
import pytest

from c3r_jax.data.media.audio import SPECTROGRAMS, fbank, log_stft, spectrogram
from c3r_jax.errors import DataError

SOUND = np.random.default_rng(0).standard_normal(1000) * np.sin(np.arange(1000) / 9) * 0.3


def dft(frame, size):
    """|sum_t x_t exp(-2 pi i f t / size)| for f = 0 .. size/2, by the sum."""
    angle = -2j * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(len(frame))) / size
    return np.abs(np.exp(angle) @ frame)


def test_log_stft_is_its_formula():
    n_fft, hop = 64, 37
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    expected = []
    for frame in range(1 + len(SOUND) // hop):
        places = frame * hop - n_fft // 2 + np.arange(n_fft)
        inside = (places >= 0) & (places < len(SOUND))
        values = np.where(inside, SOUND[np.clip(places, 0, len(SOUND) - 1)], 0.0)
        expected.append(np.log(dft(values * window, n_fft) + 1e-7))
    found = log_stft(SOUND.astype(np.float32), n_fft=n_fft, hop_length=hop)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-4)


def test_fbank_is_its_formula():
    rate, bins = 8000, 10
    length, hop, size = 200, 80, 256

    def mel(frequency):
        return 1127 * np.log(1 + frequency / 700)

    low, high = mel(20.0), mel(4000.0)
    step = (high - low) / (bins + 1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))
    expected = []
    for start in range(0, len(SOUND) - length + 1, hop):
        x = SOUND[start : start + length]
        x = x - x.mean()
        x = np.array([x[t] - 0.97 * x[max(0, t - 1)] for t in range(length)])
        power = dft(x * window, size) ** 2
        energies = []
        for b in range(bins):
            left, centre, right = (low + (b + j) * step for j in range(3))
            triangle = [
                max(0.0, min((m - left) / (centre - left), (right - m) / (right - centre)))
                for m in mel(np.arange(size // 2) * rate / size)
            ]
            energies.append(np.dot(triangle, power[:-1]))
        expected.append(np.log(np.maximum(energies, np.finfo(np.float32).eps)))
    np.testing.assert_allclose(fbank(SOUND, rate, num_bins=bins), np.stack(expected), atol=1e-4)


@pytest.mark.parametrize("kind", SPECTROGRAMS)
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_published_shapes_at_any_rate(kind, rate):
    samples = (np.sin(2 * np.pi * 440 * np.arange(rate) / rate) * 20000).astype(np.int16)
    found = spectrogram(samples, rate, kind)
    assert (found.shape, found.dtype) == (SPECTROGRAMS[kind], np.float32)
    spoken = found[5:90]  # one second
    frequency = 440 / (22050 / 512) if kind == "stft" else 440.0
    if kind == "stft":
        assert abs(spoken.mean(0).argmax() - frequency) <= 1
    else:
        edges = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(8000 / 700), 130)[1:-1]
        assert abs(700 * (np.exp(edges[spoken.mean(0).argmax()] / 1127) - 1) - frequency) < 40
        assert (found[98:] == 0).all()  # after its one second
    np.testing.assert_allclose(found, spectrogram(samples / 2**15, rate, kind), atol=1e-4)


def test_short_sounds_repeat_and_long_ones_are_cut():
    second = np.sin(np.arange(22050) ** 1.3 / 500)
    np.testing.assert_array_equal(spectrogram(second, 22050, "stft"), spectrogram(np.tile(second, 5), 22050, "stft"))
    assert spectrogram(np.tile(SOUND, 200), 16000, "fbank")[-1].any()


@pytest.mark.parametrize("samples", [400, 164_079, 164_080, 170_000])
def test_what_is_cut_of_a_long_sound_is_not_looked_at(samples):
    """But for its mean: the frames that are kept are those of the whole sound."""
    sound = np.random.default_rng(0).standard_normal(samples) + 0.1
    expected = fbank(sound - sound.mean(), 16000)[:1024]
    found = spectrogram(sound, 16000, "fbank")
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-5)
    assert len(expected) == min(1024, 1 + (samples - 400) // 160) and not found[len(expected) :].any()


def test_sounds_that_cannot_be_used():
    for samples in (np.zeros(0, np.int16), np.zeros((10, 2), np.int16), np.array([0.0, np.nan])):
        with pytest.raises(DataError, match="expected finite samples"):
            spectrogram(samples, 16000, "stft")
    with pytest.raises(DataError, match="expected a frame of 400"):
        spectrogram(np.ones(100, np.int16), 16000, "fbank")
    with pytest.raises(ValueError, match="kind is 'mfcc'"):
        spectrogram(SOUND, 16000, "mfcc")
    assert np.isfinite(spectrogram(np.zeros(4000, np.int16), 16000, "stft")).all()
    assert np.isfinite(spectrogram(np.zeros(4000, np.int16), 16000, "fbank")).all()
