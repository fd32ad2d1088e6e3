"""Two methods against each other: the bootstrap against plain loops and known truths, and the file it starts from."""

import dataclasses
import math

import numpy as np
import pytest

from eet_tf.evaluation import comparison, metrics
from eet_tf.evaluation.comparison import ClassResults, Comparison, compare, mean_interval

ODD_SKUS = ["a,b", 'the "best"', "Küche 台所 🫖", "two\nlines", " spaces ", "=1+1", "bytes \udcff", "'", ""]


def make_results(seed, num_classes=23, like=None, metric="recall@1"):
    """Results over a few queries for each product; over the same queries as those of `like`."""
    rng = np.random.default_rng(seed)
    num_queries = rng.integers(1, 9, size=num_classes) if like is None else like.num_queries
    skus = [f"sku-{number:03}" for number in range(num_classes)]
    return ClassResults(skus, num_queries, {metric: rng.binomial(num_queries, rng.uniform(size=num_classes))})


def assert_same(results, expected):
    assert results.skus.tolist() == expected.skus.tolist()
    assert results.num_queries.tolist() == expected.num_queries.tolist()
    assert list(results.sums) == list(expected.sums)
    for name, values in results.sums.items():
        assert (values.dtype, values.tolist()) == (expected.sums[name].dtype, expected.sums[name].tolist())


# Results of classes


def test_results_are_the_sums_of_a_ranking():
    """Labels 2 and 4 of five skus have queries; the one query of label 3 has no answer."""
    embeddings = np.random.default_rng(0).normal(size=[8, 3])
    result = metrics.rank_queries(embeddings, [4, 2, 3, 2, 4, 4, 2, 4])
    results = ClassResults.of(result, ks=[1, 3], skus=["e", "d", "c", "b", "a"])
    _, num_queries, sums = result.by_class(ks=[1, 3])
    assert results.skus.tolist() == ["a", "c"]
    assert results.num_queries.tolist() == [4, 3] == num_queries[::-1].tolist()
    assert {name: values[::-1].tolist() for name, values in sums.items()} == {
        name: values.tolist() for name, values in results.sums.items()
    }
    summary = result.summary(ks=[1, 3])
    assert {name: results.mean(name) for name in results.sums} == pytest.approx(
        {name: summary[name] for name in results.sums}
    )


@pytest.mark.parametrize("labels", [[0, 0, 3, 3], [-1, -1, 0, 0], ["mug", "mug", "cup", "cup"]], ids=str)
def test_labels_without_a_sku_are_refused(labels):
    result = metrics.rank_queries(np.eye(4), labels)
    with pytest.raises(ValueError, match="`result` must have labels from 0 to 2"):
        ClassResults.of(result, ks=[1], skus=["a", "b", "c"])


@pytest.mark.parametrize(
    "arguments", [(["a", "a"], [1, 2], {}), (["a", "b"], [1], {}), (["a", "b"], [1, 2], {"map@r": [0.5]})], ids=str
)
def test_results_that_do_not_fit_together_are_refused(arguments):
    with pytest.raises(ValueError, match="`skus` must all be different and have one value each"):
        ClassResults(*arguments)


# The file


def test_a_file_comes_back_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    num_queries = rng.integers(1, 5, size=len(ODD_SKUS))
    sums = {"recall@1": rng.binomial(num_queries, 0.5), "map@r": num_queries * rng.uniform(size=len(ODD_SKUS))}
    written = ClassResults(ODD_SKUS, num_queries, sums)
    written.write(tmp_path / "new" / "classes.csv")
    read = ClassResults.read(tmp_path / "new" / "classes.csv")
    assert sorted(read.skus.tolist()) == sorted(ODD_SKUS)
    assert_same(read, written)
    assert read.source == str(tmp_path / "new" / "classes.csv")


def test_a_file_is_a_table_that_a_person_reads(tmp_path):
    ClassResults(["mug", "cup"], [4, 1], {"recall@1": [3, 0], "map@r": [2.25, 0.1]}).write(tmp_path / "classes.csv")
    text = (tmp_path / "classes.csv").read_text(encoding="utf-8")
    assert text.splitlines() == ["sku,num_queries,recall@1,map@r", "cup,1,0,0.1", "mug,4,3,2.25"]


