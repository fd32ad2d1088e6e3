"""The index for large catalogues: which ScaNN configuration for how many rows, and how its answers are made whole."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import types
from pathlib import Path

import numpy as np

from eet_tf.index.base import CatalogIndex
from eet_tf.index.checks import CatalogIndexError, Content, check_content
from eet_tf.index.exact import exact_top_k

_BRUTE_FORCE_BELOW = 20_000  # ScaNN's rules of thumb (docs/algorithms.md)
_NO_TREE_BELOW = 100_000
_LEAVES_SEARCHED = 0.1  # share of the leaves; ScaNN's own example searches 0.05
_DIMENSIONS_PER_CODE = 2  # 4 bits for each 2 dimensions, a sixteenth of float32; what ScaNN recommends
_ANISOTROPIC_THRESHOLD = 0.2  # what ScaNN recommends for dot products of unit vectors (Guo et al. 2020, section 5)
_FEWEST_ROWS_TO_HASH = 16  # a code book of 16 centres cannot be trained from fewer
_MOST_TRAINING_ROWS = 100_000  # ScaNN's default sample
_ASSETS = "scann_assets.pbtxt"


@dataclasses.dataclass(frozen=True)
class ScannConfiguration:
    """How ScaNN searches. Leave it out of `ScannIndex.build` and the number of rows decides.

    * `num_candidates=0`: rows are compared in float32, exactly.
    * else rows are compared by 4-bit codes, and the best `num_candidates` of them once more in float32.
    * `num_leaves=0`: all rows are looked at.
    * else rows are divided among leaves, and only those in the `num_leaves_to_search` nearest leaves are looked at.

    Args:
        num_candidates: rows compared exactly after hashing; a search takes four times `k` if that is more. 0 is no
            hashing.
        num_leaves: leaves of the tree, at most one per row; 0 is no tree.
        num_leaves_to_search: leaves looked at for one query, between 1 and `num_leaves`.

    Example:

    >>> ScannConfiguration.for_size(1_000), ScannConfiguration.for_size(50_000).num_candidates
    (ScannConfiguration(num_candidates=0, num_leaves=0, num_leaves_to_search=0), 200)
    >>> ScannConfiguration.for_size(1_000_000)
    ScannConfiguration(num_candidates=200, num_leaves=1000, num_leaves_to_search=100)
    """

    num_candidates: int = 0
    num_leaves: int = 0
    num_leaves_to_search: int = 0

    @classmethod
    def for_size(cls, num_rows: int) -> ScannConfiguration:
        """ScaNN's rules of thumb: brute force; from 20,000 rows hashing; from 100,000 also sqrt(rows) leaves."""
        if num_rows < _BRUTE_FORCE_BELOW:
            return cls()
        if num_rows < _NO_TREE_BELOW:
            return cls(num_candidates=200)
        num_leaves = round(math.sqrt(num_rows))
        return cls(num_candidates=200, num_leaves=num_leaves, num_leaves_to_search=round(_LEAVES_SEARCHED * num_leaves))


