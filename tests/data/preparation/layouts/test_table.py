"""Own tables: what table.toml may say, what rows become, whole groups on one side, and a reason for every bad row."""

import pickle

import numpy as np
import pytest
from PIL import Image

from c3r_jax.commands.prepare import main
from c3r_jax.data.preparation.layouts.table import Table
from c3r_jax.data.preparation.listing import list_source
from c3r_jax.data.sets.prepared import load_prepared
from c3r_jax.errors import C3RError, DataError
from c3r_jax.experiments.experiment import build_experiment
from configs import table as table_config
from tests.data.preparation.training import shrunk

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:etils", "ignore::ResourceWarning")
ROWS, SITES, CLASSES = 150, 50, ("fern", "moss", "oak")
MODALITIES = """
[modalities]
photo = { image = "file", folder = "photos" }
note = { text = "note" }
weather = { numbers = ["warm", "wet"] }
"""
SPEC = 'rows = "plants.csv"\njoin = ["weather.csv"]\nkey = "id"\nlabel = "kind"\ngroup = "site"\n' + MODALITIES


def plant(i):
    return [f"p{i}", f"{i}.png", f"a note, on {i}" if i % 5 else "", f"site {i % SITES}", CLASSES[i % 3]]


def pixels(i):
    return np.random.default_rng(i).integers(0, 256, (8, 8, 3)).astype(np.uint8)


def write(source, spec=SPEC, rows=None, weather=None, separator=";"):
    (source / "photos").mkdir(parents=True)
    for i in range(ROWS):
        Image.fromarray(pixels(i)).save(source / "photos" / f"{i}.png")
    plants = [["id", "file", "note", "site", "kind"], *(rows or map(plant, range(ROWS)))]
    lines = [separator.join(row) for row in plants]
    (source / "plants.csv").write_text("\ufeff" + "\r\n".join(lines) + "\r\n\r\n", encoding="utf-8", newline="")
    weather = weather or [f"p{i},{i / 10},-{i}" for i in range(ROWS) if i % 7]
    (source / "weather.csv").write_text("\n".join(["id,warm,wet", *weather]))
    (source / "table.toml").write_text(spec)
    return source


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    main(
        ["table", "--source", str(write(folder / "source")), "--out", str(folder / "out"), "--workers", "0"],
        "c3r prepare",
    )
    return folder / "out"


def test_every_row_is_there_once_as_it_was(prepared):
    seen, sites = {}, {}
    for split in ("train", "validation", "test"):
        part = load_prepared(split, path=prepared, name="table", image_size=8)
        assert part.info.modalities == ("note", "photo", "weather") and part.info.class_names == CLASSES
        for i in range(len(part)):
            example = part[i]
            number = int(example["key"][1:])
            seen[number] = split
            sites.setdefault(number % SITES, set()).add(split)
            np.testing.assert_array_equal(example["photo"], pixels(number))
            assert example["note"] == (f"a note, on {number}" if number % 5 else None)
            assert example["label"] == number % 3
            if number % 7:
                np.testing.assert_array_equal(example["weather"], np.float32([number / 10, -number]))
            else:
                assert example["weather"] is None
            assert example["present"].tolist() == [number % 5 > 0, True, number % 7 > 0]
    assert sorted(seen) == list(range(ROWS))
    assert all(len(splits) == 1 for splits in sites.values())
    counts = [list(seen.values()).count(split) for split in ("train", "validation", "test")]
    assert np.abs(np.array(counts) - [90, 30, 30]).max() <= 6


def test_columns_of_environments(tmp_path):
    spec = SPEC.replace('group = "site"', 'group = "site"\nenvironment = ["site", "kind"]')
    rows = [[*plant(i)[:3], "" if i == 7 else f"site {i % SITES}", plant(i)[4]] for i in range(ROWS)]
    main(
        ["table", "--source", str(write(tmp_path / "s", spec, rows)), "--out", str(tmp_path / "out"), "--workers", "0"],
        "",
    )
    split_of = {}
    for split in ("train", "validation", "test"):
        part = load_prepared(split, path=tmp_path / "out", name="table", image_size=8)
        kinds = load_prepared(split, path=tmp_path / "out", image_size=8, environments="kind")
        assert part.info.environment == "site" and kinds.info.environments == CLASSES
        np.testing.assert_array_equal(kinds.environment, kinds.labels)
        for i in range(len(part)):
            example = part[i]
            number, found = int(example["key"][1:]), example["environment"]
            assert number == 7 if found == -1 else part.info.environments[found] == f"site {number % SITES}"
        seen = set(part.environment.tolist()) - {-1}
        assert all(split_of.setdefault(number, split) == split for number in seen)  # whole sites are held out
        assert split != "train" or sorted(seen) == list(range(len(seen)))
    with pytest.raises(DataError, match="'town' for 'table': expected one of site, kind"):
        load_prepared("train", path=tmp_path / "out", environments="town")


