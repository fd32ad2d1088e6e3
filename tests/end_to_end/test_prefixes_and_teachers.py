"""A student of one training's model, trained on prefixes: what it leaves, what is measured, exported and searched."""

import json
import shutil

import numpy as np
import pytest

import eet_tf
from eet_tf import data
from eet_tf.evaluation.callback import embed, rank_catalog
from eet_tf.index import ExactIndex
from eet_tf.serving import ServedEmbedder
from eet_tf.training.run import read_run


@pytest.fixture(scope="module")
def flags(trained, root, tiny):
    """Of the training of the student, whose teacher is the model of another training, of as many dimensions."""
    catalog = ["--dataset=csv", f"--data={root / 'photos'}"]
    return [*tiny, *catalog, "--epochs=1", "--prefixes=4,8,16", f"--teacher={trained[0]}", "--teacher_references"]


@pytest.fixture(scope="module")
def student(root, flags, run_script):
    """Its folder and how the script ended."""
    folder = root / "student"
    return folder, run_script("train/main.py", *flags, f"--model_dir={folder}").succeeded()


@pytest.fixture(scope="module")
def vectors(student, trained, root):
    """(the test photos, the student's vectors of them, the teacher's)."""
    photos = data.load_csv(str(root / "photos")).split("test")
    models = [eet_tf.load_embedder(str(folder)) for folder in (student[0], trained[0])]
    return photos, *[embed(model, data.gallery_dataset(photos, 32)) for model in models]


@pytest.fixture(scope="module")
def exported(student, trained, root, run_script):
    """The folders of the versions of the teacher and of the student."""
    folders = [root / "served" / name for name in ("teacher", "student")]
    for model, folder in zip((trained[0], student[0]), folders):
        run_script("export/main.py", f"--model={model}", f"--output_dir={folder}").succeeded()
    return folders


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_every_prefix_is_measured(student, vectors):
    photos, own, _ = vectors
    metrics = read_run(str(student[0])).metrics
    for length in ("4", "8", "16"):
        expected = rank_catalog(unit(own[:, : int(length)]), photos.labels).summary((1, 10, 100))
        assert metrics["prefixes"][length] == {name: pytest.approx(value) for name, value in expected.items()}
        assert f"R@1 of the first {length} dimensions: " in student[1].printed
    for figures in (metrics, metrics["whole_catalogue"]):
        for name, value in figures["prefixes"]["16"].items():
            assert value == pytest.approx(figures["after"][name])


def test_queries_of_the_student_are_measured_in_the_teachers_gallery(student, vectors):
    """Every photo is searched for among all the others, by plain loops."""
    photos, own, teachers = vectors
    hits = []
    for row, query in enumerate(own):
        others = [other for other in range(len(own)) if other != row]
        nearest = max(others, key=lambda other: query @ teachers[other])
        hits.append(photos.labels[nearest] == photos.labels[row])
    share = np.mean(hits)
    assert read_run(str(student[0])).metrics["teacher"]["recall@1"] == pytest.approx(share)
    assert f"R@1 of these queries in the teacher's gallery: {100 * share:.1f} %" in student[1].printed


def test_terms_of_both_are_logged(student):
    (epoch,) = read_run(str(student[0])).history
    assert {"margin", "equidistant", "max_min", "equal_minima", "distillation"} < epoch.keys()


def test_its_command_again_embeds_nothing_again(student, flags, run_script):
    folder = student[0] / "teacher"
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.npz")}
    again = run_script("train/main.py", *flags, f"--model_dir={student[0]}").succeeded()
    assert before and {file.name: file.stat().st_mtime_ns for file in folder.glob("*.npz")} == before
    assert again.printed.splitlines()[-6:] == student[1].printed.splitlines()[-6:]


def test_vectors_that_were_embedded_once_are_a_teacher_too(student, root, flags, run_script):
    """The folder that the first training left is one as `eet embed` writes it; nothing but distillation is learnt."""
    teacher = f"--teacher={student[0] / 'teacher'}"
    kept = [flag for flag in flags if not flag.startswith(("--prefixes", "--teacher"))]
    folder = root / "pure"
    run_script("train/main.py", *kept, teacher, "--loss=none", f"--model_dir={folder}").succeeded()
    (epoch,) = read_run(str(folder)).history
    assert epoch["distillation"] == pytest.approx(epoch["loss"])
    facts = [json.loads((each / "teacher.json").read_text()) for each in (folder, student[0])]
    assert facts[0]["fingerprint"] == facts[1]["fingerprint"]


