"""From flags to losses and learning rates, without a training: what is made, and what is refused."""

import re

import pytest
from absl.testing import flagsaver

from eet_tf import EETLoss
from eet_tf.cli import flag_uses, loss_checks, training_checks, training_flags, training_parts
from eet_tf.cli.complaints import CommandError, Complaints
from eet_tf.cli.training_flags import FLAGS


@pytest.fixture(name="given")
def given_fixture():
    """A function that sets flags; they are as they were afterwards."""
    saved = flagsaver.save_flag_values(FLAGS)

    def given(*texts):
        FLAGS(["train", *texts])

    yield given
    flagsaver.restore_flag_values(saved, FLAGS)


def test_a_flag_goes_to_each_loss_that_knows_it(given):
    given("--loss=smooth_ap+normalized_softmax+arcface", "--temperature=0.2", "--label_smoothing=0.1", "--margin=0.4")
    ap, softmax, arcface = training_parts._loss(num_classes=77).losses
    assert (ap.temperature, softmax.temperature, softmax.num_classes, arcface.num_classes) == (0.2, 0.2, 77, 77)
    assert (softmax.label_smoothing, arcface.label_smoothing, arcface.margin, arcface.scale) == (0.1, 0.1, 0.4, 64)


def test_without_a_flag_each_loss_has_its_own_default(given):
    given("--loss=eet+arcface+proxy_anchor+supervised_contrastive", "--loss_weights=1,0.5,0.1,2")
    loss = training_parts._loss(num_classes=5)
    eet, arcface, proxies, contrastive = loss.losses
    assert (eet.margin, arcface.margin, proxies.margin, contrastive.temperature) == (0.3, 0.5, 0.1, 0.1)
    assert (arcface.scale, proxies.scale, list(loss.weights)) == (64, 32, [1, 0.5, 0.1, 2])


def test_one_loss_is_no_sum(given):
    given("--loss=eet", "--margin=0.7")
    loss = training_parts._loss(num_classes=5)
    assert type(loss) is EETLoss and loss.margin == 0.7


@pytest.mark.parametrize(
    "loss, margin",
    [
        ("eet", 0.3),
        ("triplet", 0.3),
        ("tfa_lifted", 0.3),
        ("smooth_ap", 0.3),  # as flags.txt of older versions says
        ("arcface", 0.5),
        ("arcface+smooth_ap", 0.5),
        ("proxy_anchor", 0.1),
        ("eet+triplet", 0.3),
        ("eet+arcface", None),
    ],
)
def test_the_margin_that_was_not_given_is_kept_where_there_is_one(given, loss, margin):
    given(f"--loss={loss}")
    assert training_flags.margin() == margin
    given("--margin=0.25")
    assert training_flags.margin() == 0.25


def test_rates_are_shares_of_that_of_the_head(given):
    given("--learning_rate=1e-3", "--trunk_learning_rate=1e-4", "--class_learning_rate=0.1")
    assert training_parts._share(FLAGS.trunk_learning_rate) == pytest.approx(0.1)
    assert training_parts._share(FLAGS.class_learning_rate) == pytest.approx(100)
    assert training_parts._share(None) is None


REFUSED = [
    (["--loss=eet+nonsense"], "--loss must be one of eet, .*; or several of eet.* with [+] between, each once"),
    (["--loss=eet+tfa_lifted"], "--loss must be one of .*Received: --loss=eet[+]tfa_lifted"),
    (["--loss=eet+eet"], "--loss must be one of .*Received: --loss=eet[+]eet"),
    (
        ["--loss=eet+arcface", "--loss_weights=1"],
        "--loss_weights must be numbers of at least 0 .*weights=1, ",
    ),
    (["--loss=eet+arcface", "--loss_weights=1,-2"], "--loss_weights must be numbers of at least 0"),
    (["--loss=eet+arcface", "--loss_weights=1,nan"], "--loss_weights must be numbers of at least 0"),
    (["--loss=eet", "--loss_weights=1"], "--loss_weights needs several losses, e.g. --loss=eet"),
    (
        ["--loss=arcface", "--memory_size=9"],
        "--memory_size needs a loss .*=supervised_contrastive[+]arcface",
    ),
    (["--loss=arcface", "--margin=3.5"], "--margin must be from 0 to 3.14 radians for arcface. Received: --margin=3.5"),
]


@pytest.mark.parametrize("texts, message", REFUSED, ids=range(len(REFUSED)))
def test_what_makes_no_sense_is_a_complaint(given, texts, message):
    given(*texts)
    complaints = Complaints()
    flag_uses.check_together(complaints, is_settled=True)
    with pytest.raises(CommandError, match=message):
        complaints.end()


