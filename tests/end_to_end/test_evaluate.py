"""train/evaluate.py as a person runs it: training's figures again, what may be done to embeddings, and refusals."""

import json

import numpy as np
import pytest

import eet_tf
from eet_tf import data
from eet_tf.evaluation.callback import embed, rank_catalog
from eet_tf.evaluation.metrics import rank_queries
from eet_tf.evaluation.postprocessing import Whitening, fit_whitening
from eet_tf.serving import ServedEmbedder
from eet_tf.training.run import read_run


@pytest.fixture(scope="module")
def evaluate(trained, root, run_script):
    """Runs it on the test split: how it ended."""

    def run(*flags):
        catalog = ("--dataset=csv", f"--data_dir={root / 'photos'}")
        return run_script("train/evaluate.py", f"--model_dir={trained[0]}", *catalog, *flags)

    return run


@pytest.fixture(scope="module")
def embedded(trained, root):
    """`(catalogue, embeddings)` of the test and of the train split, embedded in this process."""
    embedder = eet_tf.load_embedder(str(trained[0]))
    catalog = data.load_csv(str(root / "photos"))
    parts = [catalog.split("test"), catalog.split("train")]
    return [(part, embed(embedder, data.gallery_dataset(part, 32))) for part in parts]


def by_photos_and_products(ranking):
    return {**ranking.summary([1, 10, 100]), **ranking.of_products([1, 10, 100])}


def assert_figures(written, expected):
    assert written == {name: pytest.approx(value, abs=1e-6) for name, value in expected.items()}


def test_without_more_it_says_what_training_said(trained, evaluate, tmp_path):
    outcome = evaluate(f"--output={tmp_path / 'new' / 'figures.json'}").succeeded()
    written = json.loads((tmp_path / "new" / "figures.json").read_text())
    metrics = read_run(str(trained[0])).metrics
    assert_figures(written["result"], metrics["after"])
    assert written["whole_catalogue"]["num_photos"] == metrics["whole_catalogue"]["num_photos"] == 32
    assert_figures(written["whole_catalogue"]["result"], metrics["whole_catalogue"]["after"])
    assert "In the whole catalogue of 32 photos: recall@1 " in outcome.printed
    assert list(written["by_category"]) == list(metrics["by_category"])
    assert (written["measured_on"], written["rerank"], written["whitening"]) == ("test", False, None)
    assert f"recall@1 {100 * written['result']['recall@1']:.2f} %" in outcome.printed.splitlines()[-1]
    assert "over 8 queries" in outcome.printed.splitlines()[-1]


def test_a_whitening_fitted_to_train_photos_is_measured_and_exported(
    trained, embedded, evaluate, run_script, root, tmp_path
):
    file, output = tmp_path / "whitening.npz", tmp_path / "figures.json"
    evaluate(f"--fit_whitening={file}", "--whitening_dim=4", f"--output={output}", "--query_expansion=2").succeeded()
    (test, embeddings), (_, of_train) = embedded
    expected = fit_whitening(of_train, dim=4)
    whitened = expected.apply(embeddings)
    np.testing.assert_allclose(np.abs(Whitening.read(file).apply(embeddings)), np.abs(whitened), atol=1e-3)
    ranking = rank_catalog(whitened, test.labels, query_expansion=2)
    assert_figures(json.loads(output.read_text())["result"], by_photos_and_products(ranking))

    serving = tmp_path / "serving"
    flags = f"--model={trained[0]}", f"--output_dir={serving}", f"--whitening={file}"
    run_script("export/main.py", *flags).succeeded()
    photos = [(root / "photos" / path).read_bytes() for path in test.paths]
    served = ServedEmbedder(str(serving)).embed(photos)[0]
    np.testing.assert_allclose(served, Whitening.read(file).apply(embeddings), atol=1e-4)


@pytest.mark.parametrize(
    "flags, pattern",
    [
        (("--rerank", "--query_expansion=3"), "--query_expansion must be 0 with --rerank"),
        (("--whitening=nowhere.npz",), r"'nowhere\.npz' is no whitening.*--fit_whitening"),
        (("--split=validation",), "`split` must be 'all' or a split of"),
        (("--whitening_dim=4",), "--whitening_dim needs --fit_whitening: a file of a whitening has its dimensions"),
        (("--fit_whitening={new}", "--whitening_dim=17"), "--whitening_dim must be from 1 to 16"),
        (
            ("--whitening={of_3}",),
            "it must be of embeddings of 16 dimensions, which this model has. Received: one of 3",
        ),
    ],
    ids=["both", "no whitening", "no split", "no fit", "too many dimensions", "of another model"],
)
def test_what_cannot_be_measured_is_refused_in_one_line(evaluate, trained, tmp_path, flags, pattern):
    Whitening(np.zeros(3), np.eye(3)).write(tmp_path / "of_3.npz")
    outcome = evaluate(*(flag.format(new=tmp_path / "new.npz", of_3=tmp_path / "of_3.npz") for flag in flags))
    outcome.refused(pattern)
    assert "Embedding" not in outcome.printed
    assert not (trained[0] / "evaluation.json").exists()