def test_a_teacher_alone_needs_no_products(student, root, tmp_path, flags, run_script):
    """Every photo is of a product of its own: with a loss that is refused, without one it is learned from."""
    names = sorted((root / "photos").rglob("*.jpg"))
    (tmp_path / "catalog.csv").write_text("path,sku\n" + "".join(f"{name},{name.stem}\n" for name in names))
    own = ("--data", "--dataset", "--prefixes", "--teacher", "--loss")
    kept = [flag for flag in flags if not flag.startswith(own)]
    kept += ["--dataset=csv", f"--data={tmp_path}", "--hold_out=0"]
    kept += [f"--teacher={student[0] / 'model.keras'}", f"--model_dir={tmp_path / 'run'}"]
    run_script("train/main.py", *kept).refused("has one photo, so it has no positive pair")
    # as many groups of photos as products are asked for, where four photos each would be too few
    outcome = run_script("train/main.py", *kept, "--loss=none", "--classes_per_batch=16").succeeded()
    assert f"Training on {len(names)} photos of {len(names)} products" in outcome.printed


def test_photos_without_a_vector_are_refused(student, tmp_path, flags, run_script):
    """One file of vectors that has not all photos: how many are missing, and which first."""
    folder = tmp_path / "vectors"
    shutil.copytree(student[0] / "teacher", folder)
    (file,) = folder.glob("*.npz")
    with np.load(file) as stored:
        kept = {name: value[3:] if value.ndim else value for name, value in stored.items()}
        missing = stored["photos"][:3].tolist()
    np.savez(file, **kept)
    outcome = run_script("train/main.py", *flags, f"--teacher={folder}", f"--model_dir={tmp_path / 'run'}")
    outcome.refused("are? not in it|is not in it", missing[0])


def test_evaluate_says_what_training_said_of_prefixes(student, root, tmp_path, run_script):
    output = tmp_path / "figures.json"
    how = [f"--model_dir={student[0]}", "--dataset=csv", f"--data={root / 'photos'}", f"--output={output}"]
    outcome = run_script("train/evaluate.py", *how).succeeded()
    written, metrics = json.loads(output.read_text()), read_run(str(student[0])).metrics
    for found, expected in (
        (written["prefixes"], metrics["prefixes"]),
        (written["whole_catalogue"]["prefixes"], metrics["whole_catalogue"]["prefixes"]),
    ):
        assert list(found) == ["4", "8", "16"]
        for length, figures in found.items():
            assert figures == {name: pytest.approx(value) for name, value in expected[length].items()}
    assert "R@1 of the first 4 dimensions: " in outcome.printed


def test_a_prefix_is_exported(student, exported, root, vectors, run_script):
    photos, own, _ = vectors
    folder = root / "served" / "short"
    run_script("export/main.py", f"--model={student[0]}", "--prefix=8", f"--output_dir={folder}").succeeded()
    served, whole = ServedEmbedder(str(folder)), ServedEmbedder(str(exported[1]))
    np.testing.assert_allclose(served.embed_catalog(photos), unit(own[:, :8]), atol=1e-5)
    assert served.embedding_dim == 8
    assert served.fingerprint != whole.fingerprint
    manifest = json.loads((folder / "1" / "assets.extra" / "eet_tf.json").read_text())
    assert manifest["prefix"] == 8 and manifest["compatible_with"] == []


