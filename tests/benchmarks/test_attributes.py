"""The attribute benchmark: what becomes a query, what a target, and what is refused."""

import csv
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fti4cir.benchmarks import attributes
from fti4cir.errors import InputError

HEADER = ("id", "kind", "colour")


def write(folder, rows, header=HEADER, name="table.csv"):
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def load(root, table, keep=("kind",), template="in {value}", **options):
    return attributes.load(root, table, "id", "colour", keep, template, **options)


@pytest.fixture
def shop(tmp_path):
    """Three shirts, two shoes and a hat."""
    rows = [
        ("1", "shirt", "Red"),
        ("2", "shoe", "Red"),
        ("3", "shirt", "Blue"),
        ("4", "shirt", "Blue"),
        ("5", "shoe", "Navy Blue"),
        ("6", "hat", "Red"),
    ]
    touch(tmp_path, *(f"{row[0]}.jpg" for row in rows))
    return tmp_path, write(tmp_path, rows)


def as_text(benchmark):
    ids = benchmark.gallery.ids
    return [(ids[query.reference], query.texts[0], [ids[i] for i in query.targets]) for query in benchmark.queries]


def test_queries_by_eye(shop):
    benchmark = load(*shop)
    assert as_text(benchmark) == [
        ("1", "in Blue", ["3", "4"]),
        ("2", "in Navy Blue", ["5"]),
        ("3", "in Red", ["1"]),
        ("4", "in Red", ["1"]),
        ("5", "in Red", ["2"]),
    ]  # the hat has no counterpart, but stays in the gallery
    assert benchmark.values == (("Blue",), ("Navy Blue",), ("Red",), ("Red",), ("Red",))
    assert benchmark.gallery.ids == ("1", "2", "3", "4", "5", "6")
    assert benchmark.gallery.paths == tuple(shop[0] / f"{i}.jpg" for i in range(1, 7))
    assert all(query.exclude == (query.reference,) for query in benchmark.queries)
    assert all(query.within is None for query in benchmark.queries)
    assert benchmark.name == "attributes"
    assert benchmark.protocol == "table.csv: colour changes, kept kind, 'in {value}'"


def test_without_kept_columns_any_image_may_be_a_target(shop):
    benchmark = load(*shop, keep=())
    assert as_text(benchmark)[:2] == [("1", "in Blue", ["3", "4"]), ("1", "in Navy Blue", ["5"])]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from("RGB")), max_size=12))
