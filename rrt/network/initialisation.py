"""How the network starts: as published, attending to equal descriptors, or as plain matching.

With Xavier weights a token's attention to a matching token is as weak as to any other, and the published network needs
some hundred thousand pairs to discover that equal descriptors matter (docs/protocol.md 8). ``matching`` starts it
there: following Trockman and Kolter ("Mimetic Initialization of Self-Attention Layers", ICML 2023), the product of
query and key weights is near a multiple of the identity and the product of value and output weights near a negative
one.

``maxsim`` writes plain matching (rrt/rerankers/maxsim.py) into the weights, as far as this architecture can compute it,
so that training begins where matching ends: in the first layer each token attends to the most similar of the other
image, its feed-forward network adds up the squares of their difference, and in the last layer CLS takes the mean over
all tokens. Six of the descriptors' dimensions, the last ones, are taken for what tokens need besides (_SCORE and others
below). Each head compares its share of the dimensions, so that one head follows matching best: untrained, on
descriptors of lite0, its logits have a correlation with matching in both directions of 0.98, those of the published
four heads of 0.95 (docs/models.md 6).

Only starting values differ: names, shapes and everything computed stay those of the published network.
"""

import math

import torch

from rrt.errors import InputError, check_choice
from rrt.network.model import Segment

INITIALISATIONS = ("published", "matching", "maxsim")
# Chosen on prototypes by how soon planted pairs of synthetic stores are told apart; not each checked singly.
_SELF_LOGIT = 5.5  # attention logit of a token with itself, in every head
_VALUE = 0.4  # attended values are subtracted from the residual with this weight
_RANDOM = 0.3  # what is left of the Xavier weights beside the identities
_EMBEDDING = 0.2  # likewise of the scale and segment embeddings, which would drown unit descriptors in the first layer


def initialise(model, kind: str = "published") -> None:
    """Set the starting weights of an ``RRT`` just made; random numbers come from torch's global generator."""
    check_choice("model.initialisation", kind, INITIALISATIONS)
    if kind == "published":
        return
    if kind == "maxsim":
        with torch.no_grad():
            _become_maxsim(model)
        return
    with torch.no_grad():
        model.scale_encoder.weight.mul_(_EMBEDDING)
        model.seg_encoder.weight.mul_(_EMBEDDING)
        for number, layer in enumerate(model.encoder.layers):
            # Descriptors enter the first layer with length 1; a LayerNorm gives tokens length sqrt(d).
            unit_input = number == 0 and not layer.normalize_before
            _match(layer.self_attn, token_length=1.0 if unit_input else math.sqrt(layer.norm1.normalized_shape[0]))


def _match(attention, token_length: float) -> None:
    dim = attention.out_proj.in_features
    # Each head sees 1/heads of a token's squared length, and divides the product by sqrt(d / heads).
    strength = math.sqrt(_SELF_LOGIT * math.sqrt(attention.num_heads * dim)) / token_length
    query, key, value = attention.in_proj_weight.mul_(_RANDOM).split(dim)
    shared = _orthogonal(dim)
    query.add_(shared, alpha=strength)
    key.add_(shared, alpha=strength)
    passed = _orthogonal(dim)
    value.add_(passed, alpha=math.sqrt(_VALUE))
    attention.out_proj.weight.mul_(_RANDOM).sub_(passed.T, alpha=math.sqrt(_VALUE))


def _orthogonal(dim: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(dim, dim))[0]


# Dimensions, counted from the last one, that hold something other than a descriptor: whether a local or a global token
# is of the query (+) or of the candidate (-), which tokens are global, how well a token is matched, and what CLS is
# and has read.
_LOCAL_SIDE, _GLOBAL_SIDE, _IS_GLOBAL, _SCORE, _MARK, _READ = range(-1, -7, -1)
_RESERVED = 6
# Chosen by the correlation with matching of lite0's descriptors, untrained.
_SHARPNESS = 15.0  # attention logit of two equal descriptors, in every head
_SIDES = 12.0  # logit that tokens of the other image have more than those of no image, these more than the own image
# Length of a side's mark. The norms divide by a token's length, of which a mark must be the most: it is the same in all
# tokens but for what the descriptor has in its dimension.
_MARKED = 4.0
_SUBTRACTED = 0.6  # of the match; the rest keeps the descriptor itself in the stream
_KNOTS, _STEP = 4, 0.2  # the square of a dimension of the difference, by straight lines between multiples of _STEP
_DIFFERENCE = 4.0  # weight of the sum of these squares in a token's score
_USUAL = 0.06  # square of a dimension after the norm, about which scores are centred
_READING = 0.5  # of the mean score in CLS
_SPREAD = 2.0  # of the logits of a query's candidates: about 1
_REMAINDER = 0.02  # what is left of the Xavier weights of outputs beside that, 0.1 of those of inputs


