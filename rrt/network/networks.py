"""The kinds of networks by name: what decides which network some settings, or a checkpoint, mean."""

from rrt.errors import InputError, check_choice
from rrt.network.checkpoint import Checkpoint, load_weights
from rrt.network.encoded_store import EncodedGallery
from rrt.network.initialisation import initialise
from rrt.network.late import LATE, LATE_SETTINGS
from rrt.network.late_scorer import LateScorer
from rrt.network.model import DEFAULT_SETTINGS, RRT
from rrt.network.precision import ScoringSettings
from rrt.network.scorer import Scorer
from rrt.network.scoring import PairScorer

Network = RRT | LATE
# {kind: its settings with their defaults}. Settings without a kind, as those of every published network, are RRT's.
KINDS = {"RRT": DEFAULT_SETTINGS, "LATE": LATE_SETTINGS}


def make_network(settings: dict, initialisation: str = "published") -> Network:
    """A new network of these settings, the one of ``model`` in checkpoints. LATE always starts as matching."""
    settings = dict(settings)
    kind = settings.pop("kind", "RRT")
    check_choice("model.kind", kind, tuple(KINDS))
    unknown = sorted(settings.keys() - KINDS[kind].keys())
    if unknown:
        raise InputError(f"model has an unknown setting '{unknown[0]}'; known: {', '.join(KINDS[kind])}")
    if kind == "LATE":
        if initialisation != "published":
            raise InputError(f"model.initialisation={initialisation}: is of model.RRT; leave it out with model.LATE")
        return LATE(**settings)
    network = RRT(**settings)
    initialise(network, initialisation)
    return network


def open_network(checkpoint: Checkpoint, given: dict | None = None) -> Network:
    """The network of a checkpoint with its weights. given: settings for a checkpoint that records none. Raises
    InputError."""
    network = make_network(recorded_architecture(checkpoint, given or {}))
    load_weights(network, checkpoint)
    return network


def recorded_architecture(checkpoint: Checkpoint, given: dict) -> dict:
    """The settings of the network that a checkpoint records, else ``given`` (published checkpoints record nothing).

    A setting given that is neither the recorded value nor its kind's default was meant: then InputError instead of
    overruling it.
    """
    recorded = checkpoint.settings.get("model", {})
    kind = given.get("kind", "RRT")
    check_choice("model.kind", kind, tuple(KINDS))
    there = {"kind": "RRT"} | recorded if recorded else {"kind": kind}
    for name, value in given.items():
        if name in there and value not in (there[name], KINDS[kind].get(name, "RRT")):
            raise InputError(
                f"{checkpoint.path}: another architecture: it was made with model.{name}={there[name]}, the settings"
                f" say {value}; leave model.{name} out"
            )
    return given | recorded if kind == there["kind"] else recorded


def make_scorer(
    network: Network,
    store,
    max_local,
    binning="published",
    device="cpu",
    settings: ScoringSettings | None = None,
    gallery: EncodedGallery | None = None,
) -> PairScorer:
    """What scores the images of a store with this network. gallery: of images that a LATE encoded before."""
    if isinstance(network, LATE):
        return LateScorer(network, store, max_local, binning, device, settings, gallery=gallery)
    return Scorer(network, store, max_local, binning, device, settings)
