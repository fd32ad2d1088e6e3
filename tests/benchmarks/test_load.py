"""The script that loads an embedder and a server measures both, and the CPU seconds of each."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

pytest.importorskip("tensorflow_serving", reason="needs pip install 'eet-tf[serving]'")

REPOSITORY = pathlib.Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
PROCESS = {"cwd": REPOSITORY, "env": ENVIRONMENT, "text": True, "stdout": subprocess.PIPE}


def load(*flags):
    """What the script printed, and how it ended."""
    command = [sys.executable, "benchmarks/load.py", "--seconds=1", *map(str, flags)]
    return subprocess.run(command, **PROCESS, stderr=subprocess.PIPE, check=False)


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    import eet_tf

    folder = tmp_path_factory.mktemp("embedder")
    eet_tf.export_embedder(eet_tf.build_embedder("small_cnn", 8, image_size=32), str(folder))
    return folder


@pytest.fixture(scope="module")
def server(saved_model):
    """The stand-in in a process of its own: its addresses and its number."""
    command = [sys.executable, "-m", "tests.serving.model_server", f"--model=embedder={saved_model}"]
    with subprocess.Popen(command, **PROCESS) as process:
        yield re.fullmatch(r"gRPC (\S+), REST (\S+), pid (\d+)\n", process.stdout.readline()).groups()
        process.terminate()


def test_a_server_is_measured_beside_its_saved_model(saved_model, server, tmp_path):
    address, _, pid = server
    done = load(
        f"--saved_model={saved_model}", f"--server={address}", f"--server_pid={pid}", f"--output_dir={tmp_path}"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    table = (tmp_path / "table.md").read_text()
    assert table in done.stdout
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[4:]]
    cores = [str(count) for count in (1, 2) if count <= os.cpu_count()]
    assert [row[0] for row in rows] == [where for where in (*cores, "server") for _ in range(6)]
    assert all(float(figure) > 0 for row in rows for figure in row[1:])


def test_of_a_server_elsewhere_the_cpu_seconds_are_not_known(server, tmp_path):
    done = load(f"--server={server[1]}", f"--output_dir={tmp_path}")
    rows = [line for line in done.stdout.splitlines() if line.startswith("| server")]
    assert len(rows) == 6 and all(row.endswith("| not known |") for row in rows)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--server=nonsense"], "`target` must be like"),
        (["--server=localhost:1", "--server_pid=99999999"], "--server_pid must be a process of this machine"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(flags, words):
    done = load(*flags)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