@pytest.mark.parametrize(
    "texts",
    [
        ["--loss=tfa_lifted"],
        ["--loss=eet+arcface", "--loss_weights=1,0", "--class_learning_rate=0.1", "--memory_size=9"],
        ["--loss=proxy_anchor", "--class_learning_rate=0.1"],
    ],
)
def test_what_does_make_sense_is_none(given, texts):
    given(*texts)
    complaints = Complaints()
    flag_uses.check_together(complaints, is_settled=True)
    assert complaints.are_none


UNUSED = [
    (
        ["--label_smoothing=0.1"],
        "--label_smoothing needs --loss with one of normalized_softmax, arcface. Received: ",
        "eet",
    ),
    (
        ["--loss=triplet", "--equidistant_weight=0.5"],
        "--equidistant_weight needs --loss with eet. Received: ",
        "triplet",
    ),
    (["--loss=roadmap", "--margin=0.2"], "--margin needs --loss with one of eet, triplet, arcface, proxy_", "roadmap"),
    (["--loss=eet+roadmap", "--soft_margin"], "--soft_margin needs --loss with one of triplet, tfa_", "eet+roadmap"),
    (["--class_learning_rate=0.1"], "--class_learning_rate needs --loss with one of normalized_softmax, arc", "eet"),
    (["--weight_decay=0.1"], "--weight_decay needs another optimizer, e.g. --optimizer=adamw. Received: ", "adam"),
    (["--momentum=0.8"], "--momentum needs --optimizer=sgd. Received: --momentum=0.8 with --optimizer=", "adam"),
    (["--drop_at=0.5"], "--drop_at needs --schedule=step. Received: --drop_at=0.5 with --schedule=", "cosine"),
    (
        ["--loss=soft_binomial_deviance", "--preserved_share=0.1"],
        "--preserved_share needs --weighting=preserving. Received: --preserved_share=0.1 with --weighting=",
        "informativeness",
    ),
    (["--memory_start=5"], "--memory_start needs a --memory_size above 0. Received: .* without --memory_size", ""),
    (["--attribute_weight=5"], "--attribute_weight needs --attributes. Received: .* without --attributes", ""),
    (["--crop=0.5", "--photo_crop=0.2"], "--crop needs photos without --photo_crop, which takes its pl", "crop=0.2"),
]


@pytest.mark.parametrize("texts, message, received", UNUSED, ids=range(len(UNUSED)))
def test_a_flag_that_nothing_would_use_is_a_complaint(given, texts, message, received):
    given("--recipe=none", *texts)
    complaints = Complaints()
    flag_uses.check_together(complaints, is_settled=False)
    with pytest.raises(CommandError, match=f"^{message}.*{re.escape(received)}[.]$"):
        complaints.end()


@pytest.mark.parametrize("text", ["--label_smoothing=0.1", "--class_learning_rate=0.1", "--weight_decay=0.1"])
def test_until_a_recipe_has_chosen_what_it_goes_with_a_flag_may_be_used(given, text):
    for texts, waits in (([], True), (["--loss=eet", "--optimizer=adam"], False)):
        given(text, *texts)
        complaints = Complaints()
        flag_uses.check_together(complaints, is_settled=False)
        assert complaints.are_none == waits


def test_a_flag_at_its_default_is_as_if_it_were_not_given(given):
    """As flags.txt of a run gives all of them, with the margin of losses that have none."""
    given("--recipe=none", "--loss=roadmap", "--margin=0.3", "--momentum=0.9", "--label_smoothing=0.0", "--crop=0.6")
    complaints = Complaints()
    flag_uses.check_together(complaints, is_settled=True)
    assert complaints.are_none


@pytest.mark.parametrize(
    "texts, dim, is_refused",
    [
        (["--prefixes=16,64"], 64, False),
        (["--prefixes=16,64", "--embedding_dim=64"], 64, False),
        (["--prefixes=16,64", "--embedding_dim=128"], 128, True),
        (["--prefixes=16,64", "--teacher=x"], 128, False),  # which teaches all dimensions
        (["--prefixes=16,256", "--teacher=x"], 128, True),
        (["--prefixes=64,16"], 16, True),
    ],
)
def test_the_last_prefix_is_the_whole_embedding(given, texts, dim, is_refused):
    given(*texts)
    training_checks._choose_length()
    complaints = Complaints()
    loss_checks.check_built_on_others(complaints)
    assert (FLAGS.embedding_dim, not complaints.are_none) == (dim, is_refused)


def test_a_sample_that_does_not_hold_a_batch_is_refused(given):
    given("--sampled_classes=15")
    with pytest.raises(
        ValueError, match="--sampled_classes must be at least the 16 products in a batch. Received: .*=15"
    ):
        loss_checks.check_sample(16)
    training_checks.check_sample(15)