def test_agrees_with_the_definition_read_aloud(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("shop")
    table = [(str(number), *row) for number, row in enumerate(rows)]
    touch(folder, *(f"{row[0]}.png" for row in table))
    path = write(folder, table, header=("id", "kind", "maker", "colour"))
    expected = []
    for number, (kind, maker, colour) in enumerate(rows):
        agreeing = [i for i, row in enumerate(rows) if row[:2] == (kind, maker)]
        for value in sorted({rows[i][2] for i in agreeing} - {colour}):
            expected.append((number, f"in {value}", tuple(i for i in agreeing if rows[i][2] == value)))
    if not expected:
        with pytest.raises(InputError, match="no query"):
            load(folder, path, keep=("kind", "maker"))
        return
    queries = load(folder, path, keep=("kind", "maker")).queries
    assert [(query.reference, query.texts[0], query.targets) for query in queries] == expected


def test_ids_are_paths_with_or_without_extension(tmp_path):
    rows = [("sketch/dog/pic_1", "dog", "sketch"), ("./photo/dog/pic.1.JPG", "dog", "photo"), ("пёс 🐕", "dog", "art")]
    touch(tmp_path, "sketch/dog/pic_1.jpg", "photo/dog/pic.1.JPG", "пёс 🐕.webp", "unnamed.jpg")
    benchmark = load(tmp_path, write(tmp_path, rows))
    places = [str(path.relative_to(tmp_path)) for path in benchmark.gallery.paths]
    assert places == ["sketch/dog/pic_1.jpg", "photo/dog/pic.1.JPG", "пёс 🐕.webp"]


def test_an_exact_name_wins_over_an_added_extension(tmp_path):
    touch(tmp_path, "a.b", "a.b.jpg", "c.jpg", "c.txt")
    benchmark = load(tmp_path, write(tmp_path, [("a.b", "x", "Red"), ("c", "x", "Blue")]))
    assert [path.name for path in benchmark.gallery.paths] == ["a.b", "c.jpg"]


def test_a_broken_link_in_the_folder_does_no_harm(shop):
    (shop[0] / "loop.jpg").symlink_to(shop[0] / "loop.jpg")
    assert len(load(*shop).gallery) == 6


def test_values_stand_as_in_the_table(tmp_path):
    rows = [("1", "x", "Off White, {value} {0}"), ("2", "x", " red"), ("3", "x", "red")]
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    texts = {query.texts[0] for query in load(tmp_path, write(tmp_path, rows), template="{value} {x}").queries}
    assert texts == {"Off White, {value} {0} {x}", " red {x}", "red {x}"}


def test_images_of_unknown_value_only_fill_the_gallery(tmp_path):
    rows = [("1", "x", "Red"), ("2", "x", "Blue"), ("3", "x", ""), ("4", " ", "Red"), ("5", "", "Blue")]
    touch(tmp_path, *(f"{i}.jpg" for i in range(1, 6)))
    benchmark = load(tmp_path, write(tmp_path, rows))
    assert as_text(benchmark) == [("1", "in Blue", ["2"]), ("2", "in Red", ["1"])]
    assert len(benchmark.gallery) == 5


def test_missing_images_stop_it_unless_allowed(shop):
    root, table = shop
    for name in ("4.jpg", "6.jpg"):
        (root / name).unlink()
    with pytest.raises(InputError, match=r"2 of the 6 images .* 4, 6; .*--allow-missing"):
        load(root, table)
    benchmark = load(root, table, allow_missing=True)
    assert benchmark.gallery.missing == ("4", "6")
    assert benchmark.gallery.ids == ("1", "2", "3", "5")
    assert as_text(benchmark)[0] == ("1", "in Blue", ["3"])


def test_many_missing_images_are_named_by_example(tmp_path):
    table = write(tmp_path, [(f"nowhere/{i}", "x", "Red") for i in range(1000)])
    with pytest.raises(InputError, match=r"1000 of the 1000 .*nowhere/4, \.\.\.;"):
        load(tmp_path, table)


def test_limit_draws_the_same_queries_again(tmp_path):
    touch(tmp_path, *(f"{i}.jpg" for i in range(40)))
    table = write(tmp_path, [(str(i), "x", "RGB"[i % 3]) for i in range(40)])
    every = load(tmp_path, table)
    some = load(tmp_path, table, limit=20, seed=1)
    assert some == load(tmp_path, table, limit=20, seed=1)
    assert len(some.queries) == len(some.values) == 20
    assert some.gallery == every.gallery
    assert [query for query in every.queries if query in some.queries] == list(some.queries)
    assert all(query.texts == (f"in {value}",) for query, (value,) in zip(some.queries, some.values, strict=True))
    assert some.queries != load(tmp_path, table, limit=20, seed=2).queries
    assert set(load(tmp_path, table, limit=5, seed=1).queries) < set(some.queries)
    assert load(tmp_path, table, limit=10_000).queries == every.queries


def test_byte_order_mark_quotes_and_blank_lines(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg")
    table = tmp_path / "table.csv"
    table.write_text('id,"kind",colour\r\n1,"a ""b"", c",Red\r\n\r\n2,"a ""b"", c",Blue\r\n', encoding="utf-8-sig")
    assert len(load(tmp_path, table).queries) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ("size",)}, "no column 'size'; it has: id, kind, colour"),
        ({"keep": ("kind", "colour")}, "'colour' cannot both change and be kept"),
        ({"template": "in red"}, r"'in red' needs \{value\}"),
        ({"limit": 0}, "at least 1"),
    ],
)
def test_options_that_make_no_sense(shop, options, message):
    with pytest.raises(InputError, match=message):
        load(*shop, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'id'; it has: none at all"),
        ("id,kind,colour", "no query"),
        ("id,kind,colour\n1,x,Red", "no query"),
        ("id,kind,colour,colour\n1,x,Red,Blue", "'colour' more than once"),
        ("id,kind,colour\n1,x,Red\n1,x,Blue", "several: 1.jpg"),
        ("id,kind,colour\n1,x,Red\n1.jpg,x,Blue", "several: 1.jpg"),
        ("id,kind,colour\n9,x,Red\n./9,x,Blue", "several: 9"),
        ("id,kind,colour\n1,x,Red, dark", "line 2: 4 fields, but the header has 3"),
        ("id,kind,colour\n1,x", "line 2: 2 fields"),
        ("id,kind,colour\n1,x,Red\n ,x,Blue", "line 3: the id in column 'id' is empty"),
        ("id,kind,colour\n../1,x,Red", "'../1' is not the path of an image inside"),
        ("id,kind,colour\n/etc/passwd,x,Red", "'/etc/passwd' is not the path"),
        ("id,kind,colour\na/../..,x,Red", "is not the path"),
        ("id,kind,colour\n.,x,Red", "is not the path"),
        ("id,kind,colour\na\0/b,x,Red", "is not the path|not a CSV file"),
        ("id,kind,colour\n2,x,Red", "'2' fits more than one image .*: 2.jpg, 2.png"),
        ('id,kind,colour\n1,x,"Red', "not a CSV file in UTF-8"),
    ],
)
def test_tables_that_make_no_sense(tmp_path, text, message):
    touch(tmp_path, "1.jpg", "2.jpg", "2.png")
    table = tmp_path / "table.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load(tmp_path, table)


def test_not_a_table_and_not_a_folder(shop):
    root, table = shop
    with pytest.raises(InputError, match=r"none\.csv cannot be read: No such file"):
        load(root, root / "none.csv")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load(root, root)
    with pytest.raises(InputError, match="is not a folder"):
        load(table, table)
    latin = root / "latin.csv"
    latin.write_bytes("id,kind,colour\n1,x,Türkis".encode("latin-1"))
    with pytest.raises(InputError, match="not a CSV file in UTF-8"):
        load(root, latin)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_may_not_be_read(tmp_path):
    touch(tmp_path, "closed/1.jpg")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(InputError, match="closed cannot be read: Permission denied"):
            load(tmp_path, write(tmp_path, [("closed/1", "x", "Red")]))
    finally:
        (tmp_path / "closed").chmod(0o700)
