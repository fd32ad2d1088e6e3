"""An index that is kept with index_admin.py: added to, deleted from, compacted, verified, searched with conditions."""

import csv
import re

import keras
import pytest

import eet_tf
from eet_tf.data import load_csv, make_synthetic_catalog
from eet_tf.index import load_index
from tests.reference_index import needs_milvus


@pytest.fixture(scope="module")
def place(tmp_path_factory, run_script):
    """32 drawn photos with prices and stock, of which the first 20 are in an exact index beside its SavedModel."""
    folder = tmp_path_factory.mktemp("admin")
    make_synthetic_catalog(folder / "photos", num_products=8, photos_per_product=4, image_size=32)
    with open(folder / "photos" / "catalog.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row.update(price=str(number), in_stock="true" if number % 2 else "false")
    for name, some in {"first": rows[:20], "second": rows[16:]}.items():
        with open(folder / "photos" / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(some)
    keras.utils.set_random_seed(0)
    eet_tf.export_embedder(eet_tf.build_embedder("small_cnn", 16, image_size=32), str(folder / "serving"))
    outcome = run_script(
        *("export/build_index.py", "--index=exact", "--dataset=csv", f"--data_dir={folder / 'photos' / 'first.csv'}"),
        *(f"--saved_model={folder / 'serving'}", f"--output_dir={folder / 'index'}", "--storage=bfloat16"),
    ).succeeded()
    assert "price (number), in_stock (bool)" in outcome.printed
    return folder


@pytest.fixture(scope="module")
def admin(place, run_script):
    """Runs index_admin.py on the index."""
    return lambda action, *flags: run_script("export/index_admin.py", action, f"--index_dir={place / 'index'}", *flags)


def test_the_life_of_an_index(place, admin, run_script):
    """Searched with conditions, added to twice, deleted from, compacted; each step seen by what is loaded anew."""
    index_dir, everything = place / "index", load_csv(str(place / "photos"))
    query = everything.files[1]
    conditions = ("--where=price>=4", "--where=price<=13", "--where=in_stock=true", "--group_by_sku")
    searched = run_script("export/search.py", f"--index_dir={index_dir}", f"--query={query}", "--k=9", *conditions)
    found = re.findall(r"  \d+  -?\d\.\d+  (\S+)  \(([^)]+)\)", searched.succeeded().printed)
    expected = {everything.skus[row] for row in (5, 7, 9, 11, 13)}
    assert {sku for sku, _ in found} == expected and len(found) == len(expected)

    printed = admin("upsert", f"--data_dir={place / 'photos' / 'second.csv'}").succeeded().printed
    assert "12 photos added, 4 replaced: 32 photos now." in printed
    reader = load_index(index_dir, read_only=True)
    assert sorted(reader.photos.tolist()) == sorted(everything.paths.tolist())
    printed = admin("stats").succeeded().printed
    for line in ("kind .*exact", "photos +32", "products +8", "16, bfloat16", "added .* 16", "deleted .* 4", "compact"):
        assert re.search(line, printed), (line, printed)

    sku = everything.skus[-1]
    assert "4 photos deleted, 28 photos left." in admin("delete", f"--sku={sku}").succeeded().printed
    assert "1 photo deleted, 27 photos left." in admin("delete", f"--photo={everything.paths[0]}").succeeded().printed
    assert reader.refresh() and reader.size == 27
    assert "The index is whole." in admin("verify").succeeded().printed
    assert admin("compact").succeeded().printed.endswith(" after: 27 photos.\n")
    assert "27 photos, 7 products." in admin("verify").succeeded().printed
    assert reader.refresh() and (reader.size, reader.num_recent, reader.num_deleted) == (27, 0, 0)
    admin("delete", f"--sku={sku}").refused(f"`skus` must be in the index. Received: '{sku}'")


def test_refused_in_one_line(place, admin, tmp_path):
    """And the index stays as it is."""
    before = load_index(place / "index").photos.tolist()
    with open(place / "photos" / "second.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lists = {}
    for name, change in {"lacking": lambda row: row.pop("price"), "odd": lambda row: row.update(price="cheap")}.items():
        changed = [dict(row) for row in rows]
        for row in changed:
            change(row)
        lists[name] = place / "photos" / f"{name}.csv"
        with open(lists[name], "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(changed[0]))
            writer.writeheader()
            writer.writerows(changed)
    admin("upsert", f"--data_dir={lists['lacking']}").refused("must have the index's attributes. It lacks price")
    admin("upsert", f"--data_dir={lists['odd']}").refused(
        r"`attributes\['price'\]` must hold numbers.* Received: 'cheap'"
    )
    admin("delete").refused("delete must be told --photo or --sku")
    keras.utils.set_random_seed(1)
    eet_tf.export_embedder(eet_tf.build_embedder("small_cnn", 16, image_size=32), str(tmp_path / "other"))
    second = f"--data_dir={place / 'photos' / 'second.csv'}"
    admin("upsert", second, f"--saved_model={tmp_path / 'other'}").refused("embedded by different models")
    assert load_index(place / "index").photos.tolist() == before


def test_damage_is_found_by_verify(place, admin, run_script, tmp_path):
    """One byte of a vector, which is too large a file to be read through at each load of a large catalogue."""
    import shutil

    shutil.copytree(place / "index", tmp_path / "index")
    path = next((tmp_path / "index").glob("contents-*/vectors.npy"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x10
    path.write_bytes(content)
    verified = run_script("export/index_admin.py", "verify", f"--index_dir={tmp_path / 'index'}")
    verified.refused(r"vectors\.npy has another checksum", "run `eet index build` again")


@needs_milvus
def test_the_life_of_an_index_in_milvus(place, run_script, tmp_path):
    """The same commands with the same answers as the exact index gives; here without a cluster."""
    index_dir = f"--index_dir={tmp_path / 'index'}"
    photos, serving = place / "photos", f"--saved_model={place / 'serving'}"
    build = ("export/build_index.py", "--index=milvus", "--dataset=csv", f"--data_dir={photos / 'first.csv'}")
    build += (serving, f"--output_dir={tmp_path / 'index'}")
    assert "The index of 20 photos" in run_script(*build).succeeded().printed
    printed = run_script(
        "export/index_admin.py", "upsert", index_dir, f"--data_dir={photos / 'second.csv'}"
    ).succeeded()
    assert "12 photos added, 4 replaced: 32 photos now." in printed.printed
    everything = load_csv(str(photos))
    sku = everything.skus[-1]
    printed = run_script("export/index_admin.py", "delete", index_dir, f"--sku={sku}").succeeded().printed
    assert "4 photos deleted, 28 photos left." in printed
    query = f"--query={everything.files[1]}"
    conditions = ("--where=price>=4", "--where=price<=13", "--where=in_stock=true", "--group_by_sku")
    searched = run_script("export/search.py", index_dir, query, "--k=9", *conditions).succeeded().printed
    found = re.findall(r"  \d+  -?\d\.\d+  (\S+)  \(([^)]+)\)", searched)
    assert {sku for sku, _ in found} == {everything.skus[row] for row in (5, 7, 9, 11, 13)}
    stats = run_script("export/index_admin.py", "stats", index_dir).succeeded().printed
    for line in ("kind +milvus, exact", "photos +28", "dimensions +16", "price \\(number\\)", "rows +milvus-lite"):
        assert re.search(line, stats), (line, stats)
    assert "28 photos." in run_script("export/index_admin.py", "compact", index_dir).succeeded().printed
    verified = run_script("export/index_admin.py", "verify", index_dir).succeeded().printed
    assert "28 photos, 7 products." in verified and "The index is whole." in verified


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--index=exact", "--milvus_uri=http://host"), "--milvus_uri is for --index=milvus. Received: --index=exact"),
        (("--milvus_collection=shop",), "--milvus_collection is for --index=milvus. Received: --index=scann"),
        (("--index=milvus", "--target_recall=0.9"), "--target_recall is for --index=scann. Received: --index=milvus"),
        (("--index=milvus", "--storage=int8"), "--storage must be float32 with --index=milvus"),
        (("--index=milvus", "--milvus_collection=shop"), "`collection` must come with `uri`"),
        pytest.param(
            ("--index=milvus", "--milvus_uri=http://127.0.0.1:1"), "127.0.0.1:1.*Is the server up", marks=needs_milvus
        ),
    ],
)
def test_flags_of_another_kind_are_refused_before_the_work(flags, message, place, run_script, tmp_path):
    build = ("export/build_index.py", "--dataset=csv", f"--data_dir={place / 'nowhere.csv'}", *flags)
    run_script(*build, f"--saved_model={place / 'serving'}", f"--output_dir={tmp_path / 'index'}").refused(message)
