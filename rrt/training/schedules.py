"""Optimisers and learning-rate schedules of the training settings (docs/protocol.md 4)."""

import math
from bisect import bisect_right

import torch


def make_optimizer(model, settings) -> torch.optim.Optimizer:
    """The optimiser named by ``settings.optim``; ``no_bias_decay`` spares vectors (biases, norms) the weight decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": parameters, "weight_decay": settings.weight_decay}]
    if settings.no_bias_decay:
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
    if settings.optim == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[settings.optim]
    return kind(groups, lr=settings.lr, fused=True)


def learning_rate(step: int, batches_per_epoch: int, settings) -> float:
    """Learning rate of optimiser step ``step`` (from 0, those of a teacher's and of the planted batches included).

    Those of a teacher come first and have a rate and a course of their own (``settings.distil``); then
    multistep: lr * gamma ** (number of ``scheduler_tau`` that epoch has reached; epochs count from the first after the
    planted steps). cos: half a cosine from lr to 0 over the whole run. During the first ``warmup_steps``, which None
    makes 500 for the warm ones and 0 for the others, the rate rises linearly instead.
    """
    distilled = settings.optimiser_steps(settings.distil.steps)
    if step < distilled:
        return _distillation_rate(step, distilled, settings.distil)
    step -= distilled
    planted, per_epoch = map(settings.optimiser_steps, (settings.planted_steps, batches_per_epoch))
    total = planted + settings.epochs * per_epoch
    warmup = settings.warmup_steps
    if warmup is None:
        warmup = 500 if settings.scheduler.startswith("warm") else 0
    warmup = min(warmup, total)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.scheduler.endswith("cos"):
        return _half_cosine(settings.lr, step - warmup, total - warmup)
    epoch = max(0, step - planted) // per_epoch
    return settings.lr * settings.scheduler_gamma ** bisect_right(sorted(settings.scheduler_tau), epoch)


def _distillation_rate(step, total, settings):
    warmup = min(settings.warmup_steps, total)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.scheduler == "constant":
        return settings.lr
    return _half_cosine(settings.lr, step - warmup, total - warmup)


def _half_cosine(rate, step, total):
    return rate * 0.5 * (1 + math.cos(math.pi * step / max(1, total)))
