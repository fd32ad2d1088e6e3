"""The index for large catalogues: which ScaNN configuration for how many rows, and how its answers are made whole."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import re
import types
from pathlib import Path

import numpy as np

from eet_tf.index.checks import CatalogIndexError, check_queries, shown
from eet_tf.index.local import LocalIndex
from eet_tf.index.prefixes import leading, reordered
from eet_tf.index.rows import Rows
from eet_tf.index.search import exact_top_k
from eet_tf.index.snapshot import checked_snapshot
from eet_tf.index.storage import Vectors
from eet_tf.index.tuning import check_target, tuned

_BRUTE_FORCE_BELOW = 20_000  # ScaNN's rules of thumb (docs/algorithms.md)
_NO_TREE_BELOW = 100_000
_LEAVES_SEARCHED = 0.1  # share of the leaves; ScaNN's own example searches 0.05
_DIMENSIONS_PER_CODE = 2  # 4 bits for each 2 dimensions, a sixteenth of float32; what ScaNN recommends
_ANISOTROPIC_THRESHOLD = 0.2  # what ScaNN recommends for dot products of unit vectors (Guo et al. 2020, section 5)
_FEWEST_ROWS_TO_HASH = 16  # a code book of 16 centres cannot be trained from fewer
_MOST_TRAINING_ROWS = 100_000  # ScaNN's default sample
_ROWS_CUT_AT_ONCE = 2**16
_ASSETS = "scann_assets.pbtxt"


@dataclasses.dataclass(frozen=True)
class ScannConfiguration:
    """How ScaNN searches. Leave it out of `ScannIndex.build` and the number of rows decides.

    * `num_candidates=0`: rows are compared in float32, exactly.
    * else rows are compared by 4-bit codes, and the best `num_candidates` of them once more in float32.
    * `num_leaves=0`: all rows are looked at.
    * else rows are divided among leaves, and only those in the `num_leaves_to_search` nearest leaves are looked at.
    * `search_prefix=0`: ScaNN sees all dimensions.
    * else it sees the first of them alone, brought to length 1, and the best `num_candidates` rows are put into order
      by the cosine of all dimensions.

    Args:
        num_candidates: rows compared exactly after hashing; a search takes twice `k` if that is more. 0 is no
            hashing.
        num_leaves: leaves of the tree, at most one per row; 0 is no tree.
        num_leaves_to_search: leaves looked at for one query, between 1 and `num_leaves`.
        search_prefix: leading dimensions that ScaNN sees, for vectors of an embedder that was trained with
            `PrefixLoss`; it needs `num_candidates`. 0 is all.

    Example:

    >>> ScannConfiguration.for_size(1_000), ScannConfiguration.for_size(50_000).num_candidates
    (ScannConfiguration(num_candidates=0, num_leaves=0, num_leaves_to_search=0, search_prefix=0), 200)
    >>> ScannConfiguration.for_size(1_000_000, search_prefix=64)
    ScannConfiguration(num_candidates=200, num_leaves=1000, num_leaves_to_search=100, search_prefix=64)
    """

    num_candidates: int = 0
    num_leaves: int = 0
    num_leaves_to_search: int = 0
    search_prefix: int = 0

    @classmethod
    def for_size(cls, num_rows: int, search_prefix: int = 0) -> ScannConfiguration:
        """ScaNN's rules of thumb: brute force; from 20,000 rows hashing; from 100,000 also sqrt(rows) leaves.

        Where rows are compared by brute force no prefix is used: all of them are compared exactly.
        """
        if num_rows < _BRUTE_FORCE_BELOW:
            return cls()
        if num_rows < _NO_TREE_BELOW:
            return cls(num_candidates=200, search_prefix=search_prefix)
        num_leaves = round(math.sqrt(num_rows))
        return cls(200, num_leaves, round(_LEAVES_SEARCHED * num_leaves), search_prefix)


class ScannEngine:
    """A ScaNN searcher over the base rows of an index.

    Args:
        searcher: ScaNN's own.
        configuration: how it searches.
        vectors: the base rows, for what ScaNN leaves open.
    """

    def __init__(self, searcher, configuration: ScannConfiguration, vectors: Vectors):
        self._searcher = searcher
        self.configuration = configuration
        self._vectors = vectors

    @classmethod
    def build(cls, vectors: Vectors, configuration: ScannConfiguration) -> ScannEngine:
        """Trains ScaNN on the rows."""
        return cls(
            build_searcher(vectors, configuration, _import_scann().builder, vectors.storage), configuration, vectors
        )

    def with_configuration(self, configuration: ScannConfiguration) -> ScannEngine:
        """The same tree and codes, searched in another way."""
        return ScannEngine(self._searcher, configuration, self._vectors)

    def search(self, queries: np.ndarray, k: int, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """See `search.Engine`. Where much will be dropped more leaves are searched: what is left lies farther."""
        options = search_options(self.configuration, k, len(self._vectors), share)
        if self.configuration.search_prefix:
            rows, scores = self._found_by_prefix(queries, k, options)
        else:
            rows, scores = self._searcher.search_batched_parallel(queries, final_num_neighbors=k, **options)
        # what is missing comes last, as row 0 with score NaN
        short = np.flatnonzero(np.isnan(scores[:, -1]))
        if short.size:
            rows[short], scores[short] = exact_top_k(self._vectors, queries[short], k)
        if self._vectors.storage != "float32" and not self.configuration.search_prefix:
            # ScaNN rounds in its own way; what we keep decides the order
            rows, scores = reordered(self._vectors, queries, rows, np.ones(rows.shape, bool), k)
        return rows, scores

    def _found_by_prefix(self, queries: np.ndarray, k: int, options: dict) -> tuple[np.ndarray, np.ndarray]:
        """Candidates by the codes of their first dimensions, the best of them by the cosine of all."""
        options = dict(options)
        count = options.pop("pre_reorder_num_neighbors")
        cut = leading(queries, self.configuration.search_prefix)
        rows, scores = self._searcher.search_batched_parallel(cut, final_num_neighbors=count, **options)
        return reordered(self._vectors, queries, rows.astype(np.intp), ~np.isnan(scores), k)

    def write(self, folder: Path) -> None:
        """Writes ScaNN's files, with relative names."""
        folder.mkdir()
        self._searcher.serialize(str(folder))
        # ScaNN lists absolute paths; relative ones, which 1.4 offers, 1.3 neither writes nor reads. Keep only names.
        assets = (folder / _ASSETS).read_text(encoding="utf-8")
        (folder / _ASSETS).write_text(re.sub(r'(asset_path: ").*/', r"\1", assets), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, configuration: ScannConfiguration, vectors: Vectors) -> ScannEngine:
        """Opens what `write` wrote."""
        return cls(_read_searcher(folder), configuration, vectors)


