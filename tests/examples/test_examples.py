"""Every script of examples/ runs as a person runs it, from another folder, and prints what its docstring shows."""

import ast
import json
import re

import keras
import pytest

from tests.end_to_end.scripts import run
from tests.forks import REPOSITORY

SCRIPTS = sorted((REPOSITORY / "examples").glob("*.py"))
PRODUCT = r"[a-z]+-[a-z]+-[a-z]+-[a-z]+"


def docstring(script):
    return ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))


def shown(script):
    """What the docstring says is printed: the last of its indented blocks."""
    blocks = re.findall(r"(?:^    .+\n?)+", docstring(script), re.M)
    return re.sub(r"^    ", "", blocks[-1], flags=re.M).strip()


def skeleton(text):
    """A text without figures and products, which differ a little from one kind of processor to another."""
    for pattern, word in [
        (r"(http://)?[\w.]+:\d{2,5}\b", "SERVER"),
        (PRODUCT, "PRODUCT"),
        (r"colour=\w+", "COLOUR"),
        (r"(better by|no difference.*?:) \+?", "FOUND "),
    ]:
        text = re.sub(pattern, word, text)
    return re.sub(r"-?\d[\d,]*(\.\d+)?", "#", text)


@pytest.fixture
def printed(tmp_path):
    """Runs an example from a folder of its own and returns what it printed, compared with what it shows."""

    def of(name, *flags):
        script = REPOSITORY / "examples" / name
        outcome = run(str(script), *flags, folder=tmp_path).succeeded()
        assert "Warning" not in outcome.errors, outcome.errors
        assert skeleton(outcome.printed.strip()) == skeleton(shown(script))
        return outcome.printed

    return of


def figures(line):
    return [float(figure) for figure in re.findall(r"(?<![\w@])-?\d+\.\d+", line)]


def test_there_are_ten_and_each_says_how_it_is_run():
    assert [script.name[:3] for script in SCRIPTS] == [f"{number:02}_" for number in range(1, 11)]
    for script in SCRIPTS:
        assert f"\n    python examples/{script.name}" in docstring(script)
        code = ast.unparse(ast.parse(script.read_text(encoding="utf-8")).body[1:])
        assert 10 <= len(code.splitlines()) <= 60, script.name
        assert script.read_text(encoding="utf-8").count("\n") <= 100, script.name


def test_first_search(printed):
    lines = printed("01_first_search.py").splitlines()
    before, after = figures(lines[0])
    assert after > before
    scores = [figures(line)[0] for line in lines[2:]]
    assert scores == sorted(scores, reverse=True)


def test_arrays(printed):
    before, after = figures(printed("02_arrays.py").splitlines()[1])
    assert after > before + 0.2


def test_own_loss(printed):
    before, after = map(figures, printed("03_own_loss.py").splitlines())
    recall, loss, pull, push = after
    assert recall > before[0] + 0.2
    assert loss == pytest.approx(pull + push, abs=0.011)


def test_own_keras_loop(printed):
    first, *_, last, _ = printed("04_own_keras_loop.py").splitlines()
    assert figures(last)[0] < figures(first)[0]


def test_pretrained_backbone(printed, tmp_path):
    printed("05_pretrained_backbone.py")
    assert (tmp_path / "runs" / "pretrained" / "serving" / "1" / "saved_model.pb").is_file()
    assert (tmp_path / "runs" / "pretrained" / "index" / "manifest.json").is_file()


def test_attributes(printed):
    lines = printed("06_attributes.py").splitlines()
    assert all(product.startswith("mug-") for product in re.findall(PRODUCT, lines[-1]))
    likeliest, next_one = figures(lines[1])
    assert 1 >= likeliest >= next_one >= 0


def test_fine_tuning(printed, tmp_path):
    printed("07_fine_tuning.py")
    assert (tmp_path / "runs" / "fine_tuning" / "checkpoint.keras").is_file()


def test_web_handler(printed):
    first, second, third = printed("08_web_handler.py").splitlines()
    assert "new arrival" not in first
    found = json.loads(second.removeprefix("200 "))
    assert (found["products"][0], found["scores"][0]) == ("new arrival", "1.00")
    assert third.startswith("415 ")


def test_serving_client(printed, small_bundle):
    from tests.serving.model_server import ModelServer

    with ModelServer({"embedder": str(small_bundle)}) as server:
        printed("09_serving_client.py", f"--server={server.grpc_address}")
        printed("09_serving_client.py", f"--server=http://{server.rest_address}")


@pytest.fixture
def small_bundle(tmp_path):
    """The base path of an exported model, as a server polls it."""
    pytest.importorskip("tensorflow_serving", reason="needs pip install 'eet-tf[serving]'")
    from eet_tf import build_embedder, export_embedder

    keras.utils.set_random_seed(2)
    export_embedder(build_embedder("small_cnn", 32, image_size=32), str(tmp_path / "served"))
    return tmp_path / "served"


def test_evaluation(printed, tmp_path):
    lines = printed("10_evaluation.py").splitlines()
    before, after = figures(lines[0]), figures(lines[1])
    assert after[0] > before[0]
    (by_how_much, low, high) = figures(lines[-1])
    assert low < by_how_much < high
    assert by_how_much == pytest.approx(100 * (after[0] - before[0]), abs=1.01)
    assert (tmp_path / "runs" / "evaluation" / "classes.csv").is_file()
