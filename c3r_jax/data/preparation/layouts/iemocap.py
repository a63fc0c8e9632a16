"""IEMOCAP: utterances of actors in dialogues, in four emotions; sound, text and, if available, video of the face."""

from c3r_jax.data.preparation.layout import DamagedItem
from c3r_jax.data.preparation.layouts.clips import Clip, ClipLayout

_SIGN = "[split|sign]"


class Iemocap(ClipLayout):
    """Lists ``my_{train,dev,test}_iemo.txt`` with lines ``<id>.mp4 [split|sign] text [split|sign] Happy``.

    Beside them are ``audio/<split>/<id>.wav`` and ``visual/<split>_imgs/<id>/*.jpg`` (or, as its preparation writes
    them, ``visual/<split>_imgs/Image-01-FPS/<id>/*.jpg``), as in the public code of WangJingyao07/Multi-Modal-Base
    (data/dataset_iemo.py, prepross/my_iemo_gen.py). Video is a missing modality of an utterance without frames. Four of
    the frames (one per second) are used.

    References:
      C. Busso et al., IEMOCAP: interactive emotional dyadic motion capture database, 2008.
    """

    name = "iemocap"
    title = "IEMOCAP (emotions in dialogues; sound, text and video)"
    homepage = "https://sail.usc.edu/iemocap/"
    license = "by agreement with the University of Southern California, for research"
    kinds = {"audio": "audio", "text": "text", "video": "video"}
    sample_rate = 16000
    spectrogram = "fbank"
    published_sizes = {"train": 3318, "validation": 1106, "test": 1107}
    splits = {"train": "train", "validation": "dev", "test": "test"}

    lists = ("my_{split}_iemo.txt", "{split}.txt")
    sounds = ("audio/{split}/{name}.wav",)
    frames = ("visual/{split}_imgs/{name}", "visual/{split}_imgs/Image-01-FPS/{name}")
    num_frames = 4
    labels = {name: name for name in ("Angry", "Happy", "Neutral", "Sad")}
    lacks_video = True

    def parse(self, line: str) -> Clip:
        """``Ses01F_impro01_F000.mp4 [split|sign] Excuse me. [split|sign] Neutral``."""
        parts = [part.strip() for part in line.split(_SIGN)]
        if len(parts) != 3 or not parts[1] or not parts[0].endswith(".mp4"):
            raise DamagedItem(f"expected '<id>.mp4 {_SIGN} text {_SIGN} label'")
        return Clip(parts[0].removesuffix(".mp4"), parts[2], parts[1])