def test_its_configuration_makes_batches(prepared):
    batch = next(build_experiment(shrunk(table_config.get_config(), prepared)).train_iterator())
    assert {name: value.shape[1:] for name, value in batch["inputs"].items()}["photo"] == (8, 8, 3)
    assert batch["inputs"]["weather"].shape == (64, 2) and not batch["present"].all()


def listed(source):
    return list_source(Table().for_source(source), source)


def test_rows_with_one_image_file_stay_together_without_a_group(tmp_path):
    rows = [plant(i) for i in range(ROWS)]
    for i, row in enumerate(rows):
        row[1] = f"{i % 30}.png"
    source = write(tmp_path / "source", SPEC.replace('group = "site"\n', ""), rows)
    sides = {}
    for split, items in listed(source).items.items():
        for item in items:
            sides.setdefault(item.place["photo"], set()).add(split)
    assert len(sides) == 30 and all(len(found) == 1 for found in sides.values())


def test_dealing_is_that_of_the_seed(tmp_path):
    first = write(tmp_path / "first")
    second = write(tmp_path / "second", "seed = 1\n" + SPEC)
    keys = [[item.key for item in listed(source).items["test"]] for source in (first, first, second)]
    assert keys[0] == keys[1] != keys[2]


def test_given_splits_stay_and_lend_a_tenth_for_validation(tmp_path):
    spec = SPEC.replace('"plants.csv"', '{ train = "plants.csv", test = "later.csv" }').replace('group = "site"', "")
    source = write(tmp_path / "source", spec)
    (source / "later.csv").write_text("id,file,note,site,kind\nq1,1.png,late,site 1,oak\nq2,2.png,late,s,palm\n")
    found = listed(source)
    assert {split: len(items) for split, items in found.items.items()} == {"train": 135, "validation": 15, "test": 2}
    assert [item.damage for item in found.items["test"]] == [
        None,
        "later.csv, line 3: its label 'palm' is no label of the training rows",
    ]
    by_column = SPEC.replace('group = "site"', 'split = "note"')
    rows = [[*plant(i)[:2], ("train", "validation", "test", "tset")[i % 4], *plant(i)[3:]] for i in range(20)]
    found = listed(write(tmp_path / "column", by_column, rows))
    assert {split: len(items) for split, items in found.items.items()} == {"train": 10, "validation": 5, "test": 5}
    assert {one["reason"] for one in found.damaged} == {
        f"plants.csv, line {i + 2}: its 'note' is 'tset', expected one of train, validation, test"
        for i in range(3, 20, 4)
    }


def test_a_reason_for_every_bad_row(tmp_path):
    rows = [plant(i) for i in range(30)]
    rows[3][4] = ""
    rows[4] = rows[4][:3]
    rows[6][0] = "p8"
    weather = ["p1,warm,1", "p2,,1", "p9,1,2,3", *(f"p{i},1,2" for i in range(10, 30))]
    source = write(tmp_path / "source", rows=rows, weather=weather)
    assert {one["reason"] for one in listed(source).damaged} == {
        "plants.csv, line 5: its 'kind' is empty, expected a label",
        "plants.csv, line 6: it has 3 cells, expected 5, one for each column",
        "plants.csv, line 3: its 'warm' is 'warm', expected a finite number with a decimal point",
        "plants.csv, line 4: its 'warm' is empty, but not all of 'weather' is: fill it in, or leave all columns of it "
        "empty",
        "plants.csv, line 11: weather.csv, line 4: it has 4 cells, expected 3, one for each column",
        "plants.csv, line 10: its id 'p8' was there before, in plants.csv, line 8",
    }
    (source / "photos/0.png").write_bytes(b"dark")
    (source / "photos/5.png").unlink()
    command = ["table", "--source", str(source), "--out", str(tmp_path / "out"), "--workers", "0", "--max_damaged"]
    for allowed, count in ((5, 6), (7, 8)):  # rows alone, then what they name, too
        with pytest.raises(SystemExit, match=f"{count} items of table cannot be used, at most {allowed} are allowed"):
            main([*command, str(allowed)], "c3r prepare")
    report = (tmp_path / "out/table/damaged.json").read_text()
    assert "its file 'photos/5.png' is missing" in report and "photo: its image (4 bytes) is none of JPEG" in report