def _become_maxsim(model) -> None:
    layers, dim = model.encoder.layers, model.classifier.in_features
    first, last, heads = layers[0], layers[-1], layers[0].self_attn.num_heads
    free = dim - _RESERVED
    settings = model.settings
    if settings["activation"] != "relu" or settings["normalize_before"] or len(layers) < 2:
        raise InputError(
            "model.initialisation=maxsim: needs model.activation=relu, model.normalize_before=False and two layers or"
            " more; choose matching or published"
        )
    if dim // heads < 4 or settings["dim_feedforward"] < 4 * free:
        raise InputError(
            f"model.initialisation=maxsim: needs four dimensions a head and model.dim_feedforward of {4 * free} or more"
        )
    _mark_tokens(model, free)
    for layer in layers:
        attention = layer.self_attn
        attention.in_proj_weight.mul_(0.1)
        attention.out_proj.weight.mul_(_REMAINDER)
        layer.linear2.weight.mul_(_REMAINDER)
        for bias in (layer.linear1.bias, layer.linear2.bias):
            bias.zero_()
    _attend_to_matches(first.self_attn, free)
    _add_up_squares(first, free, min(_KNOTS, settings["dim_feedforward"] // (2 * free)))
    value, out = last.self_attn.in_proj_weight[2 * dim :], last.self_attn.out_proj.weight
    value[0], out[:, 0] = 0, 0
    value[0, _SCORE], out[_READ, 0] = 1, _READING
    model.classifier.weight.zero_()
    model.classifier.bias.zero_()
    model.classifier.weight[0, _READ] = _SPREAD


def _mark_tokens(model, free: int) -> None:
    """Global tokens become the first dimensions of their descriptor, which lead where it lies on principal
    components; segments say the side."""
    kept = min(free, model.remap.in_features)
    model.remap.weight.zero_()
    model.remap.weight[:kept, :kept] = torch.eye(kept)
    model.remap.bias.zero_()
    model.scale_encoder.weight.mul_(0.1)
    segments = model.seg_encoder.weight
    segments.zero_()
    for query, candidate, dimension in (
        (Segment.QUERY_LOCAL, Segment.CANDIDATE_LOCAL, _LOCAL_SIDE),
        (Segment.QUERY_GLOBAL, Segment.CANDIDATE_GLOBAL, _GLOBAL_SIDE),
    ):
        segments[query, dimension], segments[candidate, dimension] = _MARKED, -_MARKED
    segments[[Segment.QUERY_GLOBAL, Segment.CANDIDATE_GLOBAL], _IS_GLOBAL] = 1
    segments[Segment.CLS, _MARK], segments[Segment.SEP, _MARK] = 1, -1


def _attend_to_matches(attention, free: int) -> None:
    """Every head compares its share of the dimensions, and the two that tell the sides apart; what is attended to is
    subtracted."""
    heads, dim = attention.num_heads, attention.out_proj.in_features
    width = dim // heads
    # Logits are divided by the root of a head's width.
    root = width**0.25
    # A head sees 1/heads of a descriptor's squared length.
    strength = math.sqrt(_SHARPNESS * heads) * root
    query, key, value = attention.in_proj_weight.split(dim)
    for head in range(heads):
        rows = torch.arange(head * width, (head + 1) * width)
        own = torch.arange(head, free, heads)[: width - 2]
        compared = rows[: len(own)]
        query[compared, own] += strength
        key[compared, own] += strength
        value[compared, own] += 1
        attention.out_proj.weight[own, compared] -= _SUBTRACTED
        for row, side in zip(rows[-2:], (_LOCAL_SIDE, _GLOBAL_SIDE)):
            query[row], key[row] = 0, 0
            query[row, side] = math.sqrt(_SIDES) * root / _MARKED
            key[row, side] = -math.sqrt(_SIDES) * root / _MARKED


def _add_up_squares(layer, free: int, knots: int) -> None:
    """The feed-forward network writes the negative sum of the squared dimensions into the score, each square by
    straight lines between multiples of _STEP, the last one without an end."""
    each = torch.arange(free)
    for knot in range(knots):
        for sign, start in ((1, 2 * knot * free), (-1, (2 * knot + 1) * free)):
            rows = slice(start, start + free)
            layer.linear1.weight[rows] = 0
            layer.linear1.weight[start + each, each] = sign
            layer.linear1.bias[rows] = -_STEP * knot
            layer.linear2.weight[:, rows] = 0
            layer.linear2.weight[_SCORE, rows] = -_DIFFERENCE * _STEP * (2 if knot else 1)
    layer.linear2.bias[_SCORE] = _DIFFERENCE * _USUAL * free
