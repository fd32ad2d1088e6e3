"""A version comes into service in steps that a server takes up, however the command is called and whenever killed."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_serving", reason="needs pip install 'eet-tf[serving]'")

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from eet_tf.serving.models_config import held_versions, why_not_served
from eet_tf.serving.publishing import PublishError, publish
from eet_tf.serving.servable import SavedModelError
from eet_tf.serving.server_state import ServerState
from tests.serving.model_server import ModelServer
from tests.serving.model_versions import AVAILABLE

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    """The smallest model that says who it is."""
    folder = tmp_path_factory.mktemp("model")
    module = tf.Module()
    module.describe = tf.function(
        lambda query: {"fingerprint": tf.fill(tf.shape(query), "f")},
        input_signature=[tf.TensorSpec([None], tf.string, name="query")],
    )
    tf.saved_model.save(module, str(folder), signatures={"describe": module.describe})
    return folder


@pytest.fixture
def models(saved_model, tmp_path):
    """A folder of models: versions 1, 2 and 3 of `embedder`, and version 5 of `other`."""
    for place in ("embedder/1", "embedder/2", "embedder/3", "other/5"):
        shutil.copytree(saved_model, tmp_path / place)
    return tmp_path


def write_config(models, *entries):
    """Entries of `embedder` and `other`, which the stand-in finds where they are."""
    texts = [
        f'  config {{ name: "{name}" base_path: "{models / name}" model_platform: "tensorflow" {more} }}\n'
        for name, more in zip(("embedder", "other"), entries)
    ]
    (models / "models.config").write_text(f"model_config_list {{\n{''.join(texts)}}}\n")


def entry_of(models, name="embedder"):
    text = (models / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (entry,) = [each for each in config.model_config_list.config if each.name == name]
    return entry


def named(models, name="embedder"):
    """(versions, labels) that the file names."""
    entry = entry_of(models, name)
    return list(entry.model_version_policy.specific.versions), dict(entry.version_labels)


def serving(models, **settings):
    """A stand-in that is started as docker-compose.yml does, and reads the file often."""
    settings = {"num_load_threads": 2, "max_num_load_retries": 0, **settings}
    settings = {"allow_version_labels_for_unavailable_models": True, **settings}
    return ModelServer(str(models / "models.config"), **settings)


ONE = "model_version_policy { specific { versions: 1 } }"
STABLE = ONE + ' version_labels { key: "stable" value: 1 }'


# With a server


def test_a_server_refuses_a_label_beside_its_new_version(models):
    """Why there are two steps: at once they are refused, and the version never comes."""
    write_config(models, STABLE)
    with serving(models) as server:
        write_config(
            models,
            'model_version_policy { specific { versions: 1 versions: 2 } } version_labels { key: "stable" value: 2 }',
        )
        until(lambda: server.versions.refused_config is not None)
        assert "assign label to version 2" in server.versions.refused_config
        time.sleep(0.3)
        assert ("embedder", 2) not in server.versions.states


def until(holds, seconds=30):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_a_label_and_its_new_version_come_in_two_steps(models):
    write_config(models, STABLE)
    steps = []

    def on_step(text):
        assert server.versions.refused_config is None
        steps.append((text, named(models)))

    with serving(models) as server:
        publish(str(models), "embedder", 2, "stable", servers=[server.grpc_address], on_step=on_step)
        assert server.versions.refused_config is None
        assert leads_to(server, "stable", 2)
        assert not leads_to(server, "stable", 1)
        assert not leads_to(server, "new", 2)
    steps = [step for step in steps if "Waiting" not in step[0]]
    assert steps == [
        ("models.config: 'embedder' serves versions 1 and 2.", ([1, 2], {"stable": 1})),
        (f"{server.grpc_address} has loaded version 2 of 'embedder'.", ([1, 2], {"stable": 1})),
        (
            "models.config: 'embedder' serves versions 1 and 2, and 'stable' is version 2.",
            ([1, 2], {"stable": 2}),
        ),
        (f"{server.grpc_address} answers to 'stable' with version 2.", ([1, 2], {"stable": 2})),
    ]


def test_back_to_an_old_version(models):
    """That is loaded no more."""
    write_config(models, 'model_version_policy { specific { versions: 3 } } version_labels { key: "a" value: 3 }')
    with serving(models) as server:
        publish(str(models), "embedder", 1, "a", [3], servers=[server.grpc_address])
        assert named(models) == ([1], {"a": 1})
        until(lambda: loaded(server) == {("embedder", 1)})


def loaded(server):
    """{(model, version)} that answer."""
    return {each for each, (state, _) in list(server.versions.states.items()) if state == AVAILABLE}


def leads_to(server, label, version):
    with ServerState(server.grpc_address) as state:
        return state.label("embedder", label, version) == ""


def test_who_names_no_version_gets_the_newest_and_is_told_so(models):
    write_config(models, "model_version_policy { all { } }")
    steps = []
    publish(str(models), "embedder", 2, on_step=steps.append)
    assert steps == ["Callers that name neither version nor label get version 3, the newest that is served."]


def test_every_server_is_waited_for(models):
    """The second reads the file only later."""
    write_config(models, STABLE)
    with serving(models) as first, serving(models, poll_seconds=1.0) as second:
        servers = [first.grpc_address, second.grpc_address]
        publish(str(models), "embedder", 2, "stable", [1], servers=servers)
        assert named(models) == ([2], {"stable": 2})
        for server in (first, second):
            assert server.versions.refused_config is None
            assert ("embedder", 2) in loaded(server)
            assert leads_to(server, "stable", 2)


def test_a_version_that_cannot_be_loaded_is_taken_out_again(models):
    """And with it the danger that a server which restarts ends on it."""
    (models / "embedder" / "2" / "saved_model.pb").write_text("no graph")
    write_config(models, STABLE)
    with serving(models) as server:
        with pytest.raises(PublishError, match="has not loaded version 2 of 'embedder': .*Export it again"):
            publish(str(models), "embedder", 2, "stable", [1], [server.grpc_address], settle_seconds=0.5)
        assert named(models) == ([1], {"stable": 1})
        publish(str(models), "embedder", 3, "stable", servers=[server.grpc_address])  # it holds up no other
        assert named(models) == ([1, 3], {"stable": 3})


def test_a_server_that_does_not_answer_leaves_the_first_step(models):
    write_config(models, STABLE)
    with pytest.raises(
        PublishError, match=r"(?s)localhost:1 has not loaded version 2.*UNAVAILABLE.* after 1 s\. Look at"
    ):
        publish(str(models), "embedder", 2, "stable", servers=["localhost:1"], timeout=1)
    assert named(models) == ([1, 2], {"stable": 1})


class Killed(BaseException):
    """At some step."""


@pytest.mark.parametrize("moment", range(5))
def test_killed_after_any_step_the_same_command_goes_on(models, moment):
    write_config(models, STABLE)
    steps = []

    def on_step(text):
        steps.append(text)
        if "Waiting" not in text and sum("Waiting" not in step for step in steps) == moment + 1:
            raise Killed

    with serving(models) as server:
        arguments = (str(models), "embedder", 2, "stable", [1], [server.grpc_address])
        with pytest.raises(Killed):
            publish(*arguments, on_step=on_step)
        publish(*arguments)
        assert named(models) == ([2], {"stable": 2})
        before = (models / "models.config").stat()
        publish(*arguments)  # nothing is left to do
        assert (models / "models.config").stat().st_mtime_ns == before.st_mtime_ns
        assert server.versions.refused_config is None


# Without a server


def test_without_a_server_there_is_the_first_step_alone(models):
    write_config(models, STABLE)
    with pytest.raises(PublishError, match="version 2 of 'embedder' is added; the rest must wait.*--server=host:8500"):
        publish(str(models), "embedder", 2, "stable")
    assert named(models) == ([1, 2], {"stable": 1})
    publish(str(models), "embedder", 3)
    assert named(models) == ([1, 2, 3], {"stable": 1})


def test_where_no_server_runs_all_is_written_at_once(models):
    write_config(models, STABLE)
    publish(str(models), "embedder", 2, "stable", [1], are_stopped=True)
    assert named(models) == ([2], {"stable": 2})
    with serving(models) as server:  # which starts on it
        assert loaded(server) == {("embedder", 2)}


@pytest.mark.parametrize(
    "policy, served",
    {
        "": [1, 3],
        "model_version_policy { latest { } }": [1, 3],
        "model_version_policy { latest { num_versions: 2 } }": [1, 2, 3],
        "model_version_policy { specific { versions: 2 } }": [1, 2],
        "model_version_policy { all { } }": [],
    }.items(),
)
def test_what_is_served_stays_served(models, policy, served):
    """Where all are, a version need not be named."""
    write_config(models, policy)
    publish(str(models), "embedder", 1)
    assert named(models)[0] == served
    assert entry_of(models).model_version_policy.HasField("all") == (not served)


def test_of_all_versions_one_can_be_retired(models):
    write_config(models, "model_version_policy { all { } }")
    publish(str(models), "embedder", 3, retire=[1], are_stopped=True)
    assert named(models)[0] == [2, 3]


def test_what_others_wrote_stays(models):
    write_config(
        models, 'logging_config { sampling_config { sampling_rate: 0.5 } } version_labels { key: "ß" value: 3 }', ONE
    )
    with open(models / "models.config", "a") as file:
        file.write("# mine\n")
    before = (models / "models.config").read_text()
    other = entry_of(models, "other")
    publish(str(models), "embedder", 2)
    assert entry_of(models, "other") == other
    assert entry_of(models).logging_config.sampling_config.sampling_rate == 0.5
    assert named(models) == ([2, 3], {"ß": 3})
    assert (models / "models.config.before").read_text() == before
    publish(str(models), "embedder", 1)
    assert (models / "models.config.before").read_text() == before  # the last that a person wrote


def test_a_model_without_an_entry_gets_one(models):
    write_config(models, ONE)
    publish(str(models), "other", 5)
    assert entry_of(models, "other").base_path == "/models/other"
    assert named(models, "other") == ([5], {})
    assert named(models) == ([1], {})
    os.remove(models / "models.config")
    publish(str(models), "embedder", 2)
    assert named(models) == ([2, 3], {})


def test_an_export_keeps_what_was_published(models):
    write_config(models)
    publish(str(models), "embedder", 1, "stable", are_stopped=True)
    assert held_versions(str(models), "embedder") == {1, 3}


@pytest.mark.parametrize(
    "policy, version, why",
    [
        ("", 3, ""),
        (ONE, 1, ""),
        (ONE, 3, "names other versions of 'embedder'"),
        ("model_version_policy { all { } }", 2, ""),
    ],
)
def test_whether_a_server_takes_a_version_up_by_itself(models, policy, version, why):
    write_config(models, policy)
    assert why_not_served(str(models), "embedder", version).endswith(why)
    assert bool(why_not_served(str(models), "embedder", version)) == bool(why)
    assert "does not name 'other'" in why_not_served(str(models), "other", 5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("hats", 1), "must have a folder `name` with a version of the model. Received: .*name='hats'"),
        (("embedder", 4), "`version` must be one of 1, 2, 3, and have a saved_model.pb. Received: version=4"),
        (("embedder", 2, "a b"), "`label` must be letters"),
        (("embedder", 2, None, [2]), "`retire` must be other versions than `version`"),
        (("embedder", 2, "new", [1]), "without a label. Received: 1, which is 'stable'"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_written(models, arguments, message):
    write_config(models, STABLE)
    before = (models / "models.config").read_text()
    with pytest.raises(SavedModelError, match=message):
        publish(str(models), *arguments)
    assert (models / "models.config").read_text() == before


@pytest.mark.parametrize(
    "text, message",
    {
        "model_config_list: none": "is no configuration of a model server",
        "custom_model_config { }": "must be a list of models. Received: `custom_model_config`",
        'model_config_list { config { name: "embedder" base_path: "/models/embedder" } '
        'config { name: "embedder" base_path: "/models/embedder" } }': "'embedder' 2 times",
        'model_config_list { config { name: "hats" base_path: "/models/hats" } }': "Received: 'hats', whose folder",
    }.items(),
)
def test_a_file_that_no_server_could_serve_is_refused(models, text, message):
    """In the last a model has no folder: then a server takes up new versions of none."""
    (models / "models.config").write_text(text)
    with pytest.raises(SavedModelError, match=message):
        publish(str(models), "embedder", 2)
    assert (models / "models.config").read_text() == text


def test_a_folder_of_another_machine_is_not_asked_for(models):
    (models / "models.config").write_text(
        'model_config_list { config { name: "hats" base_path: "/mnt/of/the/server/hats" } }'
    )
    publish(str(models), "embedder", 2)
    assert named(models) == ([2, 3], {})


# The command


def run(*arguments):
    return subprocess.run(
        [sys.executable, "export/publish.py", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_says_each_step(models):
    write_config(models, STABLE)
    with serving(models) as server:
        address = server.grpc_address
        done = run(f"--output_dir={models}", "--version=2", "--label=stable", "--retire=1", f"--server={address}")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "Waiting" not in line]
    assert lines == [
        "models.config: 'embedder' serves versions 1 and 2.",
        f"{address} has loaded version 2 of 'embedder'.",
        "models.config: 'embedder' serves versions 1 and 2, and 'stable' is version 2.",
        f"{address} answers to 'stable' with version 2.",
        "models.config: 'embedder' serves version 2.",
    ]
    assert not re.search("Traceback|WARNING", done.stderr)


def test_the_command_ends_in_one_line(models):
    write_config(models, STABLE)
    done = run(f"--output_dir={models}", "--version=2", "--label=stable")
    assert done.returncode == 1
    assert done.stderr.startswith("error: version 2 of 'embedder' is added; the rest must wait")
    assert len(done.stderr.splitlines()) == 1
    assert named(models) == ([1, 2], {"stable": 1})
