"""CUB-200-2011 and Cars196 -> Catalog: learn on the first half of the classes, find the classes never seen."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable

import numpy as np

from eet_tf.data.attributes import answer_columns
from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.data.lists import find_file, listed, numbered_lines, split_fields
from eet_tf.wording import normal_path

_CUB_TRAIN_CLASSES = 100
_CUB_ATTRIBUTE_NAMES = [os.path.join(folder, "attributes.txt") for folder in ("attributes", "", os.pardir)]
_CUB_NOT_VISIBLE = 1
_FOUR_NUMBERS = re.compile(r"(\d+\s+){3}\d+(\s|$)", re.ASCII)
_CARS_TRAIN_CLASSES = 98
_CARS_TEST_LABELS = "cars_test_annos_withlabels.mat"


def load_cub(data_dir: str) -> Catalog:
    """CUB-200-2011, photos of birds: classes 1 to 100 are for training, 101 to 200 for the test.

    - `images.txt` (`image path`), `image_class_labels.txt` (`image class`) and `classes.txt` (`class name`), with the
      photos in `images/`. The list `train_test_split.txt` is for classification, and not used.
    - Optional: `attributes/image_attribute_labels.txt`, rows `image attribute is_present certainty`; what stands
      behind these four fields is passed over. An attribute is `"yes"`, `"no"`, or `""`, unknown, where the certainty
      is 1 ("not visible") or there is no row. The names are in `attributes.txt` (`attribute name`), in
      `attributes/`, in `data_dir` or beside it, where the published archive has it.

    Args:
        data_dir: the folder `CUB_200_2011`.

    Returns:
        A catalogue with splits `"train"` and `"test"`; skus are class names, e.g. `"001.Black_footed_Albatross"`.

    Raises:
        CatalogError: names the file and line of what is wrong.

    Reference:
        Wah, Branson, Welinder, Perona, Belongie, The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001. The split:
        Oh Song, Xiang, Jegelka, Savarese, Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016.
    """
    data_dir = normal_path(data_dir)
    file, root = os.path.join(data_dir, "images.txt"), os.path.join(data_dir, "images")
    rows = _read_numbered(file)
    lines, images, paths = zip(*rows) if rows else ((), (), ())
    names = _read_names(os.path.join(data_dir, "classes.txt"))
    classes = _read_classes(os.path.join(data_dir, "image_class_labels.txt"), names)
    unlabelled = [line for line, image in zip(lines, images) if image not in classes]
    if unlabelled:
        raise CatalogError(f"{file}:{unlabelled[0]}: the photo has no class in image_class_labels.txt. Add its row.")
    numbers = [classes[image] for image in images]
    attributes = _cub_attributes(data_dir, images)
    return listed(
        root,
        paths,
        (f"{file}:{line}" for line in lines),
        lambda: Catalog(
            paths,
            [names[number] for number in numbers],
            attributes=attributes,
            splits=_class_splits(numbers, _CUB_TRAIN_CLASSES),
            root=root,
            source=file,
            lines=lines,
        ),
    )


def load_cars196(data_dir: str) -> Catalog:
    """Cars196 (Stanford Cars): classes 1 to 98 are for training, 99 to 196 for the test.

    Two layouts were published, and either will do. The first is taken where there are both.

    - `cars_annos.mat`, with the photos in `car_ims/`.
    - `devkit/cars_meta.mat`, `devkit/cars_train_annos.mat` and `cars_test_annos_withlabels.mat`, in `devkit/` or in
      `data_dir`, with the photos in `cars_train/` and `cars_test/`. These two folders are for classification: both
      have photos of all classes. The file `cars_test_annos.mat` has no labels and will not do.

    Args:
        data_dir: folder that holds these.

    Returns:
        A catalogue with splits `"train"` and `"test"`; skus are class names, e.g. `"Volvo 240 Sedan 1993"`.

    Raises:
        CatalogError: names the file and the annotation of what is wrong, or says that SciPy must be installed.

    Reference:
        Krause, Stark, Deng, Fei-Fei, 3D Object Representations for Fine-Grained Categorization, 3dRR 2013. The split:
        Oh Song, Xiang, Jegelka, Savarese, Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016.
    """
    data_dir = normal_path(data_dir)
    file = find_file(data_dir, "cars_annos.mat", os.path.join("devkit", "cars_meta.mat"))
    if os.path.basename(file) == "cars_annos.mat":
        photos = _read_annotations(file, "relative_im_path")
    else:
        train = find_file(data_dir, os.path.join("devkit", "cars_train_annos.mat"))
        test = find_file(data_dir, os.path.join("devkit", _CARS_TEST_LABELS), _CARS_TEST_LABELS)
        photos = [*_read_annotations(train, "fname", "cars_train/"), *_read_annotations(test, "fname", "cars_test/")]
    names = _read_class_names(file)
    places, paths, numbers = zip(*photos)
    for place, number in zip(places, numbers):
        if not 1 <= number <= len(names):
            raise CatalogError(f"{place}: `class` must be one of the {len(names)} classes. Received: {number}.")
    return listed(
        data_dir,
        paths,
        places,
        lambda: Catalog(
            paths,
            [names[number - 1] for number in numbers],
            splits=_class_splits(numbers, _CARS_TRAIN_CLASSES),
            root=data_dir,
            source=file,
            lines=places,
        ),
    )


def _class_splits(numbers: Iterable[int], num_train: int) -> list[str]:
    return ["train" if number <= num_train else "test" for number in numbers]


# CUB's lists


def _read_numbered(file: str) -> list[tuple[int, int, str]]:
    """The rows of a list of numbered things: line, number and what has it. No number occurs twice."""
    rows: dict[int, tuple[int, int, str]] = {}
    for line, row in numbered_lines(file):
        number, text = split_fields(f"{file}:{line}", row, 2)
        if not number.isdecimal():
            raise CatalogError(f"{file}:{line}: a row must begin with a number. Received: {row!r}.")
        if int(number) in rows:
            first = rows[int(number)][0]
            raise CatalogError(f"{file}:{line}: number {number} has a second row (the first is in line {first}).")
        rows[int(number)] = (line, int(number), text)
    return list(rows.values())


def _read_names(file: str) -> dict[int, str]:
    """The names of numbered things, which all differ: two of one name would become one."""
    names: dict[str, int] = {}
    for line, number, name in _read_numbered(file):
        if names.setdefault(name, number) != number:
            raise CatalogError(f"{file}:{line}: {name!r} is the name of number {names[name]} too. Rename one of them.")
    return {number: name for name, number in names.items()}


def _read_classes(file: str, names: dict[int, str]) -> dict[int, int]:
    classes = {}
    for line, image, number in _read_numbered(file):
        if not number.isdecimal() or int(number) not in names:
            raise CatalogError(f"{file}:{line}: the class must be a number in classes.txt. Received: {number!r}.")
        classes[image] = int(number)
    return classes


def _cub_attributes(data_dir: str, images: tuple[int, ...]) -> dict[str, np.ndarray]:
    file = os.path.join(data_dir, "attributes", "image_attribute_labels.txt")
    if not os.path.isfile(file):
        return {}
    names = _read_names(find_file(data_dir, *_CUB_ATTRIBUTE_NAMES))
    photo, attribute, is_present, certainty = _read_attribute_labels(file)
    rows, columns = _places(photo, images), _places(attribute, list(names))
    wrong = np.flatnonzero((rows < 0) | (columns < 0) | ~np.isin(is_present, (0, 1)))
    if wrong.size:
        raise _wrong_label(file, wrong[0])
    values = np.full((len(images), len(names)), -1, dtype=np.int8)
    values[rows, columns] = np.where(certainty == _CUB_NOT_VISIBLE, -1, is_present)
    return answer_columns(list(names.values()), values)


def _read_attribute_labels(file: str) -> np.ndarray:
    """`[4, R]`: image, attribute, is_present and certainty of each row. There are millions, so NumPy reads them."""
    if next(numbered_lines(file), None) is None:
        raise CatalogError(f"{file} has no rows. Get it anew, or delete it to do without attributes.")
    try:
        return np.loadtxt(file, comments=None, usecols=range(4), unpack=True, ndmin=2, encoding="utf-8-sig")
    except ValueError as error:
        rows = (row for row, (_, line) in enumerate(numbered_lines(file)) if not _FOUR_NUMBERS.match(line))
        raise _wrong_label(file, next(rows)) from error


def _wrong_label(file: str, row: int) -> CatalogError:
    line, text = next(itertools.islice(numbered_lines(file), int(row), None))
    return CatalogError(
        f"{file}:{line}: a row must begin with the number of an image in images.txt, the number of an attribute in "
        f"attributes.txt, 0 or 1, and a certainty. Received: {text!r}."
    )


def _places(numbers: np.ndarray, known: Iterable[int]) -> np.ndarray:
    """Where each number stands among the known ones, which all differ; -1 where it is none of them."""
    known = np.asarray(known)
    if not known.size:
        return np.full(len(numbers), -1)
    order = np.argsort(known)
    places = order[np.searchsorted(known, numbers, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[places] == numbers, places, -1)


# Cars196's MATLAB files


def _read_annotations(file: str, field: str, folder: str = "") -> list[tuple[str, str, int]]:
    """Place, path and class of each photo."""
    variable = _read_matlab(file, "annotations")
    if not {field, "class"} <= set(variable.dtype.names or ()):
        raise CatalogError(
            f"{file}: `annotations` must have the fields {field!r} and 'class'. Received: {variable.dtype.names}."
        )
    return [
        (f"{file}, annotation {row}", f"{folder}{path}", int(number))
        for row, (path, number) in enumerate(zip(variable[field], variable["class"]), start=1)
    ]


def _read_class_names(file: str) -> list[str]:
    names = [str(name) for name in _read_matlab(file, "class_names")]
    if len(set(names)) < len(names):
        raise CatalogError(
            f"{file}: `class_names` must all differ. Received: {len(set(names))} of {len(names)} differ."
        )
    return names


def _read_matlab(file: str, variable: str) -> np.ndarray:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise CatalogError(
            f'{file} is a MATLAB file, which SciPy reads. Install it: pip install "eet-tf[cars196]"'
        ) from error
    try:
        return np.atleast_1d(loadmat(file, squeeze_me=True, variable_names=[variable])[variable])
    except Exception as error:  # SciPy raises many kinds over a damaged file
        with open(file, "rb") as opened:
            is_hdf5 = opened.read(10) == b"MATLAB 7.3"
        if is_hdf5:
            raise CatalogError(f"{file} is of MATLAB 7.3, which is not read. Save it with -v7.") from error
        raise CatalogError(
            f"{file} is no MATLAB file with a variable {variable!r}, or is damaged. Get it anew."
        ) from error