class ScannIndex(LocalIndex):
    """Searches with ScaNN: exactly below 20,000 rows, approximately above. Needs the package `scann`.

    * With `target_recall` it finds out by itself how much must be searched, by the exact answers to a thousand queries,
      and keeps what it measured; if the target cannot be reached, it fails.
    * Always `k` neighbours: a query whose leaves hold fewer is searched again over all rows.
    * Scores are exact cosines of the rows found; what is approximate is whether a row is found.
    * Two builds with a tree may differ a little: ScaNN draws the first centres at random. A saved index stays as it is.
    * Ids never reach ScaNN, which would pickle them, nor do updates, which it would leave half done: photos added since
      the build are compared one by one until `compact`.
    * ScaNN keeps a second copy of the vectors, in memory and on disk, but with `search_prefix`. A loaded index maps the
      first one.

    Args (of `ScannIndex.build`):
        embeddings, skus, photos, attributes, fingerprint, metadata, storage: as for `ExactIndex`.
        configuration: optional `ScannConfiguration`; defaults to `ScannConfiguration.for_size(N)`.
        target_recall: optional share of the true 10 nearest that a search must find, e.g. 0.95. It chooses how many
            candidates and leaves are looked at, the fastest that do.
        search_prefix: optional number of leading dimensions that find the candidates, e.g. 64 of 512, of an embedder
            that was trained with `PrefixLoss`; all dimensions put them into order. Then ScaNN keeps no copy of the
            vectors but codes of a sixteenth of a prefix. `target_recall` is measured against all dimensions.
        tuning_queries: optional `[Q, D]` unit vectors to choose by, at least 100, best of real customers. By default
            rows of the catalogue, each searched among the others.

    Raises:
        CatalogIndexError: as `ExactIndex`; if the configuration asks for more leaves than rows, or hashes fewer than
            16 rows; or if `target_recall` cannot be reached.
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

    @classmethod
    def build(
        cls,
        embeddings,
        skus,
        photos=None,
        attributes=None,
        fingerprint=None,
        metadata=None,
        storage="float32",
        configuration: ScannConfiguration | None = None,
        target_recall: float | None = None,
        tuning_queries=None,
        search_prefix: int | None = None,
    ) -> ScannIndex:
        """Builds the index; see the class."""
        if configuration is not None:
            _check_kind(configuration)
        if search_prefix is not None:
            _check_prefix(search_prefix, configuration)
        asked: dict = {"configuration": dataclasses.asdict(configuration) if configuration else None}
        asked["search_prefix"] = search_prefix
        if target_recall is not None:
            check_target(target_recall)
        elif tuning_queries is not None:
            raise CatalogIndexError("`tuning_queries` must come with `target_recall`. Received: target_recall=None.")
        snapshot = checked_snapshot(embeddings, skus, photos, attributes, fingerprint, metadata, storage)
        if tuning_queries is not None:
            tuning_queries = check_queries(tuning_queries, snapshot.rows.base.vectors.dim)
        engine, settings = cls._make_engine(
            snapshot.rows, {"asked": {**asked, "target_recall": target_recall}}, tuning_queries
        )
        return cls(dataclasses.replace(snapshot, engine=engine, settings=settings))

    @classmethod
    def check_catalog(cls, skus, photos=None, attributes=None) -> None:  # noqa: D102
        super().check_catalog(skus, photos, attributes)
        try:
            _import_scann()
        except ImportError as error:
            raise CatalogIndexError(str(error)) from error

    @classmethod
    def _make_engine(cls, rows: Rows, settings: dict, tuning_queries=None) -> tuple[ScannEngine, dict]:
        asked, vectors = settings["asked"], rows.base.vectors
        # an older version asked for no prefix
        configuration = ScannConfiguration.for_size(len(vectors), asked.get("search_prefix") or 0)
        if asked["configuration"] is not None:
            configuration = ScannConfiguration(**asked["configuration"])
        _check_configuration(configuration, len(vectors), vectors.dim)
        engine, recall = ScannEngine.build(vectors, configuration), None
        if asked["target_recall"] is not None:
            engine, recall = tuned(engine, vectors, asked["target_recall"], tuning_queries)
        return engine, {"asked": asked, "configuration": dataclasses.asdict(engine.configuration), "recall": recall}

    @property
    def configuration(self) -> ScannConfiguration:
        """How this index searches."""
        return self._snapshot.engine.configuration

    def with_configuration(self, configuration: ScannConfiguration) -> ScannIndex:
        """The same photos in the same leaves, searched in another way: an index in memory, built in no time.

        Args:
            configuration: with the same `num_leaves` and `search_prefix`; hashing stays as it was built, on or off.
        """
        old = self.configuration
        _check_configuration(configuration, len(self._snapshot.rows.base), self.dim)
        if _as_built(configuration) != _as_built(old):
            raise CatalogIndexError(
                f"`configuration` must have the leaves, the hashing and the prefix of the index, {old}. "
                f"Received: configuration={configuration}. Build another index."
            )
        engine = self._snapshot.engine.with_configuration(configuration)
        asked = {"configuration": dataclasses.asdict(configuration), "target_recall": None}
        settings = {"asked": asked, "configuration": dataclasses.asdict(configuration), "recall": None}
        return ScannIndex(dataclasses.replace(self._snapshot, engine=engine, settings=settings))

    @property
    def recall(self) -> dict | None:
        """What `target_recall` measured: `"target"`, `"recall"`, `"k"`, `"num_queries"` and the `"curve"`; or None."""
        return copy.deepcopy(self._snapshot.settings["recall"])

    @property
    def is_exact(self) -> bool:
        """Whether the configuration leaves nothing out, and vectors are kept whole."""
        return self.storage == "float32" and self.configuration == ScannConfiguration()

    @classmethod
    def _write_engine(cls, engine: ScannEngine, contents: Path) -> None:  # type: ignore[override]  # of its own kind
        engine.write(contents / "scann")

    @classmethod
    def _read_engine(cls, contents: Path, rows: Rows, settings: dict) -> ScannEngine:
        configuration = ScannConfiguration(**settings["configuration"])
        return ScannEngine.read(contents / "scann", configuration, rows.base.vectors)


def _as_built(configuration: ScannConfiguration) -> tuple:
    """What a search cannot change of it."""
    return configuration.num_leaves, configuration.num_candidates > 0, configuration.search_prefix


def _check_prefix(search_prefix, configuration: ScannConfiguration | None) -> None:
    if configuration is not None:
        raise CatalogIndexError("`search_prefix` must stand in `configuration` where that is given. Received: both.")
    if not isinstance(search_prefix, int) or isinstance(search_prefix, bool) or search_prefix < 1:
        raise CatalogIndexError(
            f"`search_prefix` must be a number of leading dimensions. Received: search_prefix={shown(search_prefix)}."
        )


def _check_kind(configuration) -> None:
    if not isinstance(configuration, ScannConfiguration):
        raise CatalogIndexError(
            f"`configuration` must be a ScannConfiguration. Received: configuration={shown(configuration)}."
        )


def _check_configuration(configuration: ScannConfiguration, num_rows: int, dim: int) -> None:
    _check_kind(configuration)
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
    elif configuration.search_prefix > dim:
        problem = f"of a prefix of at most the vectors' {dim} dimensions"
    elif configuration.search_prefix and not configuration.num_candidates:
        problem = "with candidates, which all dimensions put into order, where it has a prefix"
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


def search_options(configuration: ScannConfiguration, k: int, num_rows: int, share: float = 1.0) -> dict[str, int]:
    """What ScaNN is told so that it finds `k` of which a `share` will be kept."""
    options = {}
    if configuration.num_candidates:
        # ScaNN returns only as many as it compares exactly, and pads the rest; of those a share is kept
        candidates = max(round(configuration.num_candidates / share), 2 * k)
        options["pre_reorder_num_neighbors"] = min(candidates, num_rows)
    if configuration.num_leaves:
        more = 1 / math.sqrt(share) + 1 - share  # what is left lies farther
        leaves = math.ceil(configuration.num_leaves_to_search * more)
        options["leaves_to_search"] = min(max(leaves, 1), configuration.num_leaves)
    return options


def build_searcher(vectors: Vectors, configuration: ScannConfiguration, new_builder, storage: str):
    """Trains ScaNN on the rows, of which it keeps a copy as `storage` says.

    `new_builder` is the `builder` of its module without TensorFlow, or of that with it.
    """
    sample = min(len(vectors), _MOST_TRAINING_ROWS)
    # 10 is a default that every search overrides
    builder = new_builder(_seen_by_scann(vectors, configuration.search_prefix), 10, "dot_product")
    if configuration.num_leaves:
        leaves = (configuration.num_leaves, configuration.num_leaves_to_search)
        builder = builder.tree(*leaves, training_sample_size=sample)
    if configuration.num_candidates == 0:
        return builder.score_brute_force().build()
    builder = builder.score_ah(_DIMENSIONS_PER_CODE, _ANISOTROPIC_THRESHOLD, training_sample_size=sample)
    if configuration.search_prefix:
        return builder.build()  # all dimensions put them into order, outside of ScaNN
    return builder.reorder(configuration.num_candidates, **_reordering(storage)).build()


def _seen_by_scann(vectors: Vectors, search_prefix: int) -> np.ndarray:
    """The rows, or their first dimensions, brought to length 1, some at a time."""
    if not search_prefix:
        return vectors.rows(slice(None))
    seen = np.empty([len(vectors), search_prefix], np.float32)
    for start in range(0, len(vectors), _ROWS_CUT_AT_ONCE):
        some = slice(start, start + _ROWS_CUT_AT_ONCE)
        seen[some] = leading(vectors.rows(some), search_prefix)
    return seen


def _reordering(storage: str) -> dict:
    """How ScaNN keeps its own copy: as we keep ours, where this ScaNN can."""
    from scann.scann_ops.py import scann_builder

    types = getattr(scann_builder, "ReorderType", None)
    if types is None:  # 1.3 knows int8 only
        return {"quantize": storage == "int8"}
    return {"quantize": types[storage.upper()]}


def _read_searcher(folder: Path):
    """Opens ScaNN's files where they lie now; ScaNN's own `load_searcher` would also unpickle a file of that name."""
    library = _import_scann()
    place = os.path.abspath(folder).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    assets = (folder / _ASSETS).read_text(encoding="utf-8").replace('asset_path: "', f'asset_path: "{place}/')
    try:
        return library.ScannSearcher(library.scann_pybind.ScannNumpy(str(folder), assets))
    except RuntimeError as error:
        raise CatalogIndexError(
            f"`folder` must be an index that the installed ScaNN reads. Received: folder='{folder}', where ScaNN says: "
            f"{error}. Install the version of scann that built it, or run `eet index build` again."
        ) from error
