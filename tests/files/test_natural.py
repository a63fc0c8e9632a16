"""Files that are numbered come in the order of their numbers, wherever files are listed."""

import io
import itertools
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from c3r_jax.data.media.image import encode_png
from c3r_jax.data.preparation.layouts.clips import read_frames
from c3r_jax.data.preparation.layouts.scenes import NyuDepthV2
from c3r_jax.data.sets.records import load_records
from c3r_jax.files.natural import in_natural_order
from c3r_jax.report.tidy import read_runs


@pytest.mark.parametrize(
    "names",
    [
        ["frame_1.jpg", "frame_2.jpg", "frame_10.jpg", "frame_100.jpg"],
        ["1.png", "2.png", "3.png", "11.png", "20.png"],
        ["frame0001.jpg", "frame2.jpg", "frame010.jpg"],
        ["a_1_9.png", "a_1_10.png", "a_2_1.png", "a_10_1.png"],
        ["IMG_1.JPG", "img_2.jpg", "Img_10.jpg"],
        ["0.25.jpg", "0.5.jpg", "1.0.jpg", "10.0.jpg"],
        ["0.5", "0.55", "1.0", "1.25", "10.0"],
        ["t_0.05.png", "t_0.50.png", "t_1.00.png"],
        ["clip.mp4.1.jpg", "clip.mp4.2.jpg", "clip.mp4.9.jpg", "clip.mp4.10.jpg"],
        ["clip.mp4.1.jpg", "clip.mp4.3.jpg", "clip.mp4.5.jpg", "clip.mp4.9.jpg", "clip.mp4.11.jpg"],  # every other one
        ["a.1.9.png", "a.1.10.png"],
        ["a.1.2.png", "a.1.5.png", "a.1.8.png", "a.1.11.png"],
        ["0.04.png", "0.08.png", "0.12.png", "0.16.png", "0.2.png", "0.24.png"],
        ["0.125.png", "0.25.png", "0.375.png", "0.5.png"],
        ["clip1.1.jpg", "clip1.2.jpg", "clip1.10.jpg", "clip1.11.jpg", "clip2.1.jpg"],
        ["v1.10/0.25.jpg", "v1.10/0.5.jpg", "v1.10/1.0.jpg"],
        ["v1.9.0", "v1.10.0", "v1.10.1"],
        ["2024-01-02", "2024-01-10", "2024-11-01"],
        ["run 2/seed_10", "run 10/seed_2"],
        ["frame (1).png", "frame (2).png", "frame (10).png"],
        ["größe_2.png", "größe_10.png"],
        ["99999999999999999999.png", "100000000000000000000.png"],
        ["1.jpg", "1.png", "01.png", "2.jpg"],
    ],
)
def test_order(names):
    shuffled = itertools.islice(itertools.permutations(names), 0, None, 7)
    found = {tuple(in_natural_order(some)) for some in shuffled}
    assert len(found) == 1
    if names[1] != "1.png":  # equal numbers: some fixed order
        assert found == {tuple(names)}


@pytest.mark.parametrize("pattern", ["frame_{}.jpg", "{}.png", "Frame {}.JPEG", "clip2_frame{}.png"])
@pytest.mark.parametrize("count", [3, 4, 12])
def test_frames_of_a_clip(tmp_path, pattern, count):
    folder = tmp_path / "visual [1]" / "clip"
    folder.mkdir(parents=True)
    for number in range(1, 13):
        picture = Image.new("RGB", (2, 2), (20 * number, 0, 0))
        picture.save(folder / pattern.format(number), "png")
    found = read_frames(tmp_path, "visual [1]/clip", count)
    shades = [round(np.asarray(Image.open(io.BytesIO(content)))[0, 0, 0] / 20) for content in found]
    assert shades == [1 + i * 12 // count for i in range(count)]


@pytest.mark.parametrize("count", [3, 11, 12])
def test_shards_that_are_numbered_without_zeros(tmp_path, count):
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "some", "class_names": ["one"]}))
    for shard in range(count):
        with tarfile.open(tmp_path / f"train-{shard}.tar", "w") as archive:
            for name, content in (("0.png", encode_png(np.zeros((4, 4, 3), np.uint8))), ("0.txt", b"%d" % shard)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    source = load_records("train", path=tmp_path, image_size=4)
    assert [source[i]["text"] for i in range(count)] == [str(shard) for shard in range(count)]


def test_pictures_of_a_folder(tmp_path):
    for number in (1, 2, 10, 9):
        path = tmp_path / "train/room" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "test/room").mkdir(parents=True)
    items = NyuDepthV2().items(tmp_path)["train"]
    assert [item.key for item in items] == [f"train/room/{number}.png" for number in (1, 2, 9, 10)]


def test_runs_of_a_study(tmp_path):
    for seed in (10, 2, 1):
        run = {"dataset": "toy", "method": "a", "seed": seed}
        scores = [{"name": "clean", "routes": {"representation": {"accuracy": 0.5}}}]
        (tmp_path / f"seed_{seed}").mkdir()
        (tmp_path / f"seed_{seed}/results.json").write_text(json.dumps({**run, "conditions": scores}))
    assert [row.seed for row in read_runs([tmp_path])] == [1, 2, 10]
