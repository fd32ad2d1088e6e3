"""`eet train`: flags in, a folder with the best model, its history and its figures out."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from absl import logging

from eet_tf.cli import teachers, training_checks, training_figures, training_parts
from eet_tf.cli.door import Command
from eet_tf.cli.training_checks import Task, checked_task
from eet_tf.cli.training_flags import FIRST, FLAGS, MAY_CHANGE, defaults, is_shared
from eet_tf.terminal import Progress

_HELP = """\
Trains an embedder on the photos of a catalogue, with EET by default, and measures it on products that it was not
trained on. The folder --model_dir then holds model.keras (the best epoch), metrics.json, history.csv, curves.png and
flags.txt. Killed at any moment, the same command goes on from the last epoch.

Examples:
  eet train --data=photos/catalog.csv --model_dir=runs/mine
  eet train --data=photos --backbone=mobilenet_v2 --weights=imagenet --image_size=96
  eet train --data=photos/catalog.csv --backbone=resnet50 --weights=imagenet --image_size=224 --strategy=mirrored
  eet train --flagfile=runs/mine/flags.txt --model_dir=runs/again
  eet train --data=photos/catalog.csv --model_dir=runs/short --prefixes=32,64,128
  eet train --data=photos/catalog.csv --model_dir=runs/small --teacher=runs/large --embedding_dim=512 --loss=none
  eet train --dataset=synthetic

