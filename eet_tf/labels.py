"""What labels are: integers or strings, one for each photo, none missing, and compared exactly. NumPy only."""

from __future__ import annotations

import numpy as np

_INTEGERS = (int, np.integer, np.bool_)
_STRINGS = (str, bytes)
_MISSING = ("NAType", "NaTType")  # of pandas, which need not be installed


def check_labels(argument: str, values, num_rows: int | None = None, may_be_empty: bool = False) -> np.ndarray:
    """Returns labels as a flat array of exact integers or of strings, or says which row holds none.

    Floating-point numbers are taken where each is a whole number that its type tells from the next: below 2^53 for
    float64, 2^24 for float32. Bytes, as TensorFlow has strings, become
    strings.

    Args:
        argument: the name of the argument, for the message.
        values: `[N]` or `[N, 1]`: a list, an array, a tensor or a column of pandas.
        num_rows: N, where it is known.
        may_be_empty: whether `""` is a value like any other.

    Returns:
        `[N]` int64, or uint64 where a number is above 2^63 - 1 (Python integers where some are negative too); or
        `[N]` strings.

    Raises:
        ValueError: if the shape is another, a value is missing, or it is neither an integer nor a string.

    Example:

    >>> check_labels("labels", [[7], [2**63]]).tolist()
    [7, 9223372036854775808]
    >>> check_labels("labels", ["mug", None])
    Traceback (most recent call last):
    ValueError: `labels` must be integers or strings, none missing. Received: labels[1]=None. Leave out that...
    """
    array = np.asarray(values, dtype=object if isinstance(values, (list, tuple)) else None)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or num_rows not in (None, len(array)):
        expected = "[N]" if num_rows is None else f"[{num_rows}], one for each photo"
        raise ValueError(f"`{argument}` must be {expected}. Received: shape {array.shape}.")
    if array.dtype.kind in "iub":
        return _exact(array)
    if array.dtype.kind == "U":
        return _nowhere_empty(argument, array, may_be_empty)
    if array.dtype.kind == "f":
        return _whole(argument, array)
    return _of_objects(argument, array.astype(object), may_be_empty)


def _of_objects(argument: str, array: np.ndarray, may_be_empty: bool) -> np.ndarray:
    """Whatever Python objects there are, as one kind."""
    kinds = set(map(type, array.tolist()))
    if all(issubclass(kind, _STRINGS) for kind in kinds) and kinds:
        texts = [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in array]
        return _nowhere_empty(argument, np.array(texts, dtype=np.str_), may_be_empty)
    if all(issubclass(kind, _INTEGERS) for kind in kinds):
        return _exact(array)
    first = _INTEGERS if isinstance(array[0], _INTEGERS) else _STRINGS
    numbers = (*_INTEGERS, float, np.floating)
    for row, value in enumerate(array):
        if is_missing(value):
            is_of_pandas = isinstance(value, float) and all(isinstance(one, numbers) for one in array)
            raise _refusal(argument, row, value, is_of_pandas)
        if not isinstance(value, (*_STRINGS, *numbers)):
            raise ValueError(
                f"`{argument}` must be integers or strings. Received: {argument}[{row}] is a {type(value).__name__}."
            )
    if all(isinstance(value, numbers) for value in array):
        _whole(argument, np.array([value if isinstance(value, (float, np.floating)) else 0.0 for value in array]))
        return _exact(np.array([int(value) for value in array], dtype=object))
    row = next(row for row, value in enumerate(array) if not isinstance(value, first))
    raise ValueError(
        f"`{argument}` must be all integers or all strings. Received: {argument}[0]={_shown(array[0])} and "
        f"{argument}[{row}]={_shown(array[row])}. Make strings of all of them."
    )


def is_missing(value) -> bool:
    """Whether a value stands for none: None, NaN, NumPy's NaT, or pandas' NA and NaT."""
    is_no_number = isinstance(value, (float, np.floating)) and np.isnan(value)
    is_no_time = isinstance(value, (np.datetime64, np.timedelta64)) and np.isnat(value)
    return value is None or is_no_number or is_no_time or type(value).__name__ in _MISSING


