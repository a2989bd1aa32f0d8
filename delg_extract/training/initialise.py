"""A starting point from data, for short schedules: the heads begin as principal components of ImageNet features.

The published recipe starts conv5 and the heads from noise and needs hundreds of thousands of steps. Here
- conv5 without ImageNet weights starts as the identity on conv4: the shortcut of l5a copies the conv4 channels, every
  residual branch ends in a batch norm with gamma zero, so that block4 equals conv4 (and random mixtures of it in the
  second half);
- the embedding starts as PCA whitening of the GeM vectors, the autoencoder as PCA whitening of conv4 cells and its
  inverse: it reconstructs what plain PCA would, but local descriptors compare better when every component weighs the
  same;
- the attention starts as the magnitude of a cell: ImageNet features are strong on things and weak on sky and road;
- a class's cosine weight starts as the mean embedding of its images ("imprinting", Qi et al., CVPR 2018), and its
  weights of the attention classifier as its mean pooled vector less the mean of all, times the factor that fits the
  labels best.

Every value is only a start: the joint loss trains it further.
"""

from __future__ import annotations

import numpy as np

from delg_extract.data.moments import Moments
from delg_extract.network.model import BATCH_NORM_EPSILON, Delg, attention_pool, gem
from delg_extract.network.tensorflow import tf
from rrt.progress import bar
from rrt.store.linear import l2_normalize

_CELLS_OF_AN_IMAGE = 16
# Components of the embedding weaker than this one are damped instead of blown up to unit variance.
_WHITENING_RANK = 256


def identity_conv5(model: Delg, seed: int = 0) -> None:
    """block4[..., :C] = conv4, block4[..., C:] = random non-negative mixtures of conv4, C = local_channels."""
    v, channels = model.variables_by_name, model.sizes.local_channels
    rng = np.random.default_rng(seed)
    kernel = np.zeros((1, 1, channels, model.sizes.global_channels), np.float32)
    kernel[0, 0, :, :channels] = np.eye(channels)
    extra = model.sizes.global_channels - channels
    kernel[0, 0, :, channels:] = rng.standard_normal((channels, extra)) / np.sqrt(channels)
    v["res5a_branch1/kernel"].assign(kernel)
    v["res5a_branch1/bias"].assign(np.zeros(model.sizes.global_channels, np.float32))
    for block in model.stage_blocks(5):
        v[f"bn{block}_branch2c/gamma"].assign(np.zeros(model.sizes.global_channels, np.float32))


def _pass_over(data: tf.data.Dataset, model: Delg, steps: int, batch_statistics: bool, seed: int):
    """Samples of conv4 cells [M, C], GeM vectors [N, G], attention-pooled conv4 [N, C] and labels [N] of ``steps``
    batches."""

    @tf.function(reduce_retracing=True, autograph=False)
    def forward(images):
        conv4 = model.conv4(images, batch_statistics)
        block3 = model.block3(conv4)
        pooled = gem(model.conv5(conv4, batch_statistics), model.gem_power)
        return block3, pooled, attention_pool(block3, model.local(block3, batch_statistics).attention)

    rng = np.random.default_rng(seed)
    cells, *columns = [], [], [], []
    for images, batch_labels in bar(data.take(steps), "initialise", "step", steps):
        block3, *vectors = (x.numpy() for x in forward(images))
        flat = block3.reshape(len(block3), -1, block3.shape[-1])
        cells.append(flat[:, rng.integers(0, flat.shape[1], _CELLS_OF_AN_IMAGE)].reshape(-1, flat.shape[-1]))
        for column, values in zip(columns, (*vectors, batch_labels.numpy())):
            column.append(values)
    return np.concatenate(cells), *(np.concatenate(column) for column in columns)


