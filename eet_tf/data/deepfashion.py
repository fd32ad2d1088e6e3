"""DeepFashion's two retrieval benchmarks -> Catalog: who is a query, who is in the gallery, what attributes mean.

Reference:
    Liu, Luo, Qiu, Wang, Tang, DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich Annotations,
    CVPR 2016.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from eet_tf.data.attributes import answer_columns
from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.data.lists import find_file, listed, numbered_lines, split_fields
from eet_tf.wording import counted, normal_path

_PARTITIONS = (os.path.join("Eval", "list_eval_partition.txt"), "list_eval_partition.txt")
_INSHOP_HEADER = ["image_name", "item_id", "evaluation_status"]
_INSHOP_STATUSES = {"train": ("train", ""), "query": ("test", "query"), "gallery": ("test", "gallery")}
_CONSUMER_HEADER = ["image_pair_name_1", "image_pair_name_2", "item_id", "evaluation_status"]
_CONSUMER_SPLITS = {"train": "train", "val": "test", "test": "test"}
_ATTRIBUTE_FOLDERS = (os.path.join("Anno", "attributes"), "Anno")
_ANSWERS = {"1": 1, "-1": 0, "0": -1}
_Photo = tuple[int, str, str, str, str]  # line, path, item, split and role


def benchmark_in(data_dir: str) -> str | None:
    """Which of the two benchmarks has its list in a folder: `"inshop"`, `"consumer_to_shop"`, or None for neither."""
    file = next((file for file in (os.path.join(data_dir, name) for name in _PARTITIONS) if os.path.isfile(file)), None)
    lines = [line.split() for _, line in itertools.islice(numbered_lines(file), 2)] if file else []
    headers = {"inshop": _INSHOP_HEADER, "consumer_to_shop": _CONSUMER_HEADER}
    return next((name for name, header in headers.items() if lines[1:] == [header]), None)


def load_inshop(data_dir: str) -> Catalog:
    """In-Shop Clothes Retrieval: shop photos of a product are looked for among other shop photos.

    - `Eval/list_eval_partition.txt`, or the same file in `data_dir` itself: a count, a header, then rows
      `image_name item_id evaluation_status`.
    - The photos, in `img/` or `Img/img/`.
    - Optional: `Anno/attributes/list_attr_items.txt` with the names beside it in `list_attr_cloth.txt`, or both in
      `Anno/`. An item has 1, -1 or 0 for each attribute: `"yes"`, `"no"` or `""`, unknown, as an item without a row.

    Args:
        data_dir: folder that holds these.

    Returns:
        A catalogue with splits `"train"` and `"test"`; test photos have the role `"query"` or `"gallery"`. Skus are
        item ids, categories the folders around an item, e.g. `"WOMEN/Dresses"`.

    Raises:
        CatalogError: names the file and line of what is wrong.

    Reference:
        DeepFashion (Liu et al., CVPR 2016).
    """
    data_dir = normal_path(data_dir)
    file = find_file(data_dir, *_PARTITIONS)
    count, rows = _read_partition(file, _INSHOP_HEADER, _INSHOP_STATUSES)
    if len(rows) != count:
        raise CatalogError(
            f"{file}: its first line promises {counted(count, 'row')}. Received: {len(rows)}. Get the file anew."
        )
    photos = [(number, path, item, *_INSHOP_STATUSES[status]) for number, (path, item, status) in rows]
    return _make_catalog(data_dir, file, photos)


def load_consumer_to_shop(data_dir: str) -> Catalog:
    """Consumer-to-Shop Clothes Retrieval: what a customer photographed is looked for among shop photos.

    - `Eval/list_eval_partition.txt`, or the same file in `data_dir` itself: a count, a header, then rows
      `consumer_path shop_path item_id evaluation_status`. A photo may stand in many rows; it is listed once.
    - The photos, in `img/` or `Img/img/`.
    - Optional: attributes as for `load_inshop`. A number behind every name in `list_attr_cloth.txt` is the
      attribute's type, and left out.

    Args:
        data_dir: folder that holds these.

    Returns:
        A catalogue with splits `"train"` and `"test"`, which is `val` and `test` together, as the paper evaluates.
        Consumer photos have the role `"query"`, shop photos `"gallery"`. Skus are item ids, categories the folders
        around an item, e.g. `"CLOTHING/Blouse"`.

    Raises:
        CatalogError: names the file and line of what is wrong, such as a photo that is listed with two items.

    Reference:
        DeepFashion (Liu et al., CVPR 2016).
    """
    data_dir = normal_path(data_dir)
    file = find_file(data_dir, *_PARTITIONS)
    _, rows = _read_partition(file, _CONSUMER_HEADER, _CONSUMER_SPLITS)  # the count may be of photos, not of pairs
    return _make_catalog(data_dir, file, _photos_of_pairs(file, rows))


def _read_partition(file: str, header: list[str], statuses: Iterable[str]) -> tuple[int, list[tuple[int, list[str]]]]:
    """The count in the first line, and the rows with their line numbers."""
    lines = numbered_lines(file)
    count = _read_count(file, lines)
    if next(lines, (2, ""))[1].split() != header:
        raise CatalogError(f"{file}:2: the second line must be {' '.join(header)!r}.")
    rows = []
    for number, line in lines:
        fields = split_fields(f"{file}:{number}", line, len(header))
        if fields[-1] not in statuses:
            raise CatalogError(
                f"{file}:{number}: `evaluation_status` must be one of {', '.join(statuses)}. Received: {fields[-1]!r}."
            )
        rows.append((number, fields))
    return count, rows


def _read_count(file: str, lines: Iterator[tuple[int, str]]) -> int:
    number, line = next(lines, (1, ""))
    if not line.isdecimal():
        raise CatalogError(f"{file}:{number}: the first line must be the number of rows. Received: {line!r}.")
    return int(line)


def _photos_of_pairs(file: str, rows: list[tuple[int, list[str]]]) -> list[_Photo]:
    """Each photo once, with the line that lists it first."""
    photos: dict[str, _Photo] = {}
    for number, (consumer, shop, item, status) in rows:
        for path, role in ((consumer, "query"), (shop, "gallery")):
            photo = (number, path, item, _CONSUMER_SPLITS[status], role)
            known = photos.setdefault(path, photo)
            if known[1:] != photo[1:]:
                raise CatalogError(
                    f"{file}:{number}: photo {path!r} must have one item, one split and one role. Received: "
                    f"{', '.join(photo[2:])} here, {', '.join(known[2:])} in line {known[0]}. Delete the wrong row."
                )
    return list(photos.values())


def _make_catalog(data_dir: str, file: str, photos: list[_Photo]) -> Catalog:
    numbers, paths, items, splits, roles = zip(*photos) if photos else [()] * 5
    places = [f"{file}:{number}" for number in numbers]
    # asked first, as a file system that ignores case has an `img` wherever it has an `Img`
    is_unpacked_below = os.path.isdir(os.path.join(data_dir, "Img", "img"))
    root = os.path.join(data_dir, "Img") if is_unpacked_below else data_dir
    categories = [_category(place, path) for place, path in zip(places, paths)]
    attributes = _item_attributes(data_dir, items)
    return listed(
        root,
        paths,
        places,
        lambda: Catalog(paths, items, categories, attributes, splits, roles, root=root, source=file, lines=numbers),
    )


def _category(place: str, path: str) -> str:
    folders = path.split("/")[1:-2]
    if not folders:
        raise CatalogError(
            f"{place}: a photo's path must be 'img/<category>/<item>/<photo>', where the category may be several "
            f"folders. Received: {path!r}."
        )
    return "/".join(folders)


def _item_attributes(data_dir: str, items: Sequence[str]) -> dict[str, np.ndarray]:
    for folder in (os.path.join(data_dir, name) for name in _ATTRIBUTE_FOLDERS):
        file = os.path.join(folder, "list_attr_items.txt")
        if os.path.isfile(file):
            names = _attribute_names(os.path.join(folder, "list_attr_cloth.txt"))
            answers = _item_answers(file, len(names))
            unknown = np.full(len(names), -1, dtype=np.int8)
            rows = {item: row for row, item in enumerate(answers)}
            table = np.stack([*answers.values(), unknown])
            return answer_columns(names, table[[rows.get(item, -1) for item in items]])
    return {}


def _attribute_names(file: str) -> list[str]:
    lines = [line.split() for _, line in _counted_lines(file)]
    if all(len(words) > 1 and words[-1].isdecimal() for words in lines):
        lines = [words[:-1] for words in lines]
    names: dict[str, None] = {}
    for place, words in enumerate(lines, start=1):
        name = " ".join(words)
        names[f"{name} ({place})" if name in names else name] = None  # a column must have a name of its own
    return list(names)


def _item_answers(file: str, num_attributes: int) -> dict[str, np.ndarray]:
    answers: dict[str, np.ndarray] = {}
    for number, line in _counted_lines(file):
        item, *values = line.split()
        if len(values) != num_attributes:
            raise CatalogError(
                f"{file}:{number}: item {item!r} must have a value for each of the {num_attributes} attributes in "
                f"list_attr_cloth.txt. Received: {counted(len(values), 'value')}. Get both files anew, from one "
                "release."
            )
        row = _answers_of(f"{file}:{number}", values)
        if not np.array_equal(answers.setdefault(item, row), row):
            raise CatalogError(f"{file}:{number}: item {item!r} has another row with other values. Delete one of them.")
    return answers


def _answers_of(place: str, values: list[str]) -> np.ndarray:
    try:
        return np.array([_ANSWERS[value] for value in values], dtype=np.int8)
    except KeyError as error:
        raise CatalogError(
            f"{place}: an attribute must be 1 (yes), -1 (no) or 0 (unknown). Received: {error.args[0]!r}."
        ) from error


def _counted_lines(file: str) -> Iterator[tuple[int, str]]:
    """The rows below a count and a header."""
    lines = numbered_lines(file)
    _read_count(file, lines)
    next(lines, None)
    return lines
