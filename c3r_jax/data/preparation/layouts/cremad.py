"""CREMA-D: actors say a sentence in one of six emotions; sound and face."""

from c3r_jax.data.preparation.layout import DamagedItem
from c3r_jax.data.preparation.layouts.clips import Clip, ClipLayout

_SHORT = {"ANG": "Anger", "DIS": "Disgust", "FEA": "Fear", "HAP": "Happy", "NEU": "Neutral", "SAD": "Sad"}


class CremaD(ClipLayout):
    """Actors who speak sentences in six emotions. Two common directory layouts are read.

    - ``my_train_cre.txt`` and ``my_test_cre.txt`` (or ``train.txt``, ``test.txt``) with lines ``<id>.flv Anger``,
      ``audio/<split>/<id>.wav`` and ``visual/<split>_imgs/Image-01-FPS/<id>/*.jpg``;
    - ``train.csv`` and ``test.csv`` with lines ``<id>,ANG``, ``AudioWAV/<id>.wav`` and ``Image-01-FPS/<id>/*.jpg``, as
      in the public code of OGM-GE (GeWu-Lab/OGM-GE_CVPR2022, dataset/CramedDataset.py).

    The lists are a random split, so actors and sentences occur in both splits; there is no validation split. Three of
    the frames (one per second) are used. The public loaders silently omit clips without sound or frames; here they are
    damaged items.

    References:
      H. Cao et al., CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset, 2014.
      X. Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, 2022 (the lists).
    """

    name = "cremad"
    title = "CREMA-D (emotions of actors; sound and video)"
    homepage = "https://github.com/CheyneyComputerScience/CREMA-D"
    license = "Open Database License 1.0"
    kinds = {"audio": "audio", "video": "video"}
    sample_rate = 22050
    spectrogram = "stft"
    published_sizes = {"train": 6698, "test": 744}
    splits = {"train": "train", "test": "test"}

    lists = ("my_{split}_cre.txt", "{split}.txt", "{split}.csv")
    sounds = ("audio/{split}/{name}.wav", "AudioWAV/{name}.wav")
    frames = ("visual/{split}_imgs/Image-01-FPS/{name}", "visual/{split}_imgs/{name}", "Image-01-FPS/{name}")
    num_frames = 3
    labels = {name: name for name in _SHORT.values()} | _SHORT

    def parse(self, line: str) -> Clip:
        """``1001_DFA_ANG_XX.flv Anger`` or ``1001_DFA_ANG_XX,ANG``."""
        name, separator, label = line.partition(".flv ")
        if not separator:
            name, separator, label = line.partition(",")
        if not separator:
            raise DamagedItem("expected '<id>.flv <label>' or '<id>,<label>'")
        return Clip(name.strip(), label.strip())
