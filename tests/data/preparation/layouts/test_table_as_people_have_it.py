"""Tables as people really have them: the right value, or a refusal that says what to do; never a silent wrong row."""

import csv
import io

import pytest
from PIL import Image

from c3r_jax.data.media.image import PictureRules
from c3r_jax.data.preparation.layouts.table import Table
from c3r_jax.data.preparation.listing import list_source
from c3r_jax.errors import DataError

N, WORDS = 60, ("apple", "river", "train")
HEAD = ["id", "file", "name", "kind", "red", "green"]
SPEC = """rows = "things.csv"
key = "id"
label = "kind"
[modalities]
picture = { image = "file", folder = "pictures" }
name = { text = "name" }
colour = { numbers = ["red", "green"] }
"""


def rows_of(n=N):
    return [[f"t{i}", f"{i}.png", f"{WORDS[i % 3]} no {i}", WORDS[i % 3], f"{i / 8}", f"-{i}.5"] for i in range(n)]


def text_of(rows, head=HEAD, separator=",", end="\n"):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, lineterminator=end).writerows([head, *rows])
    return file.getvalue()


@pytest.fixture
def listed(tmp_path):
    """Lists a source of one table, and perhaps more, by key."""

    def of(text, spec=SPEC, encoding="utf-8", **more):
        source = tmp_path / "source"
        (source / "pictures").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(source / "pictures" / "0.png")
        files = {"things.csv": text, "table.toml": spec, **{f"{name}.csv": content for name, content in more.items()}}
        for name, content in files.items():
            data = (
                content if isinstance(content, bytes) else content.encode(encoding if name == "things.csv" else "utf-8")
            )
            (source / name).write_bytes(data)
        layout = Table().for_source(source)
        listing = list_source(layout, source)
        items = {item.key: item for items in listing.items.values() for item in items}
        return listing, items, layout.missing_values(source)

    return of


def changed(*cells):
    """The rows with (row, column, text) changed."""
    rows = rows_of()
    for row, column, text in cells:
        rows[row][column] = text
    return text_of(rows)


@pytest.mark.parametrize("word", ["nan", "NA", "None", "NULL", "n/a", "<NA>", " NaN ", "#N/A", "NaT"])
def test_words_for_missing_values_are_no_values(listed, word):
    cells = [(0, 2, word), (1, 1, word), (2, 4, word), (2, 5, ""), (3, 3, word)]
    listing, items, missing = listed(changed(*cells))
    assert items["t0"].place["name"] is None and items["t1"].place["picture"] is None
    assert items["t2"].place["colour"] is None and items["t4"].place["colour"] == (0.5, -4.5)
    assert listing.class_names == WORDS
    (damaged,) = listing.damaged
    assert (
        "which stands for a missing value, expected a label: fill it in, leave the row out, or set" in damaged["reason"]
    )
    plain = word.strip()
    assert missing == {"name": {plain: 1}, "file": {plain: 1}, "red": {plain: 1}, "green": {"": 1}, "kind": {plain: 1}}
    assert any(f"'name' ({plain!r} 1 times)" in note and "na_values in table.toml" in note for note in listing.notes)


@pytest.mark.parametrize("word", ["none", "Na", "NAN", "Null", "nat"])
def test_words_in_another_case_are_words(listed, word):
    listing, items, missing = listed(changed((0, 2, word), *((i, 3, word) for i in range(0, N, 3))))
    assert items["t0"].place["name"] == word and word in listing.class_names and not listing.damaged and not missing


