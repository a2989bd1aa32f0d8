"""The gradient of a batch: packed pairs, the images of a batch embedded once, in the precision that pays.

On a GPU a batch is computed as a whole. On a processor it is divided into small ones of a few pairs, which stay in a
core's cache from the first layer to the gradient and which worker threads compute side by side; their gradients are
summed in a fixed order, so that a run gives the same bits whatever the number of threads.
"""

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat

import numpy as np
import torch
import torch.nn.functional as F

from rrt.network.pairs import TOKENS_BESIDE_LOCALS
from rrt.network.precision import DTYPES, resolve_precision
from rrt.training.batches import PairBatch
from rrt.training.distillation import DistilSettings

# Tokens computed at a time by a worker thread: two pairs of 500 local descriptors.
BATCH_TOKENS = 2048
# Fewer are not worth a call.
SMALLEST_TOKENS = 256


class GradientComputer:
    """Sums gradients of batches into ``parameter.grad``.

    precision: of ``rrt.network.precision``; ``precision`` afterwards says what ``auto`` came to. label_smoothing: see
    ``pair_losses``. compile: torch.compile for the rows after attention. distil: how lists of a teacher are learned;
    loss: of labels, bce of each pair or softmax of an anchor's positive among its negatives. The scaler keeps
    float16's small gradients from vanishing, and does nothing in other precisions.
    """

    def __init__(
        self,
        model,
        device="cpu",
        precision="float32",
        label_smoothing=0.0,
        compile=False,
        distil: DistilSettings | None = None,
        loss: str = "bce",
    ):
        self.model = model
        self.device = torch.device(device)
        self.precision = resolve_precision(precision, self.device)
        self.label_smoothing = label_smoothing
        self.distil = distil or DistilSettings()
        self.loss = loss
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.network = model
        if compile:
            # The same parameters, so that nothing but training runs the compiled code.
            self.network = _sharing_parameters(model)
            for layer in self.network.encoder.layers:
                layer.after_attention = torch.compile(layer.after_attention, dynamic=True)
        # Dropout draws from the one generator all threads share, and the compiler is not made for threads.
        in_turn = compile or model.settings["dropout"] > 0
        self.threads = 1 if self.device.type == "cuda" or in_turn else torch.get_num_threads()
        self._pool = None

    def add(self, batch: PairBatch, joined_pairs: int) -> torch.Tensor:
        """Add the gradient of the sum of the pairs' losses by ``joined_pairs``, those of a whole optimiser step.

        Returns float64 [2] on the device: that loss, and the number of pairs classified rightly, or in a teacher's
        lists the share of candidates in the teacher's order, times the pairs.
        """
        if not len(batch.labels):
            return torch.zeros(2, dtype=torch.float64, device=self.device)
        loss_of = self._pair_loss
        if batch.list_size:
            loss_of = self._teacher_loss
        elif self.loss == "softmax":
            batch, loss_of = batch.by_anchor(), self._anchor_loss
        if self.device.type == "cuda":
            loss, correct = self._loss(batch, joined_pairs, loss_of)
            self.scaler.scale(loss).backward()
            return torch.stack([loss.detach().double(), correct.double()])
        parts = micro_batches(batch, BATCH_TOKENS)
        sums = torch.zeros(2, dtype=torch.float64)
        compute = self._pool.map if self._pool else map
        for gradients, figures in compute(self._gradients, parts, repeat(joined_pairs), repeat(loss_of)):
            sums += figures
            for parameter, gradient in zip(self.parameters, gradients):
                if parameter.grad is None:
                    # Autograd may hand out a transposed view, which a fused optimiser would take for the plain order.
                    parameter.grad = gradient.contiguous()
                else:
                    parameter.grad += gradient
        return sums

    @contextmanager
    def workers(self):
        """Threads that compute on a processor while this lasts."""
        if self.device.type == "cuda":
            yield
            return
        before = torch.get_num_threads()
        try:
            # The calling thread, too: its own helpers would wait for work in a loop, and take the cores from these.
            torch.set_num_threads(1)
            with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as self._pool:
                yield
        finally:
            self._pool = None
            torch.set_num_threads(before)

    def _gradients(self, batch, joined_pairs, loss_of):
        loss, correct = self._loss(batch, joined_pairs, loss_of)
        gradients = torch.autograd.grad(self.scaler.scale(loss), self.parameters)
        return gradients, torch.stack([loss.detach().double(), correct.double()])

    def _loss(self, batch, joined_pairs, loss_of):
        labels = torch.from_numpy(batch.labels).to(self.device, non_blocking=True)
        half = self.precision != "float32"
        with torch.autocast(self.device.type, DTYPES[self.precision] if half else None, enabled=half):
            logits = batch.logits(self.network, self.device)
        size = batch.list_size or 1
        losses, right = loss_of(logits.float().view(-1, size), labels.view(-1, size))
        return losses.sum() * size / joined_pairs, right.sum() * size

    def _pair_loss(self, logits, labels):
        return pair_losses(logits, labels, self.label_smoothing), (logits.detach() > 0) == (labels > 0.5)

    def _teacher_loss(self, logits, targets):
        return list_losses(logits, targets, self.distil)

    def _anchor_loss(self, logits, labels):
        return anchor_losses(logits, self.label_smoothing), (logits[:, :1] > logits[:, 1:]).float().mean(1)