def _nowhere_empty(argument: str, texts: np.ndarray, may_be_empty: bool) -> np.ndarray:
    empty = np.flatnonzero(np.char.str_len(np.char.strip(texts)) == 0)
    if empty.size and not may_be_empty:
        raise _refusal(argument, empty[0], str(texts[empty[0]]))
    return texts


def _whole(argument: str, numbers: np.ndarray) -> np.ndarray:
    """Whole floating-point numbers as int64."""
    missing = np.flatnonzero(np.isnan(numbers))
    if missing.size:
        raise _refusal(argument, missing[0], np.nan, is_of_pandas=True)
    limit = 2.0 ** (np.finfo(numbers.dtype).nmant + 1)  # from here on a number stands for several integers
    wrong = np.flatnonzero((numbers != np.round(numbers)) | (np.abs(numbers) >= limit))
    if wrong.size:
        raise ValueError(
            f"`{argument}` must be integers or strings. Received: {argument}[{wrong[0]}]={float(numbers[wrong[0]])!r}, "
            "a floating-point number that stands for no one integer. Read the column as strings."
        )
    return numbers.astype(np.int64)


def _exact(integers: np.ndarray) -> np.ndarray:
    """int64 where all fit, uint64 where none is negative, Python's integers otherwise."""
    if integers.dtype.kind != "O" and np.can_cast(integers.dtype, np.int64):
        return integers.astype(np.int64)
    smallest, largest = (int(each(initial=0)) for each in (integers.min, integers.max))
    if smallest >= -(2**63) and largest < 2**63:
        return integers.astype(np.int64)
    if smallest >= 0 and largest < 2**64:
        return integers.astype(np.uint64)
    return np.array([int(value) for value in integers], dtype=object)


def _refusal(argument: str, row: int, value, is_of_pandas: bool = False) -> ValueError:
    mend = "Leave out that photo, or fill in its value."
    if is_of_pandas:
        mend = f"{mend} pandas makes floats of integers where values are missing: read the column with dtype=str."
    return ValueError(
        f"`{argument}` must be integers or strings, none missing. Received: {argument}[{row}]={_shown(value)}. {mend}"
    )


def _shown(value) -> str:
    """A value as it is typed, without the names of NumPy."""
    if isinstance(value, (float, np.floating)):
        return "NaN" if np.isnan(value) else repr(float(value))
    if isinstance(value, _INTEGERS):
        return str(int(value))
    if isinstance(value, bytes):
        return repr(value.decode("utf-8", "backslashreplace"))
    return repr(str(value)) if isinstance(value, str) else str(value)


def numbered(
    argument: str, labels: np.ndarray, other_argument: str, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers two columns of `check_labels` by what they hold, so that equal numbers are equal labels.

    NumPy makes floating-point numbers of int64 and uint64 together, in which large ones collide.

    Args:
        argument: the name of the first column, for the message.
        labels: `[Q]`.
        other_argument: the name of the second.
        others: `[N]`.

    Returns:
        `[Q]` and `[N]` integers, in the order of the labels.

    Raises:
        ValueError: if one column holds integers and the other one strings.

    Example:

    >>> labels, others = np.array([2**63 - 1]), np.array([2**63, 2**63 - 1], np.uint64)
    >>> [column.tolist() for column in numbered("labels", labels, "gallery_labels", others)]
    [[0], [1, 0]]
    """
    is_text, is_other_text = labels.dtype.kind == "U", others.dtype.kind == "U"
    if is_text != is_other_text and len(labels) and len(others):
        raise ValueError(
            f"`{argument}` and `{other_argument}` must both be integers or both be strings. Received: {argument}[0]="
            f"{_shown(labels[0])} and {other_argument}[0]={_shown(others[0])}. Make strings of both."
        )
    columns = [labels, others]
    if not is_text and labels.dtype != others.dtype:
        columns = [column.astype(object) for column in columns]
    _, numbers = np.unique(np.concatenate(columns), return_inverse=True)
    numbers = numbers.reshape(-1)
    return numbers[: len(labels)], numbers[len(labels) :]
