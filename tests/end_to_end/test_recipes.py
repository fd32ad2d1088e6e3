"""`--recipe`: what it sets is trained with and kept, flags that are given win, and runs go on with what they had."""

import pytest

from eet_tf.training.run import read_run

TINY = ("--image_size=32", "--classes_per_batch=4", "--examples_per_class=2", "--steps_per_epoch=2", "--epochs=1")


@pytest.fixture(scope="module")
def train(root, run_script):
    """Trains in a folder of that name, beside the photos; gives the folder and how the command ended."""

    def train(name, *flags):
        folder = root / name
        outcome = run_script("train/main.py", f"--data={root / 'photos'}", *flags, f"--model_dir={folder}")
        return folder, outcome.succeeded()

    return train


@pytest.fixture(scope="module")
def chosen(train):
    """A run with the recipe that was chosen for it."""
    return train("chosen", *TINY)


def kept(folder) -> dict[str, str]:
    return read_run(str(folder)).settings


def test_it_is_chosen_said_and_kept(chosen):
    folder, outcome = chosen
    line = "Recipe from_scratch, for 4 products with 4.0 photos of 32 pixels each, no weights to begin with, no GPU. "
    assert line + "--recipe=none leaves all flags at their defaults." in outcome.printed
    settings = kept(folder)
    assert (settings["recipe"], settings["learning_rate"], settings["color"]) == ("from_scratch", "0.004", "0.0")
    assert (settings["classes_per_batch"], settings["cache"]) == ("4", "True")
    assert "Keeping 16 decoded photos, 0 MB." in outcome.printed


def test_a_run_goes_on_with_what_its_recipe_set(chosen, train):
    folder, _ = chosen
    before = kept(folder)
    _, outcome = train("chosen", *TINY[:-1], "--epochs=2")
    assert "Going on after epoch 1 of 2." in outcome.printed and "Recipe" not in outcome.printed
    assert kept(folder) == {**before, "epochs": "2"}


def test_its_flags_train_the_same_thing(chosen, train):
    folder, _ = chosen
    again, outcome = train("again", f"--flagfile={folder / 'flags.txt'}")
    assert "Recipe from_scratch. " in outcome.printed
    assert kept(again) == {**kept(folder), "model_dir": str(again)}


def test_flags_that_are_given_win(train):
    folder, _ = train("given", *TINY, "--learning_rate=0.01", "--color=0.1", "--loss=triplet")
    settings = kept(folder)
    assert (settings["learning_rate"], settings["color"], settings["loss"]) == ("0.01", "0.1", "triplet")
    assert settings["equidistant_weight"] == "1.0"  # which belongs to another loss


def test_a_run_of_a_version_without_recipes_goes_on_as_it_began(train):
    folder, outcome = train("old", *TINY, "--recipe=none")
    assert "Recipe" not in outcome.printed
    assert kept(folder)["learning_rate"] == "0.001"
    lines = (folder / "flags.txt").read_text().splitlines(keepends=True)
    (folder / "flags.txt").write_text("".join(line for line in lines if not line.startswith(("--recipe", "--mirror"))))
    _, outcome = train("old", *TINY[:-1], "--epochs=2")
    assert "Going on after epoch 1 of 2." in outcome.printed
    assert (kept(folder)["recipe"], kept(folder)["learning_rate"]) == ("none", "0.001")


def test_another_recipe_than_that_of_the_run_is_refused(chosen, root, run_script):
    outcome = run_script(
        "train/main.py", f"--data={root / 'photos'}", f"--model_dir={root / 'chosen'}", *TINY, "--recipe=none"
    )
    outcome.refused("holds a run with other settings", "--recipe was 'from_scratch', is 'none'")


def test_a_flag_of_another_loss_than_that_of_the_run_is_refused_as_another_setting(chosen, root, run_script):
    flags = [f"--data={root / 'photos'}", f"--model_dir={root / 'chosen'}", *TINY]
    outcome = run_script("train/main.py", *flags, "--loss=triplet", "--margin=0.5")
    outcome.refused("holds a run with other settings", "--loss was 'eet', is 'triplet'", "--margin was '0.3', is '0.5'")


def test_what_the_recipe_cannot_use_is_refused_with_its_name(root, tmp_path, run_script):
    flags = [f"--data={root / 'photos'}", f"--model_dir={tmp_path}", *TINY]
    outcome = run_script("train/main.py", *flags, "--temperature=0.2", "--weight_decay=0.1")
    outcome.refused(
        "--temperature needs --loss with one of supervised_contrastive, .* with --loss=eet[.]",
        "--weight_decay needs another optimizer, e.g. --optimizer=adamw. .* with --optimizer=adam[.]",
        "Recipe from_scratch, for 4 products",
    )
    outcome = run_script("train/main.py", *flags, "--recipe=few_products")
    outcome.refused("--recipe=few_products needs --weights.* Received: none. Give weights, or --recipe=from_scratch")
    assert not any(tmp_path.iterdir())