def pair_losses(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Binary cross-entropy of each pair [P]. smoothing s: the target 1 becomes 1 - s / 2, and 0 becomes s / 2 (Szegedy
    et al., "Rethinking the Inception Architecture", section 7, for two classes)."""
    targets = labels * (1 - smoothing) + smoothing / 2 if smoothing else labels
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def anchor_losses(logits: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy [n] of the first of each row [n, K], an anchor's positive, among its negatives (van den Oord, Li
    and Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018, equation 4)."""
    first = logits.new_zeros(len(logits), dtype=torch.long)
    return F.cross_entropy(logits, first, reduction="none", label_smoothing=smoothing)


def list_losses(
    logits: torch.Tensor, targets: torch.Tensor, settings: DistilSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses [n] of a teacher's lists, logits and targets [n, K] (rrt/training/distillation.py), and of each list the
    share [n] of its pairs of candidates that are in the teacher's order."""
    losses = settings.regression * F.smooth_l1_loss(logits, targets, reduction="none").mean(1)
    if settings.divergence:
        wanted, given = (F.log_softmax(scores / settings.temperature, dim=1) for scores in (targets, logits))
        losses = losses + settings.divergence * F.kl_div(given, wanted, reduction="none", log_target=True).sum(1)
    better = targets[:, :, None] > targets[:, None, :]
    # Of equal logits half: a network that tells nothing apart is at chance.
    ordered = better * (1 + torch.sign(logits[:, :, None] - logits[:, None, :])) / 2
    # A list without a difference in it is in order whatever it gets.
    share = (ordered.sum((1, 2)) + 1e-9) / (better.sum((1, 2)) + 1e-9)
    return losses, share.detach()


def micro_batches(batch: PairBatch, max_tokens: int) -> list[PairBatch]:
    """The pairs of a batch in batches of about ``max_tokens`` tokens, or an eighth of a small batch, so that every
    thread has work; a query's pairs together where they fit, so that it is embedded once for them, and the pairs of a
    teacher's list in any case."""
    counts, size = batch.images.counts, batch.list_size or 1
    order = np.arange(len(batch.labels)) if batch.list_size else np.argsort(batch.query, kind="stable")
    order = order.reshape(-1, size)
    tokens = (TOKENS_BESIDE_LOCALS + counts[batch.query[order]] + counts[batch.candidate[order]]).sum(1)
    max_tokens = min(max_tokens, max(SMALLEST_TOKENS, int(tokens.sum()) // 8))
    parts, start, total = [], 0, 0
    for i, own in enumerate(tokens):
        if total and total + own > max_tokens:
            parts.append(order[start:i])
            start, total = i, 0
        total += int(own)
    return [_of_pairs(batch, pairs.ravel()) for pairs in [*parts, order[start:]]]


def _of_pairs(batch, pairs):
    needed, position = np.unique([batch.query[pairs], batch.candidate[pairs]], return_inverse=True)
    query, candidate = position.reshape(2, -1)
    return PairBatch(
        batch.images.take(needed), query, candidate, batch.labels[pairs], batch.joined_pairs, batch.list_size
    )


def _sharing_parameters(model):
    memo = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, memo)