On several machines, run the same command on each of them with its own TF_CONFIG, --strategy=multi_worker and a
--model_dir that all share. If one is killed, the others begin the last epoch again as soon as it is back."""


def _say(text: str) -> None:
    print(text, flush=True)


def _steps_per_epoch(sampler) -> int:
    return FLAGS.steps_per_epoch or max(sampler.steps_per_epoch, 100)


def _check_same_task(strategy, task: Task) -> None:
    """Refuses workers that would not train the same thing, before they make weights that do not fit together."""
    from eet_tf.training import workers
    from eet_tf.training.run import RunError

    own = {"model_dir", "data", "check_photos", "photo_cache"}
    shared = "\n".join(f"{name}={text}" for name, text in task.settings.items() if name not in own)
    photos = "\n".join([*task.train.paths.tolist(), *task.train.skus.tolist()])
    same_settings, same_photos = workers.agree(strategy, shared, photos)
    if not same_settings:
        raise RunError("The workers were given different flags. Give all of them the same ones.")
    if not same_photos:
        raise RunError(f"The workers have different photos or products. This one read {task.train.source}.")


def _check_same_folder(strategy, run, done: int) -> None:
    """Refuses workers that do not see the folder that the chief keeps; all are there once it returns."""
    from eet_tf.training import workers
    from eet_tf.training.run import RunError

    workers.agree(strategy, "the chief has made it")
    if not all(workers.agree(strategy, run.holder(), str(done))):
        raise RunError(
            f"--model_dir must be one folder that all workers share. Received: --model_dir={run.folder}, in which "
            f"this one finds {done} epochs, and another worker sees another folder."
        )


def _callbacks(run, progress, task: Task) -> list:
    import keras

    import eet_tf
    from eet_tf import data
    from eet_tf.training.advice import TrainingAdvice
    from eet_tf.training.lines import EpochLines, verbosity
    from eet_tf.training.run import StopOnNaN

    callbacks = [StopOnNaN(), TrainingAdvice(_say)]
    if not run.writes:
        return [*callbacks, progress]
    if validation := task.validation:
        held_out, learned = (
            data.gallery_dataset(each, FLAGS.image_size, fit=FLAGS.fit) for each in (validation, task.train)
        )
        verbose = verbosity() if len(validation) + len(task.train) > 2000 else 0  # which takes a while
        evaluation = eet_tf.RetrievalEvaluation(
            held_out, validation.skus, verbose=verbose, other_dataset=learned, other_labels=task.train.skus
        )
        callbacks.append(evaluation)
    if not verbosity():
        callbacks.append(EpochLines(_say))
    return [*callbacks, keras.callbacks.TensorBoard(run.path("logs"), write_graph=False), progress]


def _decoded(train):
    from eet_tf import data

    _say(f"Keeping {len(train):,} decoded photos, {len(train) * 3 * FLAGS.image_size**2 / 2**20:,.0f} MB.")
    progress = Progress("photos decoded", len(train))
    decoded = data.decode_photos(train, FLAGS.image_size, progress.update, FLAGS.fit)
    progress.end(len(train))
    return decoded


def _train(run, learner, task: Task) -> None:
    """Trains, or goes on training, and writes the figures."""
    from eet_tf.training import workers
    from eet_tf.training.run import Progress as RunProgress

    if FLAGS.projection == "whitening" and not run.is_begun():
        training_parts.begin_as_whitening(learner.embedder, task.train)
    progress = RunProgress(run, learner, monitor="val_map@r" if task.validation else None)
    done = progress.restore()
    if is_shared():
        _check_same_folder(learner.distribute_strategy, run, done)
    teacher = None if FLAGS.teacher is None else teachers.prepared(run, task.with_vectors)
    if done:
        _say(f"Going on after epoch {done} of {FLAGS.epochs}.")
    num_copies = training_figures.count_copies(task) if run.writes and task.measured_on else 0
    embedder = workers.copy_of_worker(learner).embedder if is_shared() else learner.embedder
    if run.writes:
        training_figures.measure_before(run, embedder, task)
    started = time.monotonic()
    _fit(run, learner, task, progress, done, None if teacher is None else teacher.read(task.train.paths))
    if run.writes:
        seconds = time.monotonic() - started
        training_figures.write_figures(run, task, progress.best_epoch(), seconds, num_copies, teacher)


def _fit(run, learner, task: Task, progress, done: int, teacher) -> None:
    """Trains the epochs that are left; `teacher` are its vectors of the photos to learn from, or None."""
    from eet_tf import data
    from eet_tf.training import workers
    from eet_tf.training.lines import verbosity

    train, sampler, steps = task.train, task.sampler, _steps_per_epoch(task.sampler)
    _say(f"Training on {len(train):,} photos of {train.num_classes:,} products, {steps} steps an epoch.")
    augment, photo_crop = training_parts.make_augmentation()
    values = task.attributes.values if task.attributes else None
    decoded = _decoded(train) if FLAGS.cache else None

    def batches(part):
        read = (values, decoded, part, teacher, FLAGS.fit, photo_crop)
        return data.training_dataset(train, sampler, FLAGS.image_size, augment, done, steps, *read)

    how = {"epochs": FLAGS.epochs, "initial_epoch": done, "steps_per_epoch": steps}
    how["callbacks"] = _callbacks(run, progress, task)
    if is_shared():
        workers.fit(learner, batches, **how, verbose=int(run.writes and verbosity()))
    else:
        learner.fit(batches((0, 1)), **how, shuffle=False, verbose=verbosity())


def _prepared() -> tuple:
    """The strategy, the folder, the learner and the task; refuses what cannot work before long work starts."""
    import keras

    import eet_tf
    from eet_tf import replicas
    from eet_tf.training import workers
    from eet_tf.training.run import RunFolder

    task = checked_task()
    keras.utils.set_random_seed(FLAGS.seed)
    if FLAGS.mixed_precision != "none":
        keras.mixed_precision.set_global_policy(f"mixed_{FLAGS.mixed_precision}")
    training_checks.check_workers()
    if is_shared():
        workers.wait_for_others(_at_times(lambda missing: _say(f"Waiting for {', '.join(missing)}.")))
    strategy = eet_tf.make_strategy(FLAGS.strategy)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which the strategy of several workers takes for itself
    replicas.check_batch_size(task.sampler.batch_size, strategy, FLAGS.microbatch)
    if is_shared():
        _check_same_task(strategy, task)
    with strategy.scope():
        learner = training_parts.make_learner(
            _steps_per_epoch(task.sampler) * FLAGS.epochs, task.attributes, task.train.num_classes
        )
    is_chief = replicas.read_cluster().is_chief
    run = RunFolder(training_checks.model_dir(), task.settings, MAY_CHANGE, is_chief, defaults())
    if FLAGS.check_photos and not FLAGS.skip_unreadable and run.writes:
        _check_photos(task)
    return strategy, run, learner, task


def _at_times(report, seconds: float = 10.0):
    """`report`, called through only when that long has passed since the last time."""
    last = time.monotonic()

    def throttled(*arguments):
        nonlocal last
        if time.monotonic() - last > seconds:
            last = time.monotonic()
            report(*arguments)

    return throttled


def _check_photos(task: Task) -> None:
    from eet_tf import data

    total = sum(map(len, task.catalogs))
    progress = Progress("photos checked", total)
    data.check_photos(task.catalogs, progress.update)
    progress.end(total)


def _main(_) -> None:
    """Trains; if another worker is gone, starts again."""
    import tensorflow as tf

    from eet_tf import data
    from eet_tf.training import workers
    from eet_tf.training.run import RunError

    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    try:
        strategy, run, learner, task = _prepared()
        with contextlib.nullcontext() if is_shared() else strategy.scope(), data.naming_unreadable(*task.catalogs):
            _train(run, learner, task)
        if is_shared():
            workers.part_ways(strategy)  # until all is written the chief may need the others again
    except RunError as error:
        raise ValueError(str(error)) from error
    except KeyboardInterrupt:
        raise ValueError("Interrupted. The same command goes on from the last whole epoch.") from None
    except tf.errors.OpError as error:
        if not (is_shared() and workers.is_loss_of_worker(error)):
            raise
        _say("Another worker is gone. This one starts again from the last epoch and waits for it.")
        os.execv(sys.executable, sys.orig_argv)


COMMAND = Command(_main, FLAGS, _HELP, FIRST)