def test_numbers_and_several_labels(tmp_path):
    spec = SPEC.replace('label = "kind"', 'task = "regression"\nlabel = "site"').replace('group = "site"', "")
    rows = [[*plant(i)[:3], str(i / 4), "oak"] for i in range(20)]
    found = listed(write(tmp_path / "numbers", spec, rows))
    assert found.class_names == ()
    assert sorted(item.label for items in found.items.values() for item in items) == [i / 4 for i in range(20)]
    spec = SPEC.replace('label = "kind"', 'task = "multilabel"\nlabel = ["site", "kind"]').replace('group = "site"', "")
    rows = [[*plant(i)[:3], str(i % 2), "1" if i else "yes"] for i in range(20)]
    found = listed(write(tmp_path / "labels", spec, rows))
    assert found.class_names == ("site", "kind")
    assert [one["reason"] for one in found.damaged] == ["plants.csv, line 2: its 'kind' is 'yes', expected 0 or 1"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows =", "row =", "has 'row', expected some of rows, join"),
        ('label = "kind"', "", "has no 'label'"),
        ('"plants.csv"', "7", "rows in .* is 7, expected a file or"),
        ('"plants.csv"', '{ dev = "plants.csv" }', "expected train and any of validation and test"),
        ('key = "id"', "", "joins tables, so it needs key"),
        ('key = "id"', "key = 1", "key in .* is 1, expected the name of a column"),
        ('group = "site"', "seed = true", "seed in .* is True, expected a whole number"),
        ('group = "site"', 'task = "detection"', "task in .* is 'detection'"),
        ('label = "kind"', 'label = ["kind", "site"]', "names 2 columns, expected 1 unless task is 'multilabel'"),
        ('text = "note"', 'text = "kind"', "'note' in .* reads the label's column"),
        ('note = { text = "note" }', 'label = { text = "note" }', "names a modality 'label'"),
        (MODALITIES, 'modalities = "note"', "modalities in .* is 'note', expected a line for each modality below"),
        (MODALITIES, 'modalities = ["note", "photo"]', r"modalities in .* is \['note', 'photo'\], expected a line for"),
        (MODALITIES, "modalities = 7", "modalities in .* is 7, expected a line for each modality"),
        (
            'key = "id"',
            'key = "id"\nna_values = { knd = ["?"] }',
            "'knd', which no table has; the columns are file, id,",
        ),
        ('{ text = "note" }', '{ words = "note" }', "expected one of {image = COLUMN"),
        ('{ text = "note" }', '{ text = ["note", "site"] }', "expected one column of texts"),
        ('["warm", "wet"]', '["warm", "warm"]', "has a name twice"),
        ('["warm", "wet"]', '["warm", "cold"]', "Column 'cold' is in none of the tables, .* the columns are file, id"),
        ('"weather.csv"', '"plants.csv"', "Column 'file' is in plants.csv and plants.csv, expected it in one"),
        ('"weather.csv"', '"snow.csv"', "snow.csv is missing: table.toml names it"),
        ('"photos"', '"pictures"', "pictures is missing: table.toml names it as a folder of images"),
        ('group = "site"', 'group = "kind"', "'kind' is '.*' in every training row"),
        ('key = "id"', "key = id", "cannot be read as TOML"),
    ],
)
def test_descriptions_that_cannot_be_used(tmp_path, old, new, message):
    assert old in SPEC
    source = write(tmp_path / "source", SPEC.replace(old, new))
    with pytest.raises(DataError, match=message):
        listed(source)


def test_one_modality_is_refused_before_anything_is_written(tmp_path):
    source = write(tmp_path / "source", SPEC.replace(MODALITIES, '[modalities]\nnote = { text = "note" }'))
    with pytest.raises(SystemExit, match="source has 'note' alone, expected two modalities or more, which every run"):
        main(["table", "--source", str(source), "--out", str(tmp_path / "out"), "--workers", "0"], "c3r prepare")
    assert not (tmp_path / "out").exists()


def test_tables_that_cannot_be_used(tmp_path):
    source = write(tmp_path / "source")
    for content, message in (
        (b"id,warm,wet\nx1,1,2\n", "No 'id' of weather.csv is in plants.csv"),
        (b"id,warm,wet\np1,1,2\np1,2,3\n", "weather.csv, line 3 has the id 'p1' of weather.csv, line 2 again"),
        (b'id,warm,wet\np1,"1,2\n', "cannot be read as a table"),
        (b"id,warm,wet\np1,\xff,2\n", "is not in UTF-8"),
        (b"id,warm,warm\n", "expected a different name for each column"),
    ):
        (source / "weather.csv").write_bytes(content)
        with pytest.raises(DataError, match=message):
            listed(source)
    given = write(tmp_path / "given", SPEC.replace('"plants.csv"', '{ train = "plants.csv", test = "later.csv" }'))
    (given / "later.csv").write_text("id,file,note,site,kind\nq1,1.png,late,site 1,oak\n")
    with pytest.raises(DataError, match=r"1 groups of 'site' are in more than one split, e.g. 'site 1' \(t"):
        listed(given)
    one = write(tmp_path / "one", rows=[[*plant(i)[:4], "oak"] for i in range(60)])
    with pytest.raises(DataError, match="'kind' is 'oak' in every training row, but two classes or more were expected"):
        listed(one)
    few = write(tmp_path / "few", rows=[plant(i) for i in (0, 1)])
    with pytest.raises(DataError, match="There are no test rows: the rows are too few"):
        listed(few)
    with pytest.raises(C3RError, match="table.toml is missing"):
        Table().for_source(tmp_path)


def test_workers_get_the_description_alone(tmp_path):
    layout = Table().for_source(write(tmp_path / "source"))
    layout.items(tmp_path / "source")
    assert len(pickle.dumps(layout)) < 2000