def _components_of(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean [D], variances [D] falling and components [D, D], a column each, of the rows of x [N, D]."""
    moments = Moments(x.shape[1])
    moments.add(x)
    mean, values, components = moments.principal_components()
    return mean, values, components.T


def _calibrate_shortcut(model: Delg, cells: np.ndarray) -> None:
    """Makes the batch norm behind l5a's shortcut the identity for the given conv4 cells, in training mode too."""
    v = model.variables_by_name
    out = cells @ v["res5a_branch1/kernel"].numpy()[0, 0]
    mean, variance = out.mean(0), out.var(0)
    v["bn5a_branch1/moving_mean"].assign(mean)
    v["bn5a_branch1/moving_variance"].assign(variance)
    v["bn5a_branch1/gamma"].assign(np.sqrt(variance + BATCH_NORM_EPSILON))
    v["bn5a_branch1/beta"].assign(mean)


def initialise_heads(
    model: Delg,
    data: tf.data.Dataset,
    steps: int,
    classifier_only: bool = False,
    batch_statistics: bool = False,
    seed: int = 0,
) -> None:
    """Sets embedding, autoencoder and cosine weights from ``steps`` batches of (images, labels); see the module's text.

    ``classifier_only``: only the cosine weights (the network comes from a weight file). ``batch_statistics``: batch
    norms work as in training (for a trunk that starts from noise, whose moving averages mean nothing yet).
    """
    cells, pooled, pooled_local, labels = _pass_over(data, model, steps, batch_statistics, seed)
    if not classifier_only:
        set_autoencoder(model, cells)
        set_attention(model, cells)
        if not model.variables_by_name["bn5a_branch2c/gamma"].numpy().any():
            _calibrate_shortcut(model, cells)
        if model.use_global:
            _set_embedding(model, pooled)
    if "cosine_weights" in model.variables_by_name:
        _imprint(model, pooled, labels)
    if "att_fc/kernel" in model.variables_by_name:
        _imprint_local(model, pooled_local, labels)


def set_autoencoder(model: Delg, cells: np.ndarray) -> None:
    """Principal components of the cells [M, C], whitened, and the way back."""
    if not model.local_dim:
        return
    v = model.variables_by_name
    mean, values, vectors = _components_of(cells)
    basis = vectors[:, : model.local_dim]
    deviation = np.sqrt(values[: model.local_dim] + 1e-8 * values[0])
    encoder, decoder = (basis / deviation).astype(np.float32), (basis * deviation).T.astype(np.float32)
    v["autoenc_conv1/kernel"].assign(encoder[None, None])
    v["autoenc_conv1/bias"].assign(-mean @ encoder)
    v["autoenc_conv2/kernel"].assign(decoder[None, None])
    v["autoenc_conv2/bias"].assign(mean)


def set_attention(model: Delg, cells: np.ndarray) -> None:
    """Every hidden unit sums its share of the (non-negative) channels; the score is the standardised mean of the
    units."""
    v = model.variables_by_name
    channels, units = v["attn_conv1/kernel"].numpy().shape[2:]
    shares = (np.arange(channels)[:, None] % units == np.arange(units)).astype(np.float32)
    sums = cells @ shares
    v["attn_conv1/kernel"].assign(shares[None, None])
    v["attn_conv1/bias"].assign(np.zeros(units, np.float32))
    v["attn_bn1/moving_mean"].assign(sums.mean(0))
    v["attn_bn1/moving_variance"].assign(sums.var(0))
    v["attn_bn1/gamma"].assign(np.ones(units, np.float32))
    v["attn_bn1/beta"].assign(np.full(units, 2, np.float32))  # two deviations above the ReLU's bend: nearly linear
    mean_unit = np.maximum((sums - sums.mean(0)) / np.sqrt(sums.var(0) + BATCH_NORM_EPSILON) + 2, 0).mean(1)
    v["attn_conv2/kernel"].assign(np.full((1, 1, units, 1), 1 / (units * mean_unit.std()), np.float32))
    v["attn_conv2/bias"].assign(np.array([-mean_unit.mean() / mean_unit.std()], np.float32))


def _set_embedding(model: Delg, pooled: np.ndarray) -> None:
    v = model.variables_by_name
    mean, values, vectors = _components_of(pooled)
    damping = values[min(_WHITENING_RANK, len(values)) - 1]
    projection = (vectors / np.sqrt(values + damping))[:, : model.embedding_dim].astype(np.float32)
    v["embedding_layer/kernel"].assign(projection)
    v["embedding_layer/bias"].assign((-mean @ projection).astype(np.float32))


def _imprint(model: Delg, pooled: np.ndarray, labels: np.ndarray) -> None:
    v = model.variables_by_name
    embeddings = pooled @ v["embedding_layer/kernel"].numpy() + v["embedding_layer/bias"].numpy()
    embeddings = l2_normalize(embeddings)
    weights = v["cosine_weights"].numpy()
    for label in np.unique(labels):
        weights[:, label] = embeddings[labels == label].mean(0)
    v["cosine_weights"].assign(weights)


def _imprint_local(model: Delg, pooled: np.ndarray, labels: np.ndarray) -> None:
    v = model.variables_by_name
    mean = pooled.mean(0)
    kernel = np.zeros_like(v["att_fc/kernel"].numpy())
    for label in np.unique(labels):
        kernel[:, label] = pooled[labels == label].mean(0) - mean
    # The class whose mean is nearest has the largest x.k - |k|^2 / 2.
    logits = (pooled - mean) @ kernel - (kernel * kernel).sum(0) / 2
    losses = {}
    for factor in 2.0 ** np.arange(0, 12):
        shifted = factor * (logits - logits.max(1, keepdims=True))
        losses[factor] = np.mean(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels])
    best = min(losses, key=losses.__getitem__)
    v["att_fc/kernel"].assign(best * kernel)
    v["att_fc/bias"].assign(best * (-mean @ kernel - (kernel * kernel).sum(0) / 2))
