"""How far apart the classes of a batch are, in few large operations: the plan of `class_pairs` for XLA and GPUs.

In a batch that is sorted by class, each class is a run of rows, and a pair of classes a rectangle of the matrix of all
squared distances. The smallest of each rectangle is found by minima of runs along both axes, which double what they
reach in each step. No matrix is scattered into, and every shape is known from that of the batch.

Rows are taken in blocks; where the whole matrix fits, there is one.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from eet_tf import plans, replicas
from eet_tf.pairs import mining, pairwise, precision
from eet_tf.pairs.mining import Classes, Triplets


class Runs(NamedTuple):
    """A batch sorted by class. All but `embeddings` are `[B]` int32.

    Attributes:
        embeddings: `[B, D]`.
        numbers: the class of each row; never falling.
        firsts: where the run of each row begins.
        lasts: where it ends, the last row included.
        longest: scalar, rows of the longest run.
    """

    embeddings: tf.Tensor
    numbers: tf.Tensor
    firsts: tf.Tensor
    lasts: tf.Tensor
    longest: tf.Tensor

    @classmethod
    def of(cls, references: tf.Tensor, classes: Classes) -> Runs:
        """Sorts `[B, D]` references."""
        numbers = tf.gather(classes.of_row, classes.order)
        firsts = tf.gather(classes.starts, numbers)
        sizes = tf.gather(classes.sizes, numbers)
        embeddings = _in_order(references, classes.order)
        return cls(embeddings, numbers, firsts, firsts + sizes - 1, tf.reduce_max(classes.sizes))


def _in_order(rows: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """`[B, D]` rows in another order; the gradient is put back into theirs, without a scatter."""

    @tf.custom_gradient
    def ordered(rows):
        return tf.gather(rows, order), lambda upstream: tf.gather(upstream, tf.argsort(order))

    return ordered(rows)


class _Block(NamedTuple):
    """Some rows against all; the last block is filled up with copies of the last row.

    Attributes:
        rows: `[R]` int32.
        before: `[B]`, what `along_rows` was in the row before, where its run goes on here.
        squared: `[R, B]` squared distances.
        along_rows: `[R, B]`, the smallest of them from the beginning of the row's run on.
        along_both: `[R, B]`, the smallest of those from the beginning of the column's run on, so that the distance of
            two classes stands where the runs of both end.
    """

    rows: tf.Tensor
    before: tf.Tensor
    squared: tf.Tensor
    along_rows: tf.Tensor
    along_both: tf.Tensor


def _make_block(runs: Runs, start, size, before) -> _Block:
    rows = tf.minimum(start + tf.range(size), tf.shape(runs.numbers)[0] - 1)
    embeddings = tf.gather(runs.embeddings, rows)
    squares = tf.reduce_sum(tf.square(embeddings), axis=1)
    squared = squares[:, tf.newaxis] - pairwise.closeness(embeddings, pairwise.extended(runs.embeddings))
    goes_on = (tf.range(size) == 0) & (tf.gather(runs.firsts, rows) < start)
    with_before = tf.where(goes_on[:, tf.newaxis], tf.minimum(squared, before), squared)
    along_rows = _run_minima(with_before, tf.gather(runs.numbers, rows), 0, runs.longest)
    return _Block(rows, before, squared, along_rows, _run_minima(along_rows, runs.numbers, 1, runs.longest))


def _run_minima(values: tf.Tensor, numbers: tf.Tensor, axis: int, longest: tf.Tensor) -> tf.Tensor:
    """The smallest value from the beginning of each run up to each place, along an axis of `[R, B]`."""
    places = tf.range(tf.size(numbers))

    def reach_twice_as_far(reach, values):
        earlier = tf.maximum(places - reach, 0)
        is_same = tf.equal(numbers, tf.gather(numbers, earlier)) & (places >= reach)
        is_same = is_same[:, tf.newaxis] if axis == 0 else is_same[tf.newaxis, :]
        return 2 * reach, tf.where(is_same, tf.minimum(values, tf.gather(values, earlier, axis=axis)), values)

    start = (1, values)
    return tf.while_loop(lambda reach, _: reach < longest, reach_twice_as_far, start, parallel_iterations=1)[1]


class _OfRows(NamedTuple):
    """What a pass found for each of some rows, `[N]` each.

    Attributes:
        positives: int32, the farthest row of the same class, by its place in the sorted batch.
        negatives: int32, the nearest row of another class.
        to_negatives: float32, its squared distance.
        decays: float32, where a run ends the sum of `exp(-D)` over the other classes.
    """

    positives: tf.Tensor
    negatives: tf.Tensor
    to_negatives: tf.Tensor
    decays: tf.Tensor


class _Found(NamedTuple):
    """What a pass over some rows found.

    Attributes:
        rows: what it found for each row.
        befores: `[blocks, B]`, see `_Block`.
        heads: `[blocks, B]`, what `along_rows` of each block is where the run of its first row ends.
        block: the block itself where there is one only, else None.
    """

    rows: _OfRows
    befores: tf.Tensor
    heads: tf.Tensor
    block: _Block | None


def separate(anchors, anchor_rows, references, classes: Classes):
    """See `class_distances.separate`; triplets, and the fields of what it returns."""
    of_replica = _separate if replicas.num_replicas() > 1 else plans.part(_separate)
    return of_replica(anchors, anchor_rows, references, classes)


def _separate(anchors, anchor_rows, references, classes: Classes):
    runs = plans.part(Runs.of)(references, classes)
    fixed = runs._replace(embeddings=tf.stop_gradient(runs.embeddings))
    begin, end = _share(fixed)
    found = plans.part(_search)(fixed, begin, end)
    if replicas.num_replicas() > 1:  # the rows of its classes are not its anchors
        triplets = plans.part(mining.mine_triplets)(anchors, anchor_rows, references, classes)
    else:
        triplets = _triplets(found, anchor_rows, classes)
    pairs = _of_all_replicas(plans.part(_nearest_pairs)(fixed, found, begin, end))
    pairs = _Pairs(*[tf.stop_gradient(each) for each in pairs])  # XLA has no gradient of a loop traced outside of it
    sums = replicas.sum_over(plans.part(_sums_of_decays)(runs, classes, found, pairs, begin, end))
    return triplets, *plans.part(_with_exact_nearest)(runs, classes, sums, pairs)


def _triplets(found: _Found, anchor_rows, classes: Classes) -> Triplets:
    """The anchors' triplets, from what was found for the sorted batch, which they are."""
    places = tf.argsort(classes.order)  # where each row stands in it
    positives, negatives = [
        tf.gather(classes.order, tf.gather(rows, places)) for rows in (found.rows.positives, found.rows.negatives)
    ]
    own = tf.gather(classes.of_row, anchor_rows)
    is_valid = (tf.gather(classes.sizes, own) > 1) & mining.has_negative(own, classes)
    return Triplets(positives, negatives, is_valid)


