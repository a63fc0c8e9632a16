"""From sound to spectrograms, with the settings of the published loaders of multi-modal benchmarks."""

import functools
import math

import numpy as np
from jaxtyping import Float
from scipy.signal import resample_poly
from scipy.signal.windows import hann

from c3r_jax.errors import DataError

SPECTROGRAMS = {"stft": (188, 257), "fbank": (1024, 128)}  # kind of spectrogram: its shape
Samples = Float[np.ndarray, " samples"]


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

    Example:
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
      samples: int16, or float in [-1, 1] ``(n,)``.
      rate: samples per second.
      kind: "stft" or "fbank".

    Returns:
      float32 of the shape in :data:`SPECTROGRAMS`.

    Raises:
      DataError: the sound is empty, too short or not finite.

    Example:
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
    scale = 2.0**-15 if np.issubdtype(samples.dtype, np.integer) else 1.0
    wanted = 22050 if kind == "stft" else 16000
    sound = resample_poly(samples * np.float64(scale), *_ratio(wanted, rate))
    if kind == "stft":
        return log_stft(np.clip(np.resize(sound, 3 * wanted), -1.0, 1.0))
    frames, bins = SPECTROGRAMS[kind]
    needed = wanted // 40 + (frames - 1) * (wanted // 100)  # a frame of 25 ms, and 10 ms to each that follows
    energies = fbank((sound - sound.mean())[:needed], wanted, num_bins=bins)
    return np.pad(energies, ((0, frames - len(energies)), (0, 0)))


def _ratio(wanted: int, rate: int) -> tuple[int, int]:
    common = math.gcd(wanted, rate)
    return wanted // common, rate // common
