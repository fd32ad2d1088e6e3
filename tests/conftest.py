"""What several test modules need: code in a process of its own, a mixed-precision policy that is taken back."""

import gc
import os
import pathlib
import subprocess
import sys

import pytest

from tests.forks import REPOSITORY, TIMEOUT, Fork


def run_python(*code_blocks: str, timeout: float = TIMEOUT, fresh: bool = False) -> list[str]:
    """Runs each block of code in a process of its own, all at the same time; returns what they printed.

    `fresh`: in an interpreter that has imported nothing; otherwise in a fork of one that has imported TensorFlow.
    """
    start = _Interpreter if fresh else Fork
    processes = [start(["-c", code], environment={"CUDA_VISIBLE_DEVICES": "-1"}) for code in code_blocks]
    try:
        outputs = [process.ended(timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for status, _, errors in outputs:
        if status:
            pytest.fail(f"a process ended with {status}:\n{errors[-4000:]}", pytrace=False)
    return [printed for _, printed, _ in outputs]


class _Interpreter:
    """As `Fork`, freshly started."""

    def __init__(self, arguments, environment):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._process = subprocess.Popen(
            [sys.executable, *arguments], cwd=REPOSITORY, env=environment, text=True, **pipes
        )

    def ended(self, timeout):
        printed, errors = self._process.communicate(timeout=timeout)
        return self._process.returncode, printed, errors

    def kill(self):
        self._process.kill()


TESTS = pathlib.Path(__file__).parent
# folders and files there, and FILE::TEST:
# what XLA makes of every loss at five sizes, on one replica and two; trainings of minutes, by commands, benchmarks and
# examples; processes that are killed
LONG = (
    *("benchmarks", "examples", "end_to_end/test_benchmark.py", "end_to_end/test_embed_beam.py"),
    *("end_to_end/test_prefixes_and_teachers.py", "end_to_end/test_workers.py", "losses/test_compiled_values.py"),
    *("losses/test_compiled_replicas.py", "test_package.py::test_the_wheel_alone_does_the_whole_job"),
    *("embedder/test_hub.py::test_an_epoch_of_the_command_on_two_devices_is_exported_and_verified",),
    *("end_to_end/test_readme.py::test_make_demo",),
    *("end_to_end/test_recipe_kit.py::test_a_resumed_run_ends_with_the_weights_of_a_whole_one",),
    *("end_to_end/test_readme.py::test_the_quick_start_goes_on_where_the_readme_ends",),
    *("end_to_end/test_class_losses.py", "audit/test_audit.py::test_real_photos", "index/test_tuning.py"),
    *("losses/test_class_losses.py::test_in_blocks_it_is_the_same",),
    *("losses/test_class_losses.py::test_no_shape_is_known_only_at_run_time", "serving/test_search_graph.py"),
    *("serving/test_bundle.py::test_the_script_verifies_and_says_where_it_is",),
    *("serving/test_bundle.py::test_the_health_check_asks_every_model",),
)
COMPILED = ("losses/test_compiled_shapes.py", "training/test_compilation.py")
SLOW = (
    *("end_to_end/test_resume.py", "end_to_end/test_published.py", "end_to_end/test_evaluate.py"),
    *("end_to_end/test_methods.py", "end_to_end/test_recipe_kit.py", "embedder/test_hub.py"),
    *("end_to_end/test_recipes.py", "end_to_end/test_service_page.py", "end_to_end/test_export_and_search.py"),
    *("end_to_end/test_train_pretrained.py", "end_to_end/test_index_admin.py"),
    *("end_to_end/test_search_server.py", "end_to_end/test_search_attributes.py", "cli/test_export_pretrained.py"),
    *("audit/test_audit.py", "conformance/test_conformance.py::test_losses_compiled_by_xla_are_the_same"),
    *("data/test_crops.py", "data/test_letterbox.py", "embedder/test_necks.py", "embedder/test_strides.py"),
    *("embedding/test_beam.py", "evaluation/test_ranking.py", "losses/test_memory.py"),
    *("losses/test_keras_contract.py::test_fit_in_half_precision", "losses/test_not_a_number.py"),
    *("losses/test_keras_contract.py::test_fit_compiled_by_xla_is_the_same", "pairs/test_class_distances.py"),
    *("serving/test_bundle.py", "serving/test_bundle_on_a_server.py", "serving/test_c_api.py"),
    *("serving/test_servable.py", "training/test_ragged_batches.py"),
    *("training/test_replicas.py", "training/test_statistics.py"),
    *("training/test_class_vectors.py::test_training_lowers_the_loss_in_every_precision",),
    *("training/test_rates.py::test_the_first_step_is_each_ones_share_weight_decay_and_all",),
)
# slow, and still tried in both sets of versions
BOTH = (
    *("serving/test_servable.py", "training/test_ragged_batches.py", "training/test_replicas.py"),
    *("training/test_statistics.py",),
)
LONGEST_FIRST = ("end_to_end", "training", "serving", "losses", "embedder", "data")
# what is the same in both sets of versions: flags, pages, lists, Pillow, figures, the index, clients, examples; and
# XLA's view of every loss in every setting, since training/test_compilation.py compares compiled steps in both
ONCE = (
    *("losses/test_compiled_shapes.py", "losses/test_labels.py", "test_docstrings.py"),
    *("data/test_crops.py", "data/test_letterbox.py", "data/test_pipeline.py", "evaluation/test_evaluation.py"),
    *("serving/test_fuzz.py", "serving/test_robustness.py", "training/test_advice.py", "training/test_run.py"),
    *("end_to_end/test_train.py::test_compiled_it_trains_alike", "training/test_memory.py"),
    *("serving/test_saved_model.py::test_whitened_embeddings_are_the_plain_ones_whitened",),
    *("training/test_learner.py::test_a_last_batch_that_does_not_fall_into_pieces_gives_the_same_update",),
    *("training/test_learner.py::test_in_pieces_half_precision_moves_the_weights_alike",),
    *("audit", "cli", "convert", "index", "pages", "service", "serving/test_client.py", "test_error_catalogue.py"),
    *("embedding", "test_reference_gradients.py"),
    *("serving/test_model_server.py", "serving/test_publishing.py", "serving/test_verify.py", "test_architecture.py"),
    *("test_documentation.py", "test_migration_pages.py", "test_package.py", "evaluation/test_comparison.py"),
    *("evaluation/test_measures.py", "evaluation/test_metrics.py", "evaluation/test_postprocessing.py"),
    *("evaluation/test_ranking.py", "evaluation/test_ranking_on_gpu.py"),
    *("data/test_delimited.py", "data/test_encodings.py", "data/test_fine_grained.py", "data/test_deepfashion.py"),
    *("data/test_folders.py", "data/test_layouts.py", "data/test_listings.py", "data/test_roles.py"),
)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """Marks the files that `make test` leaves to `make test-slow`, and those that `make test-addons` leaves out.

    The longest files come first, so that of two processes none is left with one of them at the end.
    """
    for item in items:
        place = item.path.relative_to(TESTS)
        holders = {str(each) for each in (place, *place.parents)} | {f"{place}::{item.originalname}"}
        for marker, places in {"compiled": COMPILED, "slow": SLOW, "both": BOTH, "once": ONCE, "long": LONG}.items():
            if holders.intersection(places):
                item.add_marker(marker)
    items.sort(key=lambda item: (*LONGEST_FIRST, item.path.parent.name).index(item.path.parent.name))


def pytest_collection_finish():
    """A tenth of the time went into looking for garbage among the million objects that TensorFlow keeps."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


@pytest.fixture(scope="session", name="run_python")
def run_python_fixture():
    """The function `run_python`."""
    return run_python


@pytest.fixture
def set_policy():
    """Sets Keras's global precision policy for one test; it is float32 again after it."""
    import keras

    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy("float32")
