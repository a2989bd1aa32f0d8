"""Starting weights of the network: equal tensors, other values."""

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from rrt.errors import InputError
from rrt.network.initialisation import INITIALISATIONS, initialise
from rrt.network.model import RRT


def pairs(noise=0.1, seed=1, count=24, local=30, dim=128):
    """Arguments of ``forward`` of pairs whose images share a rising number of noisy descriptors, all of one query, and
    the mean of the best cosines in both directions, [count]."""
    torch.manual_seed(seed)
    query = F.normalize(torch.randn(1, local, dim), dim=2).repeat(count, 1, 1)
    candidate = F.normalize(torch.randn(count, local, dim), dim=2)
    for pair, number in enumerate(torch.linspace(0, local, count).long()):
        candidate[pair, :number] = F.normalize(query[0, :number] + noise * torch.randn(number, dim), dim=1)
    cosine = query @ candidate.transpose(1, 2)
    matching = (cosine.amax(2).mean(1) + cosine.amax(1).mean(1)) / 2
    no_mask, scales = torch.zeros(count, local, dtype=torch.bool), torch.full((count, local), 3)
    globals_ = F.normalize(torch.randn(1, 200), dim=1).repeat(count, 1)
    rest = (no_mask, scales, torch.zeros(count, local, 2))
    return (globals_, query, *rest, globals_, candidate, *rest), matching.numpy()


def order(kind, arguments, matching, **settings):
    torch.manual_seed(0)
    model = RRT(200, **settings).eval()
    initialise(model, kind)
    with torch.no_grad():
        logits = model(*arguments).numpy()
    return spearmanr(logits, matching).statistic, logits


def test_a_maxsim_start_follows_plain_matching_and_no_other_does():
    arguments, matching = pairs()
    for heads in (1, 2, 4, 8):
        followed, logits = order("maxsim", arguments, matching, nhead=heads)
        assert followed > 0.98 and 0.5 < logits.std() < 4 and abs(logits.mean()) < 4
    assert order("published", arguments, matching)[0] < 0.9


def test_one_head_and_two_layers_follow_weak_matches_best():
    arguments, matching = pairs(noise=0.2, seed=2)
    small = {"nhead": 1, "num_encoder_layers": 2, "dim_feedforward": 512}
    best, published = (order("maxsim", arguments, matching, **settings)[0] for settings in (small, {}))
    assert best > 0.97 and 0.9 < published < best


def test_a_maxsim_start_hears_the_global_descriptors():
    arguments, matching = pairs()
    other = (arguments[0], *arguments[1:5], F.normalize(torch.randn(1, 200), dim=1).repeat(24, 1), *arguments[6:])
    same, different = (order("maxsim", given, matching)[1] for given in (arguments, other))
    assert (same > different).all()


@pytest.mark.parametrize("kind", INITIALISATIONS)
def test_names_and_shapes_are_those_of_the_published_network(kind):
    model = RRT(16, 128)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    initialise(model, kind)
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


@pytest.mark.parametrize(
    "settings",
    [{"activation": "gelu"}, {"normalize_before": True}, {"num_encoder_layers": 1}, {"dim_feedforward": 256}],
)
def test_a_network_that_cannot_compute_matching_is_refused(settings):
    with pytest.raises(InputError, match="initialisation=maxsim: needs"):
        initialise(RRT(16, 128, **settings), "maxsim")
