"""From sound to spectrograms, with the settings of the published loaders of multi-modal benchmarks."""

import functools
import math

import numpy as np
from jaxtyping import Float
from scipy.signal import resample_poly
from scipy.signal.windows import hann

from c3r_jax.errors import DataError

SPECTROGRAMS = {"stft": (188, 257), "fbank": (1024, 128)}  # kind of spectrogram: its shape
OVERSHOOT = 2.0  # a peak of floats that is loud, but no other range
CLICK, FEW_BEYOND = 10.0, 0.01  # largest sample that may be a click, and share of samples beyond 1 that are clicks
Samples = Float[np.ndarray, " samples"]


def unit_samples(samples: np.ndarray, *, cut: bool = True) -> tuple[np.ndarray, bool]:
    """Sound of any type as float64 in about [-1, 1].

    Integers are divided by the largest value of their type. Floats are taken as they are, with a few samples that go
    somewhat beyond 1, which are cut off later. Whole numbers in the range of int16 are what a program writes that
    converts int16 to float without dividing: they are divided.

    Args:
      samples: integers, or floats.
      cut: whether what is beyond 1 is cut off later; otherwise only floats that are far beyond are refused.

    Returns:
      The samples, and whether they were floats in the range of int16.

    Raises:
      DataError: floats are not finite, or so many go beyond 1 that the sound would be cut off, and they are in no known
        range.

    Examples:
      >>> unit_samples(np.array([0.5, -1.0], np.float32))[0].tolist()
      [0.5, -1.0]
      >>> unit_samples(np.array([0.0, 16384.0], np.float32))[0].tolist()
      [0.0, 0.5]
    """
    if samples.dtype == np.uint8:
        return (samples.astype(np.float64) - 128) / 128, False
    if np.issubdtype(samples.dtype, np.integer):
        return samples / -float(np.iinfo(samples.dtype).min), False
    sound = samples.astype(np.float64)
    if not np.isfinite(sound).all():
        raise DataError("the sound has samples that are not finite: leave it out")
    size = np.abs(sound)
    peak, beyond = float(size.max(initial=0)), float((size > 1).mean()) if size.size else 0.0
    if peak > OVERSHOOT and peak <= 2**15 and (sound == np.round(sound)).all():
        return sound / 2**15, True
    if peak <= OVERSHOOT or (peak <= CLICK and (beyond <= FEW_BEYOND or not cut)):
        return sound, False
    raise DataError(
        f"the sound is of floats up to {peak:,.6g}, expected -1 to 1; {beyond:.1%} of it would be cut off: "
        "divide it by the largest value of its range (32768 if it was int16), and write it again"
    )


