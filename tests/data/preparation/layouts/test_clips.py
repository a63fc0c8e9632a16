"""CREMA-D and IEMOCAP: lists, sounds and frames written by the tests come back exactly, damage with its reason."""

import numpy as np
import pytest

from c3r_jax.data.preparation.convert import Converter
from c3r_jax.data.preparation.layout import DamagedItem
from c3r_jax.data.preparation.layouts.clips import int16_samples
from c3r_jax.data.preparation.layouts.cremad import CremaD
from c3r_jax.data.preparation.layouts.iemocap import Iemocap
from tests.data.preparation.media_files import CREMAD_CLIPS, picture, tone, wav, write_clip, write_cremad, write_iemocap


def read_all(layout, source):
    """{split: {key: (label, record, or the reason why there is none)}}, all values checked as a preparation does."""
    assert layout.problems(source) == []
    read, convert = layout.reader(source), Converter(layout, source, len(layout.class_names(source))).reader()

    def outcome(item):
        return convert(0, item).get("reason") or read(item)

    found = layout.items(source)
    return {split: {item.key: (item.label, outcome(item)) for item in items} for split, items in found.items()}


@pytest.fixture
def cremad(tmp_path):
    write_cremad(tmp_path)
    return tmp_path


@pytest.fixture
def iemocap(tmp_path):
    write_iemocap(tmp_path)
    return tmp_path