class ScannIndex(CatalogIndex):
    """Searches with ScaNN: exactly below 20,000 rows, approximately above. Needs the package `scann`.

    * Always `k` neighbours: a query whose leaves hold fewer is searched again over all rows.
    * Scores are exact cosines of the rows found; what is approximate is whether a row is found.
    * Two builds with a tree may differ a little: ScaNN draws the first centres at random. A saved index stays as it is.
    * Document ids never reach ScaNN, which would pickle them: it knows row numbers only.
    * ScaNN keeps a second copy of the vectors, in memory and on disk. A loaded index maps the first one.

    Args (of `ScannIndex.build`):
        embeddings, skus, photos, fingerprint, metadata: as for `ExactIndex`.
        configuration: optional `ScannConfiguration`; defaults to `ScannConfiguration.for_size(N)`.

    Raises:
        CatalogIndexError: as `ExactIndex`; or if the configuration asks for more leaves than rows, or hashes fewer than
            16 rows.
        ImportError: if `scann` is not installed.

    Example:

    >>> import numpy as np
    >>> from eet_tf.index import ScannIndex
    >>> index = ScannIndex.build(np.eye(3, dtype="float32"), skus=["mug", "cup", "jug"])
    >>> index.is_exact, index.search([0.0, 0.0, 1.0], k=1).skus.tolist()
    (True, [['jug']])

    Reference: Guo et al., "Accelerating Large-Scale Inference with Anisotropic Vector Quantization", ICML 2020.
    """

    kind = "scann"

    def __init__(self, content: Content, configuration: ScannConfiguration, searcher):
        super().__init__(content)
        self._configuration = configuration
        self._searcher = searcher

    @classmethod
    def build(
        cls,
        embeddings,
        skus,
        photos=None,
        fingerprint=None,
        metadata=None,
        configuration: ScannConfiguration | None = None,
    ) -> ScannIndex:
        """Builds the index; see the class."""
        content = check_content(embeddings, skus, photos, fingerprint, metadata)
        configuration = configuration or ScannConfiguration.for_size(len(content.vectors))
        _check_configuration(configuration, len(content.vectors))
        return cls(content, configuration, _build_searcher(content.vectors, configuration))

    @property
    def configuration(self) -> ScannConfiguration:
        """How this index searches."""
        return self._configuration

    @property
    def is_exact(self) -> bool:
        """Whether the configuration leaves nothing out."""
        return self._configuration.num_candidates == 0 and self._configuration.num_leaves == 0

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        options = {}
        if self._configuration.num_candidates:
            # ScaNN returns only as many as it compares exactly, and pads the rest.
            options["pre_reorder_num_neighbors"] = min(max(self._configuration.num_candidates, 4 * k), self.size)
        if self._configuration.num_leaves:
            options["leaves_to_search"] = self._configuration.num_leaves_to_search
        rows, scores = self._searcher.search_batched_parallel(queries, final_num_neighbors=k, **options)
        rows, scores = rows.astype(np.intp), np.array(scores, np.float32)
        short = np.flatnonzero(np.isnan(scores).any(axis=1))  # padded with row 0 and score NaN
        if short.size:
            rows[short], scores[short] = exact_top_k(self._content.vectors, queries[short], k)
        return rows, scores

    def _settings(self) -> dict:
        return dataclasses.asdict(self._configuration)

    def _write(self, contents: Path) -> None:
        folder = contents / "scann"
        folder.mkdir()
        self._searcher.serialize(str(folder))
        # ScaNN lists absolute paths; relative ones, which 1.4 offers, 1.3 neither writes nor reads. Keep only names.
        assets = (folder / _ASSETS).read_text(encoding="utf-8")
        (folder / _ASSETS).write_text(re.sub(r'(asset_path: ").*/', r"\1", assets), encoding="utf-8")

    @classmethod
    def _restore(cls, content: Content, contents: Path, settings: dict) -> ScannIndex:
        return cls(content, ScannConfiguration(**settings), _read_searcher(contents / "scann"))


def _check_configuration(configuration: ScannConfiguration, num_rows: int) -> None:
    counts = dataclasses.astuple(configuration)
    problem = None
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        problem = "integers of at least 0"
    elif configuration.num_leaves > num_rows:
        problem = f"of at most one leaf per row, {num_rows}"
    elif not min(configuration.num_leaves, 1) <= configuration.num_leaves_to_search <= configuration.num_leaves:
        problem = "searching between 1 leaf and all of them"
    elif configuration.num_candidates and num_rows < _FEWEST_ROWS_TO_HASH:
        problem = f"brute force (num_candidates=0) below {_FEWEST_ROWS_TO_HASH} rows, here {num_rows}"
    if problem:
        raise CatalogIndexError(
            f"`configuration` must be {problem}. Received: configuration={configuration}. "
            "Leave it out, and the number of rows decides."
        )


def _import_scann() -> types.ModuleType:
    """ScaNN is imported here and not above: it takes seconds, and pulls in tensorflow where that is installed."""
    try:
        from scann.scann_ops.py import scann_ops_pybind
    except ImportError as error:
        raise ImportError(
            "ScannIndex needs the package scann: `pip install scann`. ExactIndex has the same interface without it."
        ) from error
    return scann_ops_pybind


def _build_searcher(vectors: np.ndarray, configuration: ScannConfiguration):
    sample = min(len(vectors), _MOST_TRAINING_ROWS)
    builder = _import_scann().builder(vectors, 10, "dot_product")  # 10 is a default that every search overrides
    if configuration.num_leaves:
        leaves = (configuration.num_leaves, configuration.num_leaves_to_search)
        builder = builder.tree(*leaves, training_sample_size=sample)
    if configuration.num_candidates == 0:
        return builder.score_brute_force().build()
    return (
        builder.score_ah(_DIMENSIONS_PER_CODE, _ANISOTROPIC_THRESHOLD, training_sample_size=sample)
        .reorder(configuration.num_candidates)
        .build()
    )


def _read_searcher(folder: Path):
    """Opens ScaNN's files where they lie now; ScaNN's own `load_searcher` would also unpickle a file of that name."""
    library = _import_scann()
    place = os.path.abspath(folder).replace("\\", "\\\\").replace('"', '\\"')
    assets = (folder / _ASSETS).read_text(encoding="utf-8").replace('asset_path: "', f'asset_path: "{place}/')
    try:
        return library.ScannSearcher(library.scann_pybind.ScannNumpy(str(folder), assets))
    except RuntimeError as error:
        raise CatalogIndexError(
            f"`folder` must be an index that the installed ScaNN reads. Received: folder='{folder}', where ScaNN says: "
            f"{error}. Install the version of scann that built it, or run build_index again."
        ) from error