def test_a_file_that_a_spreadsheet_sorted_and_saved_is_the_same(tmp_path):
    """With a byte order mark, quotes everywhere, an empty line, and whole numbers in a column of shares."""
    lines = ['\ufeff"sku","num_queries","recall@1","map@r"', '"mug","4","3","2"', "", '"cup","1","0","0"', ""]
    (tmp_path / "classes.csv").write_bytes("\r\n".join(lines).encode())
    expected = ClassResults(["cup", "mug"], [1, 4], {"recall@1": [0, 3], "map@r": [0.0, 2.0]})
    assert_same(ClassResults.read(tmp_path / "classes.csv"), expected)


def test_a_write_that_is_cut_short_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "classes.csv"
    make_results(0).write(file)
    before = file.read_bytes()

    class Dying:
        def __init__(self, opened):
            self.opened = opened

        def writerow(self, row):
            self.opened.write("sku,num")
            self.opened.flush()

        def writerows(self, rows):
            raise KeyboardInterrupt

    monkeypatch.setattr(comparison.csv, "writer", Dying)
    with pytest.raises(KeyboardInterrupt):
        make_results(1).write(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


HEADER = "sku,num_queries,recall@1,map@r\n"


@pytest.mark.parametrize(
    "text, line, message",
    [
        ("", 1, "the first line must be sku,num_queries"),
        ("sku,num_queries\nmug,1\n", 1, "the first line must be"),
        ("epoch,loss,recall@1\n1,2,3\n", 1, "Received: 'epoch,loss,recall@1'"),
        ("sku,num_queries,recall@1,recall@1\n", 1, "the first line must be"),
        ("\x00\x01PK", 1, ""),
        (HEADER, 1, "no products are listed"),
        (HEADER + "mug,4,3,2.5\ncup,4,3\n", 3, "a row must have 4 columns. Received: 3"),
        (HEADER + "mug,4,3,2.5,7\n", 2, "a row must have 4 columns. Received: 5"),
        (HEADER + "mug,4,3,2.5\n\ncup,1,0,0\nmug,1,0,0\n", 5, "sku 'mug' is listed a second time"),
        (HEADER + "mug,0,0,0\n", 2, "num_queries must be a whole number from 1 to 1000000000. Received: '0'"),
        (HEADER + f"mug,{'9' * 30},0,0\n", 2, "num_queries must be a whole number from 1"),
        (HEADER + "mug,four,0,0\n", 2, "Received: 'four'"),
        (HEADER + "mug,4,2.5,0\n", 2, "recall@1 must be a whole number from 0 to 4. Received: '2.5'"),
        (HEADER + "mug,4,5,0\n", 2, "recall@1 must be a whole number from 0 to 4. Received: '5'"),
        (HEADER + "mug,4,3,nan\n", 2, "map@r must be a number from 0 to 4. Received: 'nan'"),
        (HEADER + "mug,4,3,-0.1\n", 2, "map@r must be a number from 0 to 4. Received: '-0.1'"),
        (HEADER + 'mug,4,3,1\n"cup,1,0,0\n', 3, ""),
        (HEADER + '"mug"s,4,3,1\n', 2, "expected after"),
    ],
)
def test_a_malformed_file_is_refused_by_its_line(tmp_path, text, line, message):
    (tmp_path / "classes.csv").write_bytes(text.encode())
    with pytest.raises(ValueError) as refusal:
        ClassResults.read(tmp_path / "classes.csv")
    assert str(refusal.value).startswith(f"{tmp_path / 'classes.csv'}:{line}: ")
    assert message in str(refusal.value)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        ClassResults.read(tmp_path / "classes.csv")


# The bootstrap


def loops(first, second, metric, num_resamples, seed):
    """The difference of the means and the ends of its interval; each side a list of results, one for each seed."""
    rng = np.random.default_rng(seed)
    num_classes = len(first[0].skus)

    def mean(side, classes):
        total = sum(int(side[0].num_queries[c]) for c in classes)
        return sum(float(one.sums[metric][c]) for one in side for c in classes) / len(side) / total

    draws = []
    for _ in range(num_resamples):
        classes = [int(rng.integers(num_classes)) for _ in range(num_classes)]
        draws.append(mean(second, classes) - mean(first, classes))
    draws.sort()

    def quantile(share):
        place = share * (num_resamples - 1)
        below = math.floor(place)
        return draws[below] + (place - below) * (draws[below + 1] - draws[below])

    everything = range(num_classes)
    return mean(second, everything) - mean(first, everything), quantile(0.025), quantile(0.975)


@pytest.mark.parametrize("num_seeds", [(1, 1), (3, 2)], ids=str)
def test_equals_loops(num_seeds):
    base = make_results(0)
    first, second = ([make_results(10 * side + seed, like=base) for seed in range(num_seeds[side])] for side in (0, 1))
    found = compare(first, second, num_resamples=200, seed=4)
    assert (found.difference, found.low, found.high) == pytest.approx(loops(first, second, "recall@1", 200, 4))
    assert found.num_classes == 23


@pytest.mark.parametrize("draws_at_once", [1, 100, 23 * 200])
def test_blocks_change_nothing(draws_at_once, monkeypatch):
    first = make_results(0)
    second = make_results(1, like=first)
    expected = compare(first, second, num_resamples=200)
    monkeypatch.setattr(comparison, "_DRAWS_AT_ONCE", draws_at_once)
    assert compare(first, second, num_resamples=200) == expected


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Whole products are found or missed at once: 25 % by the second method alone, 15 % by the first alone, so that
    the true difference is 0.1 whatever their numbers of queries. 95 % of 500 simulations should cover it, with a
    standard deviation of sqrt(0.95 * 0.05 / 500) = 0.01; four of them, and 0.005 because normal quantiles stand for
    those of t with 99 degrees of freedom (0.004) and 1000 draws for infinitely many: 0.045. An interval from queries
    drawn one by one would be narrower by sqrt(sum n^2 / sum n) = 2.08 and cover 65 %."""
    rng = np.random.default_rng(0)
    skus, covered = [str(number) for number in range(100)], 0
    for seed in range(500):
        num_queries = rng.integers(1, 7, size=100)
        kind = rng.choice(4, size=100, p=[0.25, 0.15, 0.4, 0.2])
        hits = [np.isin(kind, kinds) * num_queries for kinds in ([1, 2], [0, 2])]
        first, second = (ClassResults(skus, num_queries, {"recall@1": sums}) for sums in hits)
        found = compare(first, second, num_resamples=1000, seed=seed)
        covered += found.low <= 0.1 <= found.high
    assert covered / 500 == pytest.approx(0.95, abs=0.045)


def test_more_photos_of_the_same_products_narrow_nothing():
    """They are found or missed together with those that were there."""
    first = make_results(0)
    second = make_results(1, like=first)
    tripled = [
        ClassResults(one.skus, 3 * one.num_queries, {"recall@1": 3 * one.sums["recall@1"]}) for one in (first, second)
    ]
    assert dataclasses.astuple(compare(*tripled)) == pytest.approx(dataclasses.astuple(compare(first, second)))


def test_the_other_way_round_is_the_opposite():
    first = make_results(0)
    second = make_results(1, like=first)
    there, back = compare(first, second), compare(second, first)
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))


def test_a_result_does_not_differ_from_itself():
    found = compare(make_results(0), make_results(0))
    assert dataclasses.astuple(found) == (0, 0, 0, 23)
    assert not found.is_different
    assert str(found) == "no difference shown: +0.00 points (95 % interval 0.00 to 0.00 over 23 products)"


def test_the_seed_makes_it_repeatable():
    first = make_results(0)
    second = make_results(1, like=first)
    assert compare(first, second, seed=1) == compare(first, second, seed=1) != compare(first, second, seed=2)


def test_the_order_of_products_does_not_matter():
    first = make_results(0)
    second = make_results(1, like=first)
    order = np.random.default_rng(0).permutation(23)
    shuffled = ClassResults(second.skus[order], second.num_queries[order], {"recall@1": second.sums["recall@1"][order]})
    assert compare(first, shuffled) == compare(first, second)


def test_another_metric_is_compared_by_its_name():
    found = compare(make_results(0, metric="map@r"), make_results(0, metric="map@r"), metric="map@r")
    assert found.difference == 0


def test_results_over_other_products_are_refused():
    first = dataclasses.replace(make_results(0, num_classes=5), source="a.csv")
    second = dataclasses.replace(make_results(0, num_classes=7), source="b.csv")
    with pytest.raises(
        ValueError, match="same products. Received: 2 that only one of a.csv and b.csv has, e.g. 'sku-005'"
    ):
        compare([first, first], [first, second])


def test_results_over_other_queries_are_refused():
    first = ClassResults(["a", "b", "c"], [3, 3, 3], {"recall@1": [1, 1, 1]}, source="a.csv")
    second = ClassResults(["a", "b", "c"], [3, 4, 2], {"recall@1": [1, 1, 1]}, source="b.csv")
    with pytest.raises(
        ValueError, match="2 products with unequal num_queries, e.g. 'b' with 3 in a.csv and 4 in b.csv"
    ):
        compare([first, second], first)


def test_an_unknown_metric_is_refused():
    first = make_results(0)
    with pytest.raises(ValueError, match="`metric` must be one of recall@1, .* Received: metric='recall@7'"):
        compare(first, first, metric="recall@7")
    with pytest.raises(ValueError, match="`metric` must be one of map@r, those of results just measured"):
        compare(first, make_results(0, metric="map@r"))


def test_one_product_says_nothing():
    one = make_results(0, num_classes=1)
    with pytest.raises(ValueError, match="`first` must have two products or more"):
        compare(one, one)


@pytest.mark.parametrize(
    "ends, sentence",
    [
        ((0.0231, 0.0092, 0.037), "better by 2.31 points (95 % interval 0.92 to 3.70 over 1,927 products)"),
        ((-0.0231, -0.037, -0.0092), "worse by 2.31 points (95 % interval 0.92 to 3.70 over 1,927 products)"),
        ((0.004, -0.008, 0.016), "no difference shown: +0.40 points (95 % interval -0.80 to 1.60 over 1,927 products)"),
        (
            (-0.004, -0.016, 0.008),
            "no difference shown: -0.40 points (95 % interval -1.60 to 0.80 over 1,927 products)",
        ),
        ((0.004, 0.0, 0.016), "no difference shown: +0.40 points (95 % interval 0.00 to 1.60 over 1,927 products)"),
        ((-1e-9, -0.01, 0.01), "no difference shown: +0.00 points (95 % interval -1.00 to 1.00 over 1,927 products)"),
        ((-0.01, -0.02, -1e-9), "worse by 1.00 points (95 % interval 0.00 to 2.00 over 1,927 products)"),
    ],
)
def test_it_says_what_it_found_in_points(ends, sentence):
    found = Comparison(*ends, num_classes=1927)
    assert str(found) == sentence
    assert found.is_different == (not sentence.startswith("no"))


# Over seeds


def t_density(x, degrees):
    """Student's t, from its definition."""
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    return np.exp(log_scale - (degrees + 1) / 2 * np.log1p(x**2 / degrees))


@pytest.mark.parametrize("degrees", range(1, 31))
def test_the_interval_over_seeds_holds_95_percent_of_t(degrees):
    """Values whose standard error is 1, so that the half width is the quantile: n values in two halves (an odd one in
    the middle) at +-a have a variance of a^2 * (n or n - 1) / (n - 1). Its table has three decimals: at one degree of
    freedom the density there is 0.002, at 30 it is 0.06, so that 0.0005 makes 2 * 0.06 * 0.0005 = 6e-5 at most."""
    n = degrees + 1
    a = math.sqrt(n * (n - 1) / (n - n % 2))
    mean, half_width = mean_interval([5 + a] * (n // 2) + [5.0] * (n % 2) + [5 - a] * (n // 2))
    assert mean == pytest.approx(5)
    x = np.linspace(0, half_width, 20_001)
    y = t_density(x, degrees)
    inside = 2 * np.sum((y[1:] + y[:-1]) / 2) * (x[1] - x[0])
    assert inside == pytest.approx(0.95, abs=7e-5)


def test_beyond_31_seeds_the_interval_is_a_little_too_wide():
    values = np.random.default_rng(0).normal(size=400)
    _, half_width = mean_interval(values)
    assert half_width == pytest.approx(2.042 * np.std(values, ddof=1) / 20)


def test_one_seed_says_nothing_of_its_scatter():
    mean, half_width = mean_interval([0.625])
    assert mean == 0.625
    assert math.isnan(half_width)


def test_no_seeds_are_refused():
    with pytest.raises(ValueError, match="`values` must hold one figure or more"):
        mean_interval([])
