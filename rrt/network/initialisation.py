"""How the network starts: as published, or already comparing descriptors.

With Xavier weights a token's attention to a matching token is as weak as to any other, and the published network needs
some hundred thousand pairs to discover that equal descriptors matter (docs/protocol.md 8). ``matching`` starts it
there: following Trockman and Kolter ("Mimetic Initialization of Self-Attention Layers", ICML 2023), the product of
query and key weights is near a multiple of the identity and the product of value and output weights near a negative
one. Only starting values differ: names, shapes and everything computed stay those of the published network.
"""

import math

import torch

from rrt.errors import check_choice

INITIALISATIONS = ("published", "matching")
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