def test_keys_splits_groups_and_environments_may_be_called_na(listed):
    head = [*HEAD, "site", "region"]
    rows = [[*row, ("NA", "EU")[i % 2], ("null", "nan", "")[i % 3]] for i, row in enumerate(rows_of())]
    rows[0][0] = "None"
    spec = f'environment = ["region"]\n{SPEC}'
    _, items, missing = listed(text_of(rows, head), spec)
    assert "None" in items and items["None"].environments == ("null",) and items["t1"].environments == ("nan",)
    assert missing == {"region": {"": N // 3}}
    grouped = f'group = "site"\nrows = {{ train = "things.csv", test = "more.csv" }}\n{SPEC.partition(chr(10))[2]}'
    with pytest.raises(DataError, match=r"1 groups of 'site' are in more than one split, e.g. 'NA'"):
        listed(text_of(rows, head), grouped, more=text_of([["x", *rows[0][1:]]], head))
    named = spec.replace("environment =", 'na_values = { region = ["nan"] }\nenvironment =')
    assert listed(text_of(rows, head), named)[1]["t1"].environments == ("",)


@pytest.mark.parametrize(
    ("setting", "label", "text"),
    [("[]", "None", "none at all"), ('["-999", "?"]', "NA", "?"), ('{ kind = [], name = ["?"] }', "null", "?")],
)
def test_which_words_are_missing_can_be_set(listed, setting, label, text):
    cells = [(i, 3, label) for i in range(0, N, 3)]
    listing, items, _ = listed(changed(*cells, (0, 2, text)), f"na_values = {setting}\n{SPEC}")
    assert not listing.damaged and label in listing.class_names
    assert items["t0"].place["name"] == (None if text == "?" else text)


@pytest.mark.parametrize(
    ("one", "other"), [("1", "1.0"), ("01", "1"), ("Apple_pie", "apple pie"), ("a\u00e9", "ae\u0301"), ("2", "2e0")]
)
def test_one_label_in_several_ways_is_said(listed, one, other):
    cells = [(i, 3, one if i % 2 else other) for i in range(0, N, 3)]
    listing, _, _ = listed(changed(*cells))
    (warning,) = listing.warnings
    assert repr(one) in warning and repr(other) in warning and "one label written in 2 ways" in warning


def test_different_numbers_are_different_labels(listed):
    listing, _, _ = listed(changed(*((i, 3, str((i % 4) - 2)) for i in range(N))))
    assert listing.class_names == ("-1", "-2", "0", "1") and not listing.warnings


JOINED = SPEC.replace('key = "id"', 'join = ["colours.csv"]\nkey = "id"')


def joined(change, share=1.0, rename=None):
    """The table without its colours, and the colours with other keys for a share of the rows."""
    rows = rows_of()
    keys = [change(i) if i < share * N else (rename or str)(i) for i in range(N)]
    colours = text_of([[key, *row[4:]] for key, row in zip(keys, rows, strict=True) if key], ["id", "red", "green"])
    return text_of([[str(i), *row[1:4]] for i, row in enumerate(rows)], HEAD[:4]), colours


@pytest.mark.parametrize(
    ("change", "pair"),
    [
        (lambda i: f"{i}.0", "'0' (things.csv, line 2) and '0.0' (colours.csv, line 2)"),
        (lambda i: f"{i:04}", "'0' (things.csv, line 2) and '0000'"),
        (lambda i: f"{i}\u200b", "'0' (things.csv, line 2) and '0\\u200b'"),
    ],
)
@pytest.mark.parametrize("share", [1.0, 0.2])
def test_keys_written_in_two_ways_are_refused(listed, change, pair, share):
    table, colours = joined(change, share)
    with pytest.raises(DataError) as error:
        listed(table, JOINED, colours=colours)
    assert pair in str(error.value) and "write it in one way in both" in str(error.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [("11", "011"), ("abC", "aBc"), ("a-b", "a_b"), ("9" * 29 + "1", "9" * 29 + "2"), ("1.10", "1.1"), ("1E5", "1e05")],
)
def test_keys_that_are_different_are_not_declared_one(listed, one, other):
    """Ids differ by case, zeros or hyphens in some tables: a few such pairs are noted, and there is a way out.

    Numbers that are not all whole are names: nothing is said of 1.10 and 1.1.
    """
    rows = rows_of()
    ids = [one, *(f"t{i}" for i in range(1, N))]
    table = text_of([[name, *row[1:4]] for name, row in zip(ids, rows, strict=True)], HEAD[:4])

    def colours(*left_out):
        kept = [[name, *row[4:]] for name, row in zip(ids, rows, strict=True) if name not in left_out]
        return text_of([*kept, [other, 5, 5]], ["id", "red", "green"])

    listing, items, _ = listed(table, JOINED, colours=colours(one, "t1", "t2"))
    long = len(one) > 9 or one in ("1.10", "1E5")  # long numbers are different in their last digit, too
    assert items[one].place["colour"] is None
    assert any("they were taken for different" in note for note in listing.notes) is not long
    if not long:
        with pytest.raises(DataError, match="or, if they are different, set max_unmatched = 1 "):
            listed(table, JOINED, colours=colours(one))
    assert listed(table, f"max_unmatched = 1\n{JOINED}", colours=colours(one))[1][one].place["colour"] is None


def test_keys_that_one_table_keeps_apart_are_different(listed):
    names = ["v1.1", "1.1", *(f"t{i}" for i in range(2, N))]
    rows = rows_of()
    table = text_of(
        [["1.10", *rows[0][1:4]], *([n, *r[1:4]] for n, r in zip(names[1:], rows[1:], strict=True))], HEAD[:4]
    )
    colours = text_of([[n, *r[4:]] for n, r in zip(["1.100", *names[1:]], rows, strict=True)], ["id", "red", "green"])
    listing, items, _ = listed(table, JOINED, colours=colours)
    assert items["1.10"].place["colour"] is None and items["1.1"].place["colour"] is not None
    assert not any("another way" in note for note in listing.notes)


@pytest.mark.parametrize(
    "ids", [["1.2", "1.11", "1.1", "1.10"], ["2.50", "2.5", "25", "25.0"], ["1e3", "1000", "1E03"]]
)
def test_ids_with_a_point_are_never_read_as_numbers(listed, ids):
    """Neither joined nor renamed, whatever number they would be."""
    names = [*ids, *(f"7.{i}" for i in range(N - len(ids)))]
    rows = rows_of()
    table = text_of([[n, *row[1:4]] for n, row in zip(names, rows, strict=True)], HEAD[:4])
    colours = text_of([[n, i, -i] for i, n in enumerate(names)][::-1], ["id", "red", "green"])
    listing, items, _ = listed(table, JOINED, colours=colours)
    assert {name: item.place["colour"] for name, item in items.items()} == {n: (i, -i) for i, n in enumerate(names)}
    assert not listing.notes and not listing.damaged


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (["7", "7.0"], "'7' and '7.0'"),
        (["P01", "p01"], "'P01' and 'p01'"),
        (["site 1", "site_1"], "'site 1' and 'site_1'"),
        (["1.1", "1.10"], ""),
        (["7", "8"], ""),
    ],
)
@pytest.mark.parametrize("leaf", ["group", "environment"])
def test_groups_written_in_two_ways_are_said(listed, groups, said, leaf):
    """Else one person is in training and in test without a word."""
    rows = [[*row, groups[i % 2] if i < 20 else f"g{i}"] for i, row in enumerate(rows_of())]
    listing, _, _ = listed(text_of(rows, [*HEAD, "who"]), f'{leaf} = "who"\n{SPEC}')
    assert any(said and said in note and "'who' are perhaps" in note for note in listing.notes) is bool(said)