def _share(runs: Runs):
    """`(begin, end)`, the rows of the classes that this replica looks after: whole runs, each of one replica."""
    num_rows, count = tf.size(runs.numbers), replicas.num_replicas()
    if count == 1:
        return 0, num_rows
    share = (num_rows + count - 1) // count
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group

    def first_run_from(place):
        here = tf.minimum(place, num_rows - 1)
        begins = tf.equal(tf.gather(runs.firsts, here), here)
        return tf.where(place >= num_rows, num_rows, tf.where(begins, here, tf.gather(runs.lasts, here) + 1))

    return first_run_from(replica * share), first_run_from((replica + 1) * share)


def _block_size(runs: Runs):
    """Rows in a block: an int where that of the batch is known, so that one block of all needs no loop."""
    most, count = pairwise.block_rows_against(runs.embeddings), runs.embeddings.shape[0]
    if isinstance(most, int) and count is not None:
        return max(min(most, -(-count // replicas.num_replicas())), 1)
    share = -(-tf.size(runs.numbers) // replicas.num_replicas())
    return tf.maximum(tf.minimum(most, share), 1)


def _search(runs: Runs, begin, end) -> _Found:
    num_rows, size = tf.size(runs.numbers), _block_size(runs)
    nothing_before = tf.fill([num_rows], tf.float32.max)
    if isinstance(size, int) and size == runs.embeddings.shape[0] and replicas.num_replicas() == 1:
        block = _make_block(runs, 0, size, nothing_before)
        head = tf.gather(block.along_rows, runs.lasts[0])
        return _Found(_of_rows(runs, block), nothing_before[tf.newaxis], head[tf.newaxis], block)
    most = (num_rows + size - 1) // size
    dtypes = [tf.int32, tf.int32, *[tf.float32] * 4]
    arrays = [tf.TensorArray(dtype, most, element_shape=[None]) for dtype in dtypes]

    def one_block(number, before, arrays):
        start = begin + number * size
        block = _make_block(runs, start, size, before)
        stop = tf.minimum(tf.gather(runs.lasts, block.rows[0]), start + size - 1)
        head = tf.gather(block.along_rows, tf.maximum(stop - start, 0))
        results = [*_of_rows(runs, block), before, head]
        return number + 1, block.along_rows[-1], [array.write(number, each) for array, each in zip(arrays, results)]

    # one block at least: what nothing was written into cannot be stacked
    _, _, arrays = tf.while_loop(
        lambda number, *_: (number == 0) | (begin + number * size < end),
        one_block,
        (0, nothing_before, arrays),
        parallel_iterations=1,
    )
    *of_rows, befores, heads = [array.stack() for array in arrays]
    # from `begin` on; moved to their places
    places = tf.clip_by_value(tf.range(num_rows) - begin, 0, most * size - 1)
    of_rows = _OfRows(*[tf.gather(tf.reshape(each, [-1]), places) for each in of_rows])
    return _Found(of_rows, befores, heads, None)


def _of_rows(runs: Runs, block: _Block) -> _OfRows:
    own = tf.gather(runs.numbers, block.rows)[:, tf.newaxis]
    is_same = tf.equal(own, runs.numbers[tf.newaxis, :])
    columns = tf.range(tf.size(runs.numbers))[tf.newaxis, :]
    is_itself = tf.equal(block.rows[:, tf.newaxis], columns)
    positives = mining.argmin(tf.where(is_same & tf.logical_not(is_itself), -block.squared, mining.FAR))
    to_negatives = tf.where(is_same, mining.FAR, block.squared)
    is_end = tf.equal(runs.lasts, tf.range(tf.size(runs.lasts)))[tf.newaxis, :]
    decays = tf.where(is_end & tf.logical_not(is_same), tf.exp(-_distances(block.along_both)), 0.0)
    nearest = tf.reduce_min(to_negatives, axis=1)
    return _OfRows(positives, mining.argmin(to_negatives), nearest, tf.reduce_sum(decays, axis=1))


def _distances(squared: tf.Tensor) -> tf.Tensor:
    """0 for what a matrix multiplication cannot tell from 0."""
    return tf.sqrt(tf.where(squared < pairwise.NEARLY_EQUAL, 0.0, squared))


class _Pairs(NamedTuple):
    """The pair of rows that makes each class's distance to the nearest class. All `[B]`, by number of the class.

    A replica knows those of its own classes, and has 0 for the others: the sum over replicas knows all.

    Attributes:
        rows: int32, the row of the class, by its place in the sorted batch.
        other_rows: int32, the row of the nearest class.
        squared: float32, their squared distance as a matrix multiplication has it.
    """

    rows: tf.Tensor
    other_rows: tf.Tensor
    squared: tf.Tensor


def _of_all_replicas(pairs: _Pairs) -> _Pairs:
    """Their sum, in one message of float32, which counts rows exactly up to 2**24."""
    if replicas.num_replicas() == 1:
        return pairs
    rows, other_rows, squared = tf.unstack(replicas.sum_over(tf.stack([tf.cast(each, tf.float32) for each in pairs])))
    return _Pairs(tf.cast(rows, tf.int32), tf.cast(other_rows, tf.int32), squared)


def _is_own(runs: Runs, begin, end) -> tf.Tensor:
    """`[B]` bool: which rows are of the classes that this replica looks after."""
    places = tf.range(tf.size(runs.numbers))
    return (places >= begin) & (places < end)


def _nearest_pairs(runs: Runs, found: _Found, begin, end) -> _Pairs:
    """Returns for each class the row that has the nearest negative, and that negative."""
    num_rows, is_own = tf.size(runs.numbers), _is_own(runs, begin, end)
    to_negatives = tf.where(is_own, found.rows.to_negatives, mining.FAR)
    smallest = tf.math.unsorted_segment_min(to_negatives, runs.numbers, num_rows)
    is_smallest = is_own & tf.equal(to_negatives, tf.gather(smallest, runs.numbers))
    places = tf.where(is_smallest, tf.range(num_rows), num_rows)
    rows = tf.math.unsorted_segment_min(places, runs.numbers, num_rows)
    is_found = rows < num_rows
    rows = tf.where(is_found, rows, 0)
    other_rows = tf.where(is_found, tf.gather(found.rows.negatives, rows), 0)
    return _Pairs(rows, other_rows, tf.where(is_found, tf.gather(found.rows.to_negatives, rows), 0.0))


def _with_exact_nearest(runs: Runs, classes: Classes, sums, pairs: _Pairs):
    """`(decays, nearest, nearest class)` of each class, `[B]` each.

    Differences take the place of a matrix multiplication, also in the sums, for each class and the one nearest to it.
    """
    num_rows = tf.size(runs.numbers)
    nearest_class = tf.gather(runs.numbers, pairs.other_rows)
    rows, other_rows = tf.gather(runs.embeddings, pairs.rows), tf.gather(runs.embeddings, pairs.other_rows)
    nearest = pairwise.euclidean(rows, other_rows)
    has_other = (classes.sizes > 0) & (tf.reduce_max(classes.of_row) > 0)
    better = tf.where(has_other, tf.exp(-nearest) - tf.exp(-_distances(pairs.squared)), 0.0)
    is_mutual = tf.equal(tf.gather(nearest_class, nearest_class), tf.range(num_rows))
    others = tf.math.unsorted_segment_sum(tf.where(is_mutual, 0.0, better), nearest_class, num_rows)
    return sums + better + others, nearest, nearest_class


def _sums_of_decays(runs: Runs, classes: Classes, found: _Found, pairs: _Pairs, begin, end) -> tf.Tensor:
    """`[B]`: the sums of `exp(-D)` of the classes that this replica looks after, and 0 for the others.

    Their gradient, by the sums of all classes, moves the nearest rows of every two classes, but of a class and its
    nearest one. Each row is moved by the pairs it is one of as the row of its own class: the other row of a pair stands
    in the matrix a second time, as a row, maybe on another replica. Of pairs that are equally near, the first is moved.
    """
    num_rows, is_own = tf.size(runs.numbers), _is_own(runs, begin, end)
    nearest_class = tf.gather(tf.gather(runs.numbers, pairs.other_rows), runs.numbers)
    is_compiled = plans.is_compiled()

    @tf.custom_gradient
    def sums_of(embeddings):
        ends = tf.clip_by_value(classes.starts + classes.sizes - 1, 0, num_rows - 1)
        looks_after = (classes.sizes > 0) & tf.gather(is_own, ends)

        def gradient(upstream):
            slopes = tf.gather(upstream, runs.numbers)
            known = runs._replace(embeddings=embeddings)
            if found.block is not None:
                return _moved(known, found.block, 0, found.heads[0], slopes, nearest_class, is_own)
            with plans.as_in_forward_pass(is_compiled):  # in the same blocks
                return _moved_in_blocks(known, found, begin, end, slopes, nearest_class, is_own)

        return tf.where(looks_after, tf.gather(found.rows.decays, ends), 0.0), gradient

    return sums_of(runs.embeddings)


def _moved_in_blocks(runs: Runs, found: _Found, begin, end, slopes, nearest_class, is_own) -> tf.Tensor:
    num_rows, size = tf.size(runs.numbers), _block_size(runs)
    most = (num_rows + size - 1) // size
    moved = tf.TensorArray(tf.float32, most, element_shape=[None, runs.embeddings.shape[1]])

    def one_block(number, moved):
        start = begin + number * size
        block = _make_block(runs, start, size, tf.gather(found.befores, number))
        # a run that goes on behind this block is the first one of the block it ends in
        ends_in = tf.maximum((tf.gather(runs.lasts, block.rows[-1]) - begin) // size, number)
        tail = tf.gather(found.heads, tf.minimum(ends_in, most - 1))
        of_block = _moved(runs, block, start, tail, slopes, nearest_class, is_own)
        return number + 1, moved.write(number, of_block)

    _, moved = tf.while_loop(
        lambda number, _: (number == 0) | (begin + number * size < end), one_block, (0, moved), parallel_iterations=1
    )
    rows = tf.reshape(moved.stack(), [-1, tf.shape(runs.embeddings)[1]])
    places = tf.clip_by_value(tf.range(num_rows) - begin, 0, most * size - 1)
    return tf.where(is_own[:, tf.newaxis], tf.gather(rows, places), 0.0)


def _moved(runs: Runs, block: _Block, start, tail, slopes, nearest_class, is_own) -> tf.Tensor:
    """`[R, D]`: for each row x of a block the sum of `slope (x - y)` over the pairs (x, y) that count.

    Args:
        runs: the sorted batch.
        block: some of its rows.
        start: the first of these.
        tail: `[B]`, what `along_rows` is where the run ends that goes on behind the block.
        slopes: `[B]`, what a change of each row's class's sum is worth.
        nearest_class: `[B]`, of the class of each row.
        is_own: `[B]`, which rows are moved.
    """
    size = tf.size(block.rows)
    columns = tf.range(tf.size(runs.numbers))
    last = tf.gather(runs.lasts, block.rows) - start
    tail = _run_minima(tail[tf.newaxis, :], runs.numbers, 1, runs.longest)
    of_classes = tf.gather(block.along_both, tf.clip_by_value(last, 0, size - 1))
    of_classes = tf.where((last < size)[:, tf.newaxis], of_classes, tail)
    squared = tf.gather(of_classes, runs.lasts, axis=1)  # of the two classes, for every pair of rows
    earlier_row = tf.concat([block.before[tf.newaxis, :], block.along_rows[:-1]], axis=0)
    earlier_column = tf.gather(of_classes, tf.maximum(columns - 1, 0), axis=1)
    begins_row = tf.equal(tf.gather(runs.firsts, block.rows), block.rows)[:, tf.newaxis]
    begins_column = tf.equal(runs.firsts, columns)[tf.newaxis, :]
    is_first = (begins_row | (earlier_row > squared)) & (begins_column | (earlier_column > squared))

    def side_by_side(values):
        return tf.gather(values, block.rows)[:, tf.newaxis], values[tf.newaxis, :]

    own, other = side_by_side(runs.numbers)
    nearest_to_own, nearest_to_other = side_by_side(nearest_class)
    counts = tf.not_equal(own, other) & tf.not_equal(nearest_to_own, other) & tf.not_equal(nearest_to_other, own)
    is_here = tf.equal(start + tf.range(size), block.rows) & tf.gather(is_own, block.rows)
    counts &= is_here[:, tf.newaxis] & is_first & tf.equal(block.squared, squared)
    counts &= block.squared >= pairwise.NEARLY_EQUAL
    distances = tf.sqrt(tf.where(counts, block.squared, 1.0))  # the same number, and one less to look up
    own_slope, other_slope = side_by_side(slopes)
    pulls = tf.where(counts, -(own_slope + other_slope) * tf.exp(-distances) / distances, 0.0)
    # with a column of ones for the sum of the pulls: made twice, they would cost more than the product
    sums = precision.matmul(pulls, tf.pad(runs.embeddings, [[0, 0], [0, 1]], constant_values=1.0))
    return sums[:, -1:] * tf.gather(runs.embeddings, block.rows) - sums[:, :-1]