def _frames(samples: np.ndarray, length: int, hop: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(samples, length)[::hop]


def log_stft(
    samples: Samples, *, n_fft: int = 512, hop_length: int = 353, floor: float = 1e-7
) -> Float[np.ndarray, "frames frequencies"]:
    """Logarithm of the magnitudes of the short-time Fourier transform, ``log(|stft| + floor)``.

    Frames are centred at multiples of ``hop_length`` (zeros beyond the ends) under a periodic Hann window: the
    transpose of ``np.log(np.abs(librosa.stft(samples, n_fft=..., hop_length=...)) + floor)`` of librosa 0.10 and later.

    Args:
      samples: float ``(n,)``.
      n_fft: window length and transform size.
      hop_length: samples from one frame to the next.
      floor: added to the magnitudes.

    Returns:
      float32 ``(1 + n // hop_length, 1 + n_fft // 2)``.

    Examples:
      >>> log_stft(np.zeros(3 * 22050, np.float32)).shape
      (188, 257)
    """
    padded = np.pad(samples, n_fft // 2)
    spectrum = np.fft.rfft(_frames(padded, n_fft, hop_length) * hann(n_fft, sym=False), axis=-1)
    return np.log(np.abs(spectrum) + floor).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _mel_filters(num_bins: int, n_fft: int, rate: int, low: float) -> np.ndarray:
    """Triangles, evenly spaced and linear in mel, over the bins below the Nyquist frequency. Shape (n_fft/2, bins)."""

    def mel(frequency: np.ndarray) -> np.ndarray:
        return 1127.0 * np.log1p(frequency / 700.0)

    first, last = mel(np.array([low, rate / 2]))
    edges = np.linspace(first, last, num_bins + 2)
    bins = mel(np.arange(n_fft // 2) * (rate / n_fft))[:, None]
    width = edges[1] - edges[0]
    return np.maximum(0.0, np.minimum(bins - edges[:-2], edges[2:] - bins) / width)


def fbank(
    samples: Samples, rate: int, *, num_bins: int = 128, low: float = 20.0, pre_emphasis: float = 0.97
) -> Float[np.ndarray, "frames bins"]:
    """Log mel filter-bank energies as Kaldi computes them.

    Frames of 25 ms every 10 ms, without partial frames; each is centred, pre-emphasised, multiplied by a symmetric Hann
    window and padded to a power of two: ``torchaudio.compliance.kaldi.fbank(x, htk_compat=True, use_energy=False,
    window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10)``, as in the Audio Spectrogram Transformer.

    Args:
      samples: float ``(n,)``.
      rate: samples per second.
      num_bins: mel bins.
      low: frequency in Hz where the first bin begins; the last one ends at half the rate.
      pre_emphasis: share of the previous sample that is subtracted.

    Returns:
      float32 ``(frames, num_bins)``.

    Raises:
      DataError: the sound is shorter than a frame.

    References:
      Y. Gong et al., AST: Audio Spectrogram Transformer, 2021.
    """
    length, hop = int(rate * 0.025), int(rate * 0.010)
    if len(samples) < length:
        raise DataError(f"The sound has {len(samples)} samples, expected a frame of {length} at least: leave it out.")
    frames = _frames(np.asarray(samples, np.float64), length, hop)
    frames = frames - frames.mean(1, keepdims=True)
    frames = frames - pre_emphasis * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    n_fft = 1 << (length - 1).bit_length()
    power = np.abs(np.fft.rfft(frames * hann(length), n_fft, axis=1)) ** 2
    energies = power[:, :-1] @ _mel_filters(num_bins, n_fft, rate, low)
    return np.log(np.maximum(energies, np.finfo(np.float32).eps)).astype(np.float32)


def spectrogram(samples: np.ndarray, rate: int, kind: str) -> Float[np.ndarray, "frames bins"]:
    """Turns sound into a sequence of fixed shape, as the benchmarks' public loaders do.

    - "stft" (CREMA-D): at 22,050 Hz, repeated or cut to 3 seconds, ``log_stft``: (188, 257).
    - "fbank" (IEMOCAP): at 16,000 Hz, centred, ``fbank``, cut or padded with frames of zeros: (1024, 128).

    Other rates are converted by polyphase filtering, which differs slightly from the converters of those loaders.

    Args:
      samples: int16, or float in [-1, 1] ``(n,)``; see :func:`unit_samples`.
      rate: samples per second.
      kind: "stft" or "fbank".

    Returns:
      float32 of the shape in :data:`SPECTROGRAMS`.

    Raises:
      DataError: the sound is empty, too short or not finite.

    Examples:
      >>> spectrogram(np.ones(16000, np.int16), 16000, "fbank").shape
      (1024, 128)
    """
    if kind not in SPECTROGRAMS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(SPECTROGRAMS)}: choose a spectrogram.")
    samples = np.asarray(samples)
    if samples.ndim != 1 or not samples.size or rate < 1 or not np.isfinite(samples).all():
        raise DataError(
            f"The sound is a {samples.dtype} array of shape {samples.shape} at {rate} Hz, expected finite samples "
            "(n,): mix it down to one channel, or leave it out."
        )
    wanted = 22050 if kind == "stft" else 16000
    sound = resample_poly(unit_samples(samples, cut=kind == "stft")[0], *_ratio(wanted, rate))
    if kind == "stft":
        return log_stft(np.clip(np.resize(sound, 3 * wanted), -1.0, 1.0))
    frames, bins = SPECTROGRAMS[kind]
    needed = wanted // 40 + (frames - 1) * (wanted // 100)  # a frame of 25 ms, and 10 ms to each that follows
    energies = fbank((sound - sound.mean())[:needed], wanted, num_bins=bins)
    return np.pad(energies, ((0, frames - len(energies)), (0, 0)))


def _ratio(wanted: int, rate: int) -> tuple[int, int]:
    common = math.gcd(wanted, rate)
    return wanted // common, rate // common