def test_rows_without_a_partner_are_counted_and_refused_above_the_limit(listed):
    table, colours = joined(lambda i: f"x{i}" if i % 2 else "", 0.2)
    listing, items, _ = listed(table, JOINED, colours=colours)
    assert items["0"].place["colour"] is None and items["59"].place["colour"] is not None
    assert "12 of 60 rows find no partner in colours.csv by 'id', such as '0', '1', '2'" in listing.notes[0]
    assert "6 of 54 rows of colours.csv belong to no row, such as 'x1'" in listing.notes[1]
    for limit in ("0", "11", "0.1"):
        with pytest.raises(DataError, match=f"12 of 60 rows find no .* more than max_unmatched = {limit} allows"):
            listed(table, f"max_unmatched = {limit}\n{JOINED}", colours=colours)
    assert listed(table, f"max_unmatched = 12\n{JOINED}", colours=colours)[0].notes
    many = joined(lambda i: f"x{i}", 0.6)
    with pytest.raises(DataError, match="36 of 60 rows"):
        listed(many[0], JOINED, colours=many[1])
    for limit in ("-1", '"few"', "1.5", "true"):
        with pytest.raises(DataError, match="max_unmatched in .* expected a whole number of rows or a share"):
            listed(table, f"max_unmatched = {limit}\n{JOINED}", colours=colours)


def plain_table(rows, head=HEAD):
    return text_of(rows, head)


