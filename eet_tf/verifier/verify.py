"""Proves that a bundle can be served: all that a server would stumble over, and that it says what training said.

    eet verify runs/mine/serving

takes the folder of the models, a model's folder (both: the newest version) or a version's, which `eet export`
--bundle wrote, and knows neither this package nor Keras: both are barred from this process. It checks

    files         as they were written, by their checksums; the embedder has a fingerprint
    signatures    those of the manifest, a row for each photo
    operations    a stock server has them all: no Python function, no library of others
    loading       graph and variables, by a session, as a server does it
    warm-up       each request is exact and is answered; its photos are photos
    batching      the server takes the sizes of batches, and each that is warmed up is met
    parity        the sample photos' vectors are those of the training model, to 1e-5
    independence  neither this package nor Keras was imported

and ends with 0 if nothing is wrong. Otherwise it says what, where and how to mend it, and ends with 1. "ok, but" names
what works and may hurt, as padded batches do. With
--server=localhost:8500 a running server, asked by gRPC, has to have the signatures and give the answers.
"""

import functools
import math
import os
import sys

from absl import app, flags, logging

# None makes any import of that name an error, also one of TensorFlow's
sys.modules["eet_tf"] = sys.modules["keras"] = sys.modules["tf_keras"] = None  # type: ignore[assignment]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # a server may run beside it

FLAGS = flags.FLAGS
flags.DEFINE_string("server", None, "host:port of a server's gRPC, to ask it instead of the files.")
flags.DEFINE_string("name", None, "The model's name on the server; that in the manifest by default.")
flags.DEFINE_float("tolerance", 1e-5, "How far a number of a vector may be from the training model's.", lower_bound=0)
flags.DEFINE_multi_string("op_library", [], "A library of operations that the server will have loaded, too.")
_SHOWN = 5


def newest(path: str) -> str:
    """The folder of a version: `path` itself, the newest in it, or the newest of the only model in it."""
    while not os.path.isfile(os.path.join(path, "saved_model.pb")):
        entries = [entry for entry in os.scandir(path) if entry.is_dir()] if os.path.isdir(path) else []
        versions = [entry.name for entry in entries if entry.name.isdecimal()]
        models = [entry.name for entry in entries if any(name.isdecimal() for name in os.listdir(entry))]
        if not versions and len(models) != 1:
            choice = f", which has the models {sorted(models)}: name one" if models else ""
            sys.exit(f"error: {path!r} must be a bundle, a model's folder or a folder with one model{choice}.")
        path = os.path.join(path, max(versions, key=int) if versions else models[0])
    return path


def load_libraries(paths) -> None:
    """Loads libraries of operations, as the server will have done."""
    import tensorflow as tf

    for path in paths:
        try:
            tf.load_op_library(path)
        except (tf.errors.OpError, RuntimeError) as error:
            sys.exit(f"error: --op_library={path} cannot be loaded: {error}")


def report(outcomes, details) -> tuple[int, int]:
    """Prints each check's outcome as it comes; returns how many failed, and how many warnings there were."""
    failed = warnings = 0
    for number, (name, faults) in enumerate(outcomes, 1):
        if faults is None:
            print(f"{number}. {name}: not done, since the model cannot be loaded")
            continue
        wrong = [fault for fault in faults if not fault.is_warning]
        failed, warnings = failed + bool(wrong), warnings + len(faults) - len(wrong)
        outcome = "FAILED" if wrong else f"ok{details.get(name, '')}{', but:' if faults else ''}"
        print(f"{number}. {name}: {outcome}")
        for fault in faults[:_SHOWN]:
            print(f"     what:  {fault.what}\n     where: {fault.where}\n     mend:  {fault.mend}")
        if len(faults) > _SHOWN:
            print(f"     and {len(faults) - _SHOWN} more")
    return failed, warnings


def open_door() -> None:
    """As `eet_tf.terminal.open_door`, which is barred here: output in any encoding, and arguments that are text."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for argument in sys.argv[1:]:
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            shown = os.fsencode(argument).decode("utf-8", "backslashreplace")
            sys.exit(f"error: arguments must be UTF-8. Received: {shown}. Rename what they name.")


def main(argv):
    """Checks, reports, ends with 0 or 1."""
    if len(argv) != 2:
        raise app.UsageError("`eet verify` takes the folder of a bundle")
    if not math.isfinite(FLAGS.tolerance):
        sys.exit(f"error: --tolerance must be a finite number. Received: --tolerance={FLAGS.tolerance}.")
    logging.set_verbosity(logging.ERROR)
    folder = newest(os.path.abspath(argv[1]))
    try:
        import tensorflow_serving.apis  # noqa: F401
    except ImportError:
        sys.exit("error: a bundle is verified with tensorflow-serving-api: pip install 'eet-tf[serving]'.")
    import bundle_checks
    import bundle_files
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    load_libraries(FLAGS.op_library)
    print(f"{folder} at {FLAGS.server}" if FLAGS.server else folder)
    try:
        bundle = bundle_files.Bundle(folder)
        subject = server_of(bundle) if FLAGS.server else bundle_files.SavedModelSubject(bundle)
    except bundle_files.Unreadable as error:
        report([(*error.args[:1], list(error.args[1:]))], {})
        sys.exit(1)
    checks = {
        **bundle_checks.CHECKS,
        "operations": functools.partial(bundle_checks.check_ops, with_libraries=bool(FLAGS.op_library)),
        "parity": functools.partial(bundle_checks.check_parity, tolerance=FLAGS.tolerance),
    }
    failed, warnings = report(bundle_checks.run_checks(bundle, subject, checks), details_of(bundle))
    what = f"{failed} of {len(checks)} checks failed" if failed else f"All {len(checks)} checks passed"
    print(f"{what}, with {warnings} warning{'s' * (warnings > 1)}." if warnings else f"{what}.")
    sys.exit(1 if failed else 0)


def server_of(bundle):
    """The server as the subject of the checks."""
    import bundle_files
    import bundle_server
    import grpc

    version = os.path.basename(bundle.folder)
    if not version.isdecimal():
        sys.exit(f"error: {bundle.folder!r} must be named by its version for --server.")
    name = FLAGS.name or bundle.manifest.get("name", "embedder")
    try:
        return bundle_server.ServerSubject(FLAGS.server, name, int(version))
    except grpc.RpcError as error:
        mend = "Start the server on this bundle and read its log, or correct --server or --name."
        where = f"{name}, version {version}, at {FLAGS.server}"
        fault = bundle_files.Fault(f"{error.code().name}: {error.details()}", where, mend)
        raise bundle_files.Unreadable("server", fault) from error


def details_of(bundle) -> dict[str, str]:
    """What a person likes to read after "ok"."""
    manifest = bundle.manifest
    return {
        "files": f", {len(manifest.get('files', ()))} of them, fingerprint {manifest.get('fingerprint')}",
        "signatures": f", {', '.join(sorted(bundle.signatures))}",
        "batching": f", {manifest.get('batch_sizes')}",
        "parity": f", to {FLAGS.tolerance:g}",
    }


if __name__ == "__main__":
    open_door()
    app.run(main)