def test_figures_by_a_column_add_up(evaluate, embedded, tmp_path):
    """Of every value of a column, each photo searched among all of the part as ever."""
    (test, embeddings), (train, of_train) = embedded
    name = next(name for name in test.attributes if len(set(test.column_texts(name).tolist())) > 1)
    outcome = evaluate(f"--by={name}", f"--output={tmp_path / 'figures.json'}").succeeded()
    written = json.loads((tmp_path / "figures.json").read_text())
    by_value = written["by"][name]
    assert set(by_value) == set(test.column_texts(name).tolist())
    assert sum(each["num_queries"] for each in by_value.values()) == 8
    hits = sum(each["recall@1"] * each["num_queries"] for each in by_value.values())
    assert hits == pytest.approx(8 * written["result"]["recall@1"])
    assert all(f"{name}={value}: recall@1 " in outcome.printed for value in by_value)
    expected = rank_catalog(embeddings, test.labels).by_group(test.column_texts(name), (1, 10, 100))
    for value, figures in expected.items():
        assert_figures(by_value[value], figures)
    in_whole = rank_catalog(embeddings, test.skus, other_embeddings=of_train, other_labels=train.skus)
    for value, figures in in_whole.by_group(test.column_texts(name), (1, 10, 100)).items():
        assert_figures(written["whole_catalogue"]["by"][name][value], figures)
        (line,) = [line for line in outcome.printed.splitlines() if line.startswith(f"{name}={value}: ")]
        assert line.startswith(f"{name}={value}: recall@1 {100 * figures['recall@1']:.2f} %")
        assert line.endswith(", in the whole catalogue.")


def test_an_export_is_measured_as_its_model_is(trained, evaluate, root, tmp_path, run_script):
    """With no run beside it; the figures are those of training, and stand beside the folder of its versions."""
    eet_tf.export_embedder(eet_tf.load_embedder(str(trained[0])), str(tmp_path / "mine" / "serving"))
    catalog = ("--dataset=csv", f"--data_dir={root / 'photos'}")
    fingerprint = ServedEmbedder(str(tmp_path / "mine" / "serving")).fingerprint
    for version in ("serving", "serving/1"):
        saved_model = tmp_path / "mine" / version
        outcome = run_script("train/evaluate.py", f"--saved_model={saved_model}", *catalog).succeeded()
        assert outcome.printed.rstrip().endswith(f"All figures are in {tmp_path / 'mine' / 'evaluation.json'}.")
        written = json.loads((tmp_path / "mine" / "evaluation.json").read_text())
        metrics = read_run(str(trained[0])).metrics
        assert_figures(written["result"], metrics["after"])
        assert_figures(written["whole_catalogue"]["result"], metrics["whole_catalogue"]["after"])
        assert (written["saved_model"], written["fingerprint"]) == (str(tmp_path / "mine/serving/1"), fingerprint)
        (tmp_path / "mine" / "evaluation.json").unlink()
    evaluate(f"--saved_model={saved_model}").refused("One of --model_dir and --saved_model must be given")


def test_photos_are_searched_in_another_catalogue(evaluate, embedded, root, tmp_path):
    """Two test products, one of which the gallery shows, among photos to learn from; the other is left out."""
    (test, embeddings), (train, of_train) = embedded
    shown = test.skus == test.skus[0]
    rows = [f"{root / 'photos' / path},{sku}" for path, sku in zip(test.paths[shown][:2], test.skus[shown][:2])]
    rows += [f"{root / 'photos' / path},{sku}" for path, sku in zip(train.paths, train.skus)]
    (tmp_path / "studio.csv").write_text("path,sku\n" + "\n".join(rows) + "\n")
    output = tmp_path / "figures.json"
    outcome = evaluate(f"--gallery={tmp_path / 'studio.csv'}", f"--output={output}").succeeded()
    written = json.loads(output.read_text())
    gallery = np.concatenate([embeddings[shown][:2], of_train])
    skus = np.concatenate([test.skus[shown][:2], train.skus])
    assert_figures(written["result"], by_photos_and_products(rank_queries(embeddings, test.skus, gallery, skus)))
    assert (written["result"]["num_queries"], written["result"]["num_without_answer"]) == (shown.sum(), (~shown).sum())
    assert f"{(~shown).sum()} queries left out, whose product the gallery does not show." in outcome.printed
    assert "whole_catalogue" not in written


def test_columns_are_named_for_both_catalogues(trained, embedded, root, tmp_path, run_script):
    (test, embeddings), _ = embedded
    for name, split in (("street", ";test"), ("studio", "")):
        rows = [f"{root / 'photos' / path};{sku}{split}" for path, sku in zip(test.paths, test.skus)]
        header = "image;article" + (";split" if split else "")
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    flags = ["--columns=path:image,sku:article", "--separator=;", f"--output={tmp_path / 'figures.json'}"]
    where = [f"--data={tmp_path / 'street.csv'}", f"--gallery={tmp_path / 'studio.csv'}"]
    run_script("train/evaluate.py", f"--model_dir={trained[0]}", *where, *flags).succeeded()
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["result"]["recall@1"] == 1.0  # each photo finds itself
    assert written["result"]["num_queries"] == len(embeddings)


def test_a_gallery_of_other_products_is_refused(evaluate, embedded, root, tmp_path):
    _, (train, _) = embedded
    rows = [f"{root / 'photos' / path},{sku}" for path, sku in zip(train.paths, train.skus)]
    (tmp_path / "studio.csv").write_text("path,sku\n" + "\n".join(rows) + "\n")
    evaluate(f"--gallery={tmp_path / 'studio.csv'}", "--rerank").refused(
        "--gallery must show products of --data, with the same skus. Received: ",
        "--gallery cannot be given with --query_expansion or --rerank.",
    )


def test_one_way_of_searching_at_a_time(evaluate):
    evaluate("--query_expansion=3", "--rerank").refused(
        "--query_expansion must be 0 with --rerank, which searches with the queries as they are."
    )