NAMES = {"name": "name, long, title", "kind": "kind, of thing", "red": "size, red", "green": "size, green"}
LONG = [NAMES.get(name, name) for name in HEAD]
FORMS = {
    "mark": "\ufeff" + text_of(rows_of()),
    "sep": "sep=;\r\n" + text_of(rows_of(), separator=";", end="\r\n"),
    "sep quoted": '"sep=\t"\n' + text_of(rows_of(), separator="\t"),
    "bars": text_of(rows_of(), separator="|"),
    "old mac": text_of(rows_of(), end="\r"),
    "pandas index": text_of([[i, *row] for i, row in enumerate(rows_of())], ["", *HEAD]),
    "separators at the end": "".join(f"{line},\n" for line in text_of(rows_of()).splitlines()),
    "separators at the end of all but the first": text_of([[*row, ""] for row in rows_of()]),
    "invisible mark in a name": text_of(rows_of(), ["\ufeffid", "file\u200b", *HEAD[2:]]),
    "blank lines": text_of(rows_of()).replace("\n", "\n\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_table_means_the_same(listed, form):
    plain = listed(text_of(rows_of()))[1]
    assert {key: item.place for key, item in listed(FORMS[form])[1].items()} == {k: i.place for k, i in plain.items()}


@pytest.mark.parametrize(
    ("separator", "encoding"), [(";", "utf-8"), ("\t", "utf-16"), (",", "utf-8"), ("|", "utf-8-sig")]
)
def test_separators_in_quoted_names_do_not_count(listed, separator, encoding):
    lines = text_of(rows_of(), LONG, separator).split("\n", 1)
    text = separator.join(f'"{name}"' for name in LONG) + "\n" + lines[1]
    spec = SPEC
    for name, long in NAMES.items():
        spec = spec.replace(f'"{name}"', f'"{long}"')
    listing, items, _ = listed(text, spec, encoding)
    assert items["t7"].place == {"picture": "pictures/7.png", "name": "river no 7", "colour": (0.875, -7.5)}
    assert listing.class_names == WORDS


def with_lines(**changes):
    lines = text_of(rows_of()).split("\n")
    for number, line in changes.items():
        lines[int(number[1:])] = line
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            with_lines(_11='t10,10.png,"Breakfast recipe,train,1.0,-1.0', _12='t11,11.png,Pizza 12",river,2.0,-2.0'),
            "line 12: a quote opens in column 'name' and takes in line 13",
        ),
        (
            with_lines(_11='t10,10.png,"Soup, hot, sour,train,1.0,-1.0', _13='t12,12.png,Pan 9",river,2.0,-2.0'),
            "line 12: a quote opens in column 'name'",
        ),
        (
            with_lines(_11='"t10,10.png,apple,apple,1.0,-1.0', _12='t11",11.png,Pizza,river,2.0,-2.0'),
            "line 12: a quote opens in column 'id'",
        ),
        (with_lines(_11='t10,10.png,"Breakfast,train,1.0,-1.0'), "line 12: a quote that opens there is never closed"),
        (
            with_lines(_11='t10,10.png,"Breakfast,train,1,-1', _21='t20,20.png,"Soup, hot",river,2,-2'),
            "cannot be read as a table: line 12",
        ),
    ],
)
def test_a_quote_that_is_not_closed_is_refused(listed, text, message):
    with pytest.raises(DataError, match=message):
        listed(text)


TEXT_LAST = 'rows = "things.csv"\nlabel = "kind"\n[modalities]\nname = { text = "name" }\n'


@pytest.mark.parametrize(
    "text",
    [
        "Breaking news\n2,000 people fled",
        "They came\n1, perhaps 2",
        "A list:\n2,milk\nand more",
        "A list:\n,nothing\n",
        "One, two\n\n3",
        "Left\n7,and right",
    ],
)
@pytest.mark.parametrize("head", [("kind", "name"), ("id", "kind", "name")])
def test_a_text_in_the_last_column_may_have_lines(listed, text, head):
    rows = [[f"t{i}", 1 + i % 3, f"{WORDS[i % 3]} no {i}"] for i in range(N)]
    rows[4][2] = text
    spec = TEXT_LAST if len(head) == 2 else f'key = "id"\n{TEXT_LAST}'
    listing, items, _ = listed(text_of([row[-len(head) :] for row in rows], head), spec)
    assert text.strip() in {item.place["name"] for item in items.values()} and len(items) == N
    assert listing.class_names == ("1", "2", "3")


@pytest.mark.parametrize("head", [("kind", "name"), ("id", "kind", "name")])
@pytest.mark.parametrize("kinds", [("1", "2", "3"), WORDS])
def test_a_quote_in_the_last_column_that_takes_in_rows_is_refused(listed, head, kinds):
    lines = [[f"t{i}", kinds[i % 3], f"{WORDS[i % 3]} no {i}"] for i in range(N)]
    lines[4][2], lines[6][2] = '"Bowl', 'Pan 9"'
    text = "\n".join(",".join(line[-len(head) :]) for line in [["id", "kind", "name"], *lines])
    with pytest.raises(DataError, match="line 6: a quote opens in column 'name' and takes in line 7"):
        listed(text.replace('"Bowl', '"Bowl, blue'), TEXT_LAST if len(head) == 2 else f'key = "id"\n{TEXT_LAST}')