def test_cremad_comes_back(cremad):
    layout = CremaD()
    found = read_all(layout, cremad)
    names = layout.class_names(cremad)
    assert names == ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad")
    labels = {split: {key: names[label] for key, (label, _) in items.items()} for split, items in found.items()}
    assert labels == CREMAD_CLIPS
    record = found["test"]["1003_IEO_HAP_LO"][1]
    assert record["video"] == [picture(10 * i) for i in (0, 2, 4)]  # three of seven
    assert record["audio"].dtype == np.int16 and len(record["audio"]) == -(-500 * 22050 // 16000)
    middle = slice(50, -50)  # away from the ends the tone goes on at the new rate
    error = record["audio"][middle] - tone(len(record["audio"]), 22050)[middle].astype(np.float64)
    assert np.abs(error).max() < 20


def test_cremad_comes_back_in_the_other_form(tmp_path):
    for name in ("1001_DFA_ANG_XX", "1002_DFA_NEU_XX"):
        write_clip(tmp_path, f"AudioWAV/{name}.wav", f"Image-01-FPS/{name}", count=2, rate=22050)
    (tmp_path / "train.csv").write_text("\ufeff1001_DFA_ANG_XX,ANG\r\n", encoding="utf-8")
    (tmp_path / "test.csv").write_text("1002_DFA_NEU_XX,NEU\n")
    found = read_all(CremaD(), tmp_path)
    assert [label for label, _ in found["train"].values()] == [0]
    record = found["test"]["1002_DFA_NEU_XX"][1]
    np.testing.assert_array_equal(record["audio"], tone(500))  # at the layout's rate nothing changes
    assert record["video"] == [picture(0), picture(0), picture(10)]  # two frames for three


def test_iemocap_comes_back_and_may_lack_video(iemocap):
    found = read_all(Iemocap(), iemocap)
    label, record = found["train"]["Ses01F_impro01_F000"]
    assert label == Iemocap().class_names(iemocap).index("Neutral") and record["text"] == "Excuse me, é"
    np.testing.assert_array_equal(record["audio"], tone(500))
    assert len(record["video"]) == 4
    assert found["validation"]["Ses01F_impro01_F001"][1]["video"] is None
    assert list(found["test"]) == ["Ses02M_script01_1_F002"]


def test_bad_lines_are_damaged_items_with_their_place(cremad):
    (cremad / "my_train_cre.txt").write_bytes(
        b"1001_DFA_ANG_XX.flv Anger\nno label here\n../../etc/passwd.flv Sad\n"
        b"1002_DFA_SAD_XX.flv Bored\n\xff\xfe.flv Sad\n"
    )
    found = {key: outcome for key, (_, outcome) in read_all(CremaD(), cremad)["train"].items()}
    assert isinstance(found.pop("1001_DFA_ANG_XX"), dict)
    reasons = [
        "expected '<id>.flv <label>'",
        "is no name inside the source directory",
        "has label 'Bored', expected one of",
        "decode",
    ]
    assert list(found) == [f"my_train_cre.txt, line {i}" for i in range(2, 6)]
    for reason, outcome in zip(reasons, found.values(), strict=True):
        assert reason in outcome


@pytest.mark.parametrize(
    "line",
    ["a.mp4 [split|sign] text", "a.mp4 [split|sign]  [split|sign] Sad", "a.wav [split|sign] text [split|sign] Sad"],
)
def test_bad_lines_of_iemocap(iemocap, line):
    (iemocap / "my_train_iemo.txt").write_text(line)
    ((_, outcome),) = read_all(Iemocap(), iemocap)["train"].values()
    assert "expected '<id>.mp4 [split|sign] text [split|sign] label'" in outcome


def test_missing_files_are_damage(cremad):
    (cremad / "audio/train/1001_DFA_ANG_XX.wav").unlink()
    for frame in (cremad / "visual/train_imgs/Image-01-FPS/1002_DFA_SAD_XX").iterdir():
        frame.unlink()
    found = read_all(CremaD(), cremad)["train"]
    assert "audio/train/1001_DFA_ANG_XX.wav' is missing" in found["1001_DFA_ANG_XX"][1]
    assert "1002_DFA_SAD_XX' is missing or empty" in found["1002_DFA_SAD_XX"][1]


def test_sound_too_short_for_its_spectra_is_damage(iemocap):
    (iemocap / "audio/train/Ses01F_impro01_F000.wav").write_bytes(wav(tone(399), 16000))
    reason = read_all(Iemocap(), iemocap)["train"]["Ses01F_impro01_F000"][1]
    assert "audio: The sound has 399 samples, expected a frame of 400 at least" in reason


def test_damaged_frames_are_damage(cremad):
    frame = cremad / "visual/train_imgs/Image-01-FPS/1002_DFA_SAD_XX/00060.jpg"
    frame.write_bytes(frame.read_bytes()[:200])
    assert "damaged or cut short" in read_all(CremaD(), cremad)["train"]["1002_DFA_SAD_XX"][1]


def test_problems_name_each_thing_that_is_missing(tmp_path):
    problems = CremaD().problems(tmp_path)
    assert len(problems) == 6 and all(str(tmp_path) in problem for problem in problems)
    assert "my_train_cre.txt or train.txt or train.csv" in problems[0] and "audio/train nor AudioWAV" in problems[1]
    assert len(Iemocap().problems(tmp_path)) == 6  # frames may be missing


@pytest.mark.parametrize("dtype, scale", [(np.uint8, 128), (np.int32, 2**31), (np.float32, 1.0), (np.float64, 1.0)])
def test_other_sample_formats_come_to_int16(dtype, scale):
    sound = np.linspace(-0.9, 0.9, 64)
    stored = (sound * scale + (128 if dtype == np.uint8 else 0)).astype(dtype)
    content = wav(np.stack([stored, stored], 1), 8000)  # two channels are averaged
    np.testing.assert_allclose(int16_samples(content, 8000), sound * 32768, atol=260 if dtype == np.uint8 else 1)


def test_one_silent_channel_is_no_inverted_one():
    sound = tone(500)
    found = int16_samples(wav(np.stack([sound, np.zeros_like(sound)], 1), 8000), 8000)
    np.testing.assert_allclose(found, sound / 2, atol=1)
    assert not int16_samples(wav(np.zeros((500, 2), np.int16), 8000), 8000).any()


def test_near_silence_has_no_channels_that_cancel():
    """Dither of the last bits may; what can be heard may not."""
    quiet, audible = (np.tile(np.array([[level, -level], [-level, level]], np.int16), (250, 1)) for level in (8, 9))
    assert not int16_samples(wav(quiet, 8000), 8000).any()
    with pytest.raises(DamagedItem, match="2 channels that cancel one another"):
        int16_samples(wav(audible, 8000), 8000)


@pytest.mark.parametrize(
    "content, reason",
    [
        (wav(np.stack([tone(500), -tone(500)], 1), 8000), "2 channels that cancel one another"),
        (wav(np.tile([0.5, -0.5], (500, 1)).astype(np.float32), 8000), "2 channels that cancel one another"),
        (wav(np.stack([tone(500), -tone(500), tone(500), -tone(500)], 1), 8000), "4 channels that cancel one another"),
        (wav(tone(500))[:-300], "cut short"),
        (wav(tone(500))[:-301], "no whole wav file"),
        (wav(tone(500))[:30], "no whole wav file"),
        (b"", "no whole wav file"),
        (b"ID3 this is an mp3", "no whole wav file"),
        (wav(tone(0)), "has 0 samples"),
        (wav(tone(7_000), 10), "has 7,000 samples at 10 Hz"),
        (wav(np.zeros(61_000, np.uint8), 100), "has 61,000 samples at 100 Hz"),
        (wav(np.array([0.0, np.nan], np.float32)), "not finite"),
    ],
)
def test_damaged_sounds_say_why(content, reason):
    with pytest.raises(DamagedItem, match=f"its sound .*({reason})"):
        int16_samples(content, 16000)