def test_the_teachers_index_is_searched_with_the_student(student, exported, root, vectors, tmp_path, run_script):
    """The index holds the teacher's vectors; the query is the student's; another embedder is still refused."""
    photos, own, teachers = vectors
    index_dir, catalog = tmp_path / "index", ["--dataset=csv", f"--data={root / 'photos'}", "--split=test"]
    build = [f"--saved_model={exported[0]}", "--index=exact", f"--output_dir={index_dir}"]
    run_script("export/build_index.py", *catalog, *build).succeeded()
    query = photos.files[0]
    searched = [f"--index_dir={index_dir}", "--k=8", "--json", str(query)]
    outcome = run_script("export/search.py", f"--saved_model={exported[1]}", *searched).succeeded()
    (found,) = json.loads(outcome.printed)
    scores = [neighbor["score"] for neighbor in found["found"]]
    np.testing.assert_allclose(scores, np.sort(teachers @ own[0])[::-1][:8], atol=1e-4)
    assert ServedEmbedder(str(exported[1])).compatible_with == (ServedEmbedder(str(exported[0])).fingerprint,)
    stranger = tmp_path / "stranger"
    eet_tf.export_embedder(eet_tf.load_embedder(str(student[0])), str(stranger))
    run_script("export/search.py", f"--saved_model={stranger}", *searched).refused("`fingerprint` must be the index's")


def test_a_student_serves_its_teachers_catalogue(student, exported, vectors, tmp_path):
    photos, own, teachers = vectors
    teacher = ServedEmbedder(str(exported[0]))
    index = ExactIndex.build(teachers, photos.skus, photos.paths, fingerprint=teacher.fingerprint)
    model = eet_tf.load_embedder(str(student[0]))
    with pytest.raises(ValueError, match="`catalog_index` must be of this embedder"):
        eet_tf.export_embedder(model, str(tmp_path), catalog_index=index, k=2)
    folder = eet_tf.export_embedder(
        model, str(tmp_path), catalog_index=index, k=2, compatible_with=[teacher.fingerprint]
    )
    served = ServedEmbedder(folder)
    with open(photos.files[0], "rb") as file:
        found = served._model.signatures["search"](image_bytes=np.array([file.read()]))
    best = {
        sku: max(reference_score for name, reference_score in zip(photos.skus, teachers @ own[0]) if name == sku)
        for sku in photos.skus
    }
    np.testing.assert_allclose(found["score"][0], sorted(best.values(), reverse=True)[:2], atol=1e-4)


# Refusals


@pytest.mark.parametrize(
    "changed, message",
    [
        (["--prefixes=8,4"], "--prefixes must ascend to the 16 of --embedding_dim"),
        (["--prefixes=8,32"], "--prefixes must ascend to the 16 of --embedding_dim"),
        (["--loss=none"], "--prefixes needs a loss of this package.*\\n.*--teacher_references needs a loss"),
        (["--embedding_dim=24"], "--embedding_dim must be the 16 of --teacher. Received: --embedding_dim=24"),
        (["--teacher={root}/photos"], "or a model: a SavedModel, a training's folder or a .keras file. Received"),
        (["--strategy=multi_worker"], "--teacher must be a folder that `eet embed` wrote where several workers train"),
        (["--loss=tfa_lifted"], "--teacher needs a loss of this package, or none. Received: --loss=tfa_lifted"),
    ],
)
def test_flags_that_do_not_fit_are_refused(changed, message, flags, root, tmp_path, run_script):
    changed = [flag.format(root=root) for flag in changed]
    run_script("train/main.py", *flags, *changed, f"--model_dir={tmp_path}").refused(message)


def test_without_a_teacher_what_is_of_one_is_refused(tiny, root, tmp_path, run_script):
    catalog = ["--dataset=csv", f"--data={root / 'photos'}", f"--model_dir={tmp_path}"]
    given = ["--loss=none", "--distillation_weight=2", "--teacher_references"]
    run_script("train/main.py", *tiny, *catalog, *given).refused(
        "--distillation_weight needs --teacher", "--teacher_references needs --teacher", "--loss=none needs --teacher"
    )


def test_a_prefix_is_searched_by_scann_alone(exported, root, tmp_path, run_script):
    catalog = ["--dataset=csv", f"--data={root / 'photos'}", f"--saved_model={exported[0]}", "--index=exact"]
    outcome = run_script("export/build_index.py", *catalog, "--search_prefix=8", f"--output_dir={tmp_path / 'index'}")
    outcome.refused("--search_prefix is for --index=scann. Received: --index=exact")