def test_texts_may_have_lines_quotes_and_any_length(listed):
    long = "wort " * 40_000
    texts = {0: "two\nlines, and a comma", 1: 'she said "hi", and\r\nleft, at 5,train', 2: long, 3: "a\nb\nc"}
    listing, items, _ = listed(changed(*((row, 2, text) for row, text in texts.items()), (9, 0, "t3")))
    assert [items[f"t{row}"].place["name"] for row in texts] == [text.strip() for text in texts.values()]
    # The first line of a row counts, and the first row with an id.
    assert [one["reason"] for one in listing.damaged] == [
        "things.csv, line 15: its id 't3' was there before, in things.csv, line 7"
    ]
    assert items["t59"].damage is None


@pytest.mark.parametrize("seed", range(3))
def test_the_first_line_with_an_id_counts_whatever_its_split(listed, seed):
    listing, _, _ = listed(changed(*((i, 0, f"t{i - 30}") for i in range(30, N))), f"seed = {seed}\n{SPEC}")
    assert len(listing.damaged) == 30
    for one in listing.damaged:
        line, before = (int(part.split(":")[0].rpartition(" ")[2]) for part in (one["reason"], one["reason"] + ":"))
        assert line > 31 and int(one["reason"].rpartition(" ")[2]) == line - 30, before


def test_quotes_escaped_by_backslashes(listed):
    text = with_lines(_1='t0,0.png,"He said \\"hi\\", then left",apple,1.0,-1.0')
    listing, items, _ = listed(text)
    assert items["t0"].place["name"] == 'He said "hi", then left' and "escaped by a backslash" in listing.notes[0]
    with pytest.raises(DataError, match="correct its quotes"):
        listed(text.replace("1.png", "a\\1.png"))  # backslashes that mean something else


@pytest.mark.parametrize("name", ["pictures\\0.png", ".\\pictures\\0.png", "pictures/0.png"])
def test_paths_of_windows(listed, name):
    _, items, _ = listed(changed((0, 1, name)), SPEC.replace(', folder = "pictures"', ""))
    assert items["t0"].place["picture"].removeprefix("./") == "pictures/0.png"


@pytest.mark.parametrize("text", ["1_000", "\u0661\u0662", "1,5", "0x10", "1 000", "inf", "5 %"])
def test_what_is_no_number_is_refused(listed, text):
    listing, _, _ = listed(changed((0, 4, text)))
    assert f"its 'red' is {text!r}, expected a finite number" in listing.damaged[0]["reason"]


def test_row_numbers_without_a_name_are_refused_where_names_would_shift(listed):
    with pytest.raises(DataError, match="has 7 cells and the first has 6 names: name the column of row numbers"):
        listed(text_of([[i, *row] for i, row in enumerate(rows_of())]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("caf\u00e9".encode("latin-1") + text_of(rows_of()).encode(), "is not in UTF-8 .* save it as UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "pointer of Git LFS.*git lfs pull"),
        (b"<!DOCTYPE html><html>Virus scan warning</html>", "is a web page"),
        (b"PK\x03\x04" + bytes(50), "is a zip archive or an Excel file, expected a CSV file"),
        (b"\x1f\x8b" + bytes(50), "is packed by gzip"),
        (text_of(rows_of()).encode("utf-16-le"), "has NUL characters, as UTF-16 without a mark has"),
        (b"", "expected a different name for each column"),
    ],
)
def test_files_that_are_no_table(listed, content, message):
    with pytest.raises(DataError, match=message):
        listed(content)


def test_a_description_with_a_mark(listed):
    assert listed(text_of(rows_of()), "\ufeff" + SPEC)[0].class_names == WORDS


@pytest.mark.parametrize(
    ("setting", "rules"),
    [
        ("range = [0, 10000]", PictureRules(span=(0, 10000))),
        ("upright = false", PictureRules(upright=False)),
        ("range = [0.5, 2], upright = true", PictureRules(span=(0.5, 2))),
    ],
)
def test_what_pictures_mean_can_be_said(listed, setting, rules, tmp_path):
    spec = SPEC.replace('folder = "pictures"', f'folder = "pictures", {setting}')
    listing, _, _ = listed(text_of(rows_of()), spec)
    layout = Table().for_source(tmp_path / "source")
    assert layout.pictures == {"picture": rules}
    assert listing.digest(layout) != listing.digest(layout.with_pictures(PictureRules(span=(1, 2))))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('folder = "pictures"', "range = [1]", "expected true or false and two numbers"),
        ('folder = "pictures"', "range = [9, 1]", "expected a low and a higher number"),
        ('folder = "pictures"', 'upright = "yes"', "expected true or false"),
        ('text = "name"', 'text = "name", range = [0, 1]', "which images alone have"),
    ],
)
def test_what_pictures_cannot_mean(listed, old, new, message):
    with pytest.raises(DataError, match=message):
        listed(text_of(rows_of()), SPEC.replace(old, new))
