"""rrt/training/step.py, rrt/network/feedforward.py: gradients of small batches and of threads are those of the whole,
formulas of the loss and of averaged weights."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reranking import NETWORK, make_batch, make_dataset, make_source

from rrt.network.feedforward import CACHED_ROWS, CachedFeedForward
from rrt.network.model import RRT
from rrt.network.pairs import read_images
from rrt.training.batches import PairBatch
from rrt.training.log import Meter
from rrt.training.settings import TrainSettings
from rrt.training.step import GradientComputer, anchor_losses, micro_batches, pair_losses
from rrt.training.trainer import Trainer


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(make_dataset(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def batches(source):
    plan = source.plan(0, 1)
    return [make_batch(source, plan, step) for step in range(3)]


def make_model():
    torch.manual_seed(0)
    return RRT(**NETWORK)


def gradients(model, batches, **options):
    computer = GradientComputer(model, **options)
    model.zero_grad()
    pairs = sum(batch.joined_pairs for batch in batches)
    with computer.workers():
        figures = sum(computer.add(batch, pairs) for batch in batches)
    return figures, [parameter.grad for parameter in model.parameters()]


@pytest.mark.gpu
def test_a_gpu_gives_the_same_gradients(batches):
    (loss, right), expected = plain_gradients(make_model(), batches)
    (found, correct), on_gpu = gradients(make_model().to("cuda"), batches, device="cuda")
    assert found.item() == pytest.approx(loss, rel=1e-4) and correct.item() == right
    for ours, theirs in zip(on_gpu, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, atol=1e-4, rtol=1e-3)


def plain_gradients(model, batches, smoothing=0.0):
    """Of the mean over all pairs, by one ordinary backward pass."""
    model.zero_grad()
    logits = torch.cat([batch.logits(model) for batch in batches])
    labels = torch.from_numpy(np.concatenate([batch.labels for batch in batches]))
    targets = labels * (1 - smoothing) + 0.5 * smoothing
    loss = F.binary_cross_entropy_with_logits(logits, targets)
    loss.backward()
    correct = ((logits > 0) == (labels > 0.5)).sum()
    return (loss.item(), correct.item()), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("tokens", [1, 30, 10**6])
@pytest.mark.parametrize("threads", [1, 2])
def test_small_batches_in_threads_add_up_to_the_gradient_of_all_joined(batches, monkeypatch, tokens, threads):
    monkeypatch.setattr("rrt.training.step.BATCH_TOKENS", tokens)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = make_model()
    figures, found = gradients(model, batches, label_smoothing=0.2)
    expected_figures, expected = plain_gradients(model, batches, 0.2)
    assert figures.tolist() == pytest.approx(expected_figures, rel=1e-6)
    for left, right in zip(found, expected):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-4)
        # Fused optimisers read gradients in the order of the weights' memory.
        assert left.is_contiguous()


def test_the_number_of_threads_does_not_change_a_bit(batches, monkeypatch):
    monkeypatch.setattr("rrt.training.step.BATCH_TOKENS", 30)
    model, found, threads_before = make_model(), [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(gradients(model, batches)[1])
    torch.set_num_threads(threads_before)
    assert all(torch.equal(left, right) for left, right in zip(*found))


@given(tokens=st.integers(1, 200))
@settings(max_examples=15)
def test_every_pair_is_in_one_small_batch_with_its_own_images(batches, tokens):
    batch = batches[0]
    parts = micro_batches(batch, tokens)
    model = make_model().eval()
    with torch.no_grad():
        whole = sorted(zip(batch.logits(model).tolist(), batch.labels.tolist()))
        pieces = sorted(pair for part in parts for pair in zip(part.logits(model).tolist(), part.labels.tolist()))
    np.testing.assert_allclose(pieces, whole, atol=1e-5)
    # All pairs of a query lie together, so no image is read into more parts than it has partners there.
    for part in parts:
        assert len(part.labels) == 1 or part.images.counts[np.stack([part.query, part.candidate])].sum() <= tokens


def test_an_empty_share_of_a_batch_gives_nothing(batches):
    empty = replace(batches[0], query=np.empty(0, int), candidate=np.empty(0, int), labels=np.empty(0, np.float32))
    assert GradientComputer(make_model()).add(empty, 24).tolist() == [0, 0]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_gives_about_the_same_gradient(batches, precision):
    model = make_model()
    (loss, _), exact = gradients(model, batches)
    computer = GradientComputer(model, precision=precision)
    assert computer.scaler.is_enabled() == (precision == "float16")
    (half_loss, _), half = gradients(model, batches, precision=precision)
    assert abs(half_loss - loss) < 0.02 and half_loss != loss
    joined, half = (torch.cat([gradient.flatten() for gradient in found]) for found in (exact, half))
    if precision == "float16":
        half = half / computer.scaler.get_scale()
    assert F.cosine_similarity(joined, half, dim=0) > 0.99
    assert 0.9 < half.norm() / joined.norm() < 1.1


@pytest.mark.parametrize("rows", [1, CACHED_ROWS, 2 * CACHED_ROWS + 3])
def test_the_cached_feed_forward_network_has_the_value_and_gradient_of_the_plain_one(rows):
    generator = torch.Generator().manual_seed(rows)
    shapes = ((rows, 6), (10, 6), (10,), (6, 10), (6,))
    inputs = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    x, weight1, bias1, weight2, bias2 = inputs
    plain = F.linear(F.relu(F.linear(x, weight1, bias1)), weight2, bias2)
    fast = CachedFeedForward.apply(*inputs)
    torch.testing.assert_close(fast, plain)
    grad = torch.randn(plain.shape, generator=generator)
    for left, right in zip(torch.autograd.grad(fast, inputs, grad), torch.autograd.grad(plain, inputs, grad)):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


@given(logit=st.floats(-20, 20), label=st.sampled_from([0.0, 1.0]), smoothing=st.floats(0, 0.9))
def test_label_smoothing_is_cross_entropy_against_the_smoothed_target(logit, label, smoothing):
    target = 1 - smoothing / 2 if label else smoothing / 2
    # -log sigmoid(x) = log(1 + e^-x)
    expected = target * np.logaddexp(0, -logit) + (1 - target) * np.logaddexp(0, logit)
    found = pair_losses(torch.tensor([logit]).double(), torch.tensor([label]).double(), smoothing)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def steps_of(source, batches, **options):
    trainer = Trainer(make_model(), source, TrainSettings(**options), "unused", {}, None)
    batches, meter, states = iter(batches), Meter(), []
    for _ in range(math.ceil(3 / trainer.settings.accumulation)):
        trainer._step(batches, 1, meter)
        states.append([parameter.detach().clone() for parameter in trainer.model.parameters()])
    trainer._read_figures(meter)
    return trainer, meter, states


def test_accumulated_batches_make_the_step_of_the_joined_batch(source, batches):
    _, joined = plain_gradients(make_model(), batches)
    trainer, meter, states = steps_of(source, batches, accumulation=3, optim="sgd", lr=0.1, weight_decay=0.0)
    assert len(states) == 1 and meter.sums["pairs"] == sum(len(batch.labels) for batch in batches)
    for before, after, gradient in zip(make_model().parameters(), states[0], joined):
        torch.testing.assert_close(after, before.detach() - 0.1 * gradient, atol=1e-6, rtol=1e-5)


def test_averaged_weights_follow_the_formula_and_are_what_is_kept(source, batches):
    trainer, _, states = steps_of(source, batches, ema_decay=0.7, lr=1e-2)
    for average, *steps in zip(trainer.network.parameters(), *states):
        expected = steps[0]
        for weights in steps[1:]:
            expected = 0.7 * expected + 0.3 * weights
        torch.testing.assert_close(average, expected)
    assert trainer.network is not trainer.model


def test_compiled_training_gives_the_same_gradient(batches, monkeypatch):
    # The eager backend shows that tracing works and parameters are shared, without a compiler.
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_(function, backend="eager", **options))
    model = make_model()
    _, plain = gradients(model, batches)
    _, compiled = gradients(model, batches, compile=True)
    for left, right in zip(compiled, plain):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-4)


def test_softmax_is_the_cross_entropy_of_an_anchors_positive_among_its_negatives():
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]])
    expected = [-math.log(math.e / (math.e + 1 + math.exp(-1))), -math.log(1 / (1 + math.exp(2) + math.exp(0.5)))]
    torch.testing.assert_close(anchor_losses(logits), torch.tensor(expected))


@pytest.mark.parametrize("tokens", (1, 10**6))
def test_softmax_compares_the_pairs_of_one_anchor_in_small_batches_as_in_one(source, monkeypatch, tokens):
    triplets = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    images = read_images(source.train.store, source.train.index[:8], 6)
    batch = PairBatch.of_triplets(images, triplets)
    model = make_model()
    logits = [[model_logit(model, images, row[0], other) for other in row[1:]] for row in triplets]
    expected = anchor_losses(torch.stack([torch.stack(row) for row in logits])).mean()
    monkeypatch.setattr("rrt.training.step.BATCH_TOKENS", tokens)
    monkeypatch.setattr("rrt.training.step.SMALLEST_TOKENS", tokens)
    found = GradientComputer(model, loss="softmax").add(batch, batch.joined_pairs)
    assert found[0].item() == pytest.approx(expected.item(), rel=1e-5)


def model_logit(model, images, query, candidate):
    return model.pair_logits(images, np.array([query]), np.array([candidate]))[0]
