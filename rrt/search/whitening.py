"""Supervised (discriminative) whitening learned from matching pairs of pictures.

Mikolajczyk and Matas, ICCV 2007; for image retrieval Radenovic, Tolias and Chum, PAMI 2018, section 3.4. With x_i the
global descriptors, mu their mean and S the covariance of the differences of matching pairs,

    S = mean over matching pairs (i, j) of (x_i - x_j) (x_i - x_j)^T / 2
    y = unit length of V^T S^(-1/2) (x - mu)

V: the leading eigenvectors of the covariance of the descriptors so whitened, S^(-1/2) (x - mu). What differs between
pictures of the same thing is made equally strong in all directions before those are kept in which pictures differ most.
Few pairs do not determine S, and it is shrunk towards a multiple of the identity (Ledoit and Wolf 2004):
(1 - shrinkage) S + shrinkage trace(S) / r, over the r directions in which the training descriptors vary at all.
"""

import numpy as np

from rrt.errors import InputError
from rrt.search.exact import Whitening, fit_pca_whitening


def fit_supervised_whitening(x, dim, labels=None, pairs=None, power=0.5, shrinkage=0.5):
    """Learn a projection to `dim` dimensions from descriptors x [N, D] and their matching pairs -> Whitening.

    Matching are all pairs of equal labels [N], each counted once, or the rows of pairs int [P, 2], numbers below N.
    power: S is raised to -power; 0.5 whitens, 0 is PCA alone. shrinkage: 0..1, 1 is PCA alone, too. InputError without
    a matching pair, for `dim` beyond the directions that vary, and for a singular S (0 shrinkage and few pairs).
    """
    if (labels is None) == (pairs is None):
        raise ValueError("give labels or pairs")
    if not (0 <= shrinkage <= 1 and power >= 0 and dim >= 1):
        raise InputError(f"whitening with dim {dim}, power {power} and shrinkage {shrinkage}: dim must be at least 1,"
                         " power not negative, shrinkage within 0..1")
    if pairs is not None and not len(pairs):
        raise InputError("supervised whitening: no matching pairs; give some, or --method pca")
    if pairs is None and len(np.unique(labels)) == len(labels):
        raise InputError("supervised whitening: no two images have the same label; give --pairs, or --method pca")
    x = np.asarray(x, dtype=np.float32)
    # Outside of the span of the training descriptors S says nothing, and the last step would cut it off.
    basis = fit_pca_whitening(x, None, power=0)
    rank = basis.projection.shape[1]
    if dim > rank:
        raise InputError(f"whitening to {dim} dimensions: {len(x)} images of {x.shape[1]} dimensions vary in {rank}"
                         f" directions only; give a dim of at most {rank}, or more images")
    turn = basis.projection.astype(np.float64)
    turned = (x - basis.mean) @ turn
    if pairs is None:
        scatter = _covariance_of_labels(turned, np.asarray(labels))
    else:
        scatter = _covariance_of_pairs(turned, np.asarray(pairs))
    values, vectors = np.linalg.eigh(scatter)
    values = (1 - shrinkage) * np.maximum(values, 0) + shrinkage * values.mean()
    if power and values[0] <= 1e-10 * values[-1]:
        raise InputError(f"supervised whitening: the matching pairs differ in {np.sum(values > 1e-10 * values[-1])} of"
                         f" {rank} directions only; give a shrinkage above 0, or more pairs")
    whitened = vectors / values**power
    spread = np.cov((turned @ whitened).T, bias=True).reshape(rank, rank)
    rotation = np.linalg.eigh(spread)[1][:, ::-1][:, :dim]
    projection = turn @ whitened @ rotation
    # Eigenvectors come with an arbitrary sign; fixing it makes two runs comparable.
    projection *= np.sign(projection[np.abs(projection).argmax(axis=0), np.arange(dim)])
    return Whitening(basis.mean, projection.astype(np.float32))


def _covariance_of_labels(x, labels):
    """S of all pairs of equal labels: the differences of the n rows of a label have n times their scatter as sum."""
    total, count = np.zeros((x.shape[1], x.shape[1])), 0
    order = np.argsort(labels, kind="stable")
    bounds = np.flatnonzero(np.diff(labels[order])) + 1
    for rows in np.split(order, bounds):
        centred = x[rows] - x[rows].mean(axis=0)
        total += len(rows) * (centred.T @ centred)
        count += len(rows) * (len(rows) - 1) // 2
    return total / (2 * count)


def _covariance_of_pairs(x, pairs):
    total = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(pairs), 4096):
        first, second = pairs[start : start + 4096].T
        difference = x[first] - x[second]
        total += difference.T @ difference
    return total / (2 * len(pairs))
