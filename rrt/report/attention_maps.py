"""What the reranking transformer attends to in one pair of images: its attention weights, and summaries of them.

The network computes without the attention matrix (rrt/network/attention.py); here it is computed anew from the same
projections, softmax(q k^T / sqrt(e)), for one pair, where a thousand tokens, six layers and four heads are 97 MB.
Tokens are in the network's order, ``[CLS, Gq, Lq_1.., SEP, Gc, Lc_1..]`` (rrt/network/model.py).
"""

from dataclasses import dataclass

import numpy as np
import torch

from rrt.errors import InputError
from rrt.network.model import RRT, EncoderLayer
from rrt.network.pairs import lay_out_pairs, read_images

CLS, QUERY_GLOBAL = 0, 1


@dataclass(frozen=True)
class PairAttention:
    """Attention of one pair. weights float32 [layers, heads, T, T]: row i, column j is what token i takes of token j,
    rows sum to 1; logit: the network's; query_locals, candidate_locals: local descriptors of the two, T = both + 4."""

    weights: np.ndarray
    logit: float
    query_locals: int
    candidate_locals: int

    @property
    def query(self) -> slice:
        """Tokens of the query's local descriptors."""
        return slice(2, 2 + self.query_locals)

    @property
    def candidate(self) -> slice:
        """Tokens of the candidate's local descriptors."""
        return slice(4 + self.query_locals, None)

    def check(self, layer: int | None, head: int | None) -> None:
        """InputError for a layer or head that the network does not have."""
        for name, value, count in (("layer", layer, len(self.weights)), ("head", head, self.weights.shape[1])):
            if value is not None and not 0 <= value < count:
                raise InputError(f"{name} {value}: the network has {count}, counted from 0; give 0 to {count - 1}")

    def from_cls(self, layer: int | None = None, head: int | None = None) -> np.ndarray:
        """float32 [T]: what CLS, the one token that the classifier reads, takes of each token in a layer (None: the
        last), mean over the heads or of one."""
        self.check(layer, head)
        return _over_heads(self.weights[-1 if layer is None else layer], head)[CLS]

    def rollout(self, head: int | None = None) -> np.ndarray:
        """float32 [T]: CLS's row of the attention rollout, the product over the layers of (W + 1) / 2 with W the mean
        over the heads (Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, section 3): how much
        of each token's input reaches CLS when residual connections carry half."""
        self.check(None, head)
        row = np.eye(1, self.weights.shape[-1], CLS, dtype=np.float32)
        for weights in self.weights[::-1]:
            row = (row @ _over_heads(weights, head) + row) / 2
        return row[0]

    def mutual(self, layer: int | None = None, head: int | None = None) -> np.ndarray:
        """float32 [query_locals, candidate_locals]: how strongly two local descriptors attend to each other,

            m(i, j) = mean over layers and heads of sqrt(a(i -> j) a(j -> i)),

        the geometric mean of both directions, so that a token which everything attends to has no strong links by that
        alone. layer None: all but the last, because of the last one only CLS's row reaches the logit (of a network of a
        single layer: that one). head None: all.
        """
        self.check(layer, head)
        layers = self.weights[: max(1, len(self.weights) - 1)] if layer is None else self.weights[[layer]]
        if head is not None:
            layers = layers[:, [head]]
        found = np.zeros((self.query_locals, self.candidate_locals), np.float32)
        for weights in layers.reshape(-1, *layers.shape[2:]):
            found += np.sqrt(weights[self.query, self.candidate] * weights[self.candidate, self.query].T)
        return found / (layers.shape[0] * layers.shape[1])


def strongest_links(mutual: np.ndarray, number: int) -> np.ndarray:
    """The ``number`` largest cells (i, j) of ``mutual`` [n, m] by falling strength, int64 [k, 2], no row and no column
    twice: of the links of a descriptor the strongest stands for all. Cells of 0 are none. Equal ones: the first."""
    rows, columns = mutual.shape
    free_rows, free_columns, links = np.ones(rows, bool), np.ones(columns, bool), []
    for cell in np.argsort(-mutual, axis=None, kind="stable"):
        i, j = divmod(int(cell), columns)
        if len(links) == number or mutual[i, j] <= 0:
            break
        if free_rows[i] and free_columns[j]:
            free_rows[i] = free_columns[j] = False
            links.append((i, j))
    return np.array(links, np.int64).reshape(-1, 2)


def pair_attention(
    model: RRT, store, query: int, candidate: int, max_local: int | None = 500, binning: str = "published"
) -> PairAttention:
    """The attention weights of the pair (query, candidate), indices in the store, and its logit, in float32.

    max_local, binning: as the model was trained (``rrt.Reranker``). Raises InputError for descriptors that are not
    finite.
    """
    images = read_images(store, np.array([query, candidate]), max_local, binning)
    layout = lay_out_pairs(images.offsets, np.array([0]), np.array([1]))
    device = model.seg_encoder.weight.device
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            global_, descriptors, scales, rows, segments = (
                torch.as_tensor(array).to(device)
                for array in (images.global_, images.descriptors, images.scales, layout.rows, layout.segments)
            )
            tokens = model.image_bank(global_, descriptors.float(), scales)[rows] + model.seg_encoder(segments)
            weights, logit = _forward(model, tokens)
    finally:
        model.train(training)
    return PairAttention(weights, logit, *images.counts.tolist())


def _forward(model: RRT, x: torch.Tensor) -> tuple[np.ndarray, float]:
    """The network over one sequence x [T, d]: weights [layers, heads, T, T] and the logit."""
    found = []
    for layer in model.encoder.layers:
        assert isinstance(layer, EncoderLayer)
        projected = layer.project(x).unflatten(1, (3, layer.self_attn.num_heads, -1))
        query, key, value = (part.transpose(0, 1) for part in projected.unbind(1))
        weights = torch.softmax(query @ key.transpose(1, 2) * query.shape[-1] ** -0.5, dim=-1)
        found.append(weights.cpu().numpy())
        x = layer.after_attention(x, layer.self_attn.out_proj((weights @ value).transpose(0, 1).flatten(1)))
    cls = x[:1] if model.encoder.norm is None else model.encoder.norm(x[:1])
    return np.stack(found), float(model.classifier(cls))


def _over_heads(weights: np.ndarray, head: int | None) -> np.ndarray:
    return weights.mean(0) if head is None else weights[head]
