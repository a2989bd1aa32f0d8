"""Run by tests/delg_extract/training/test_distribution.py with DELG_CPU_REPLICAS=2: a step on two replicas, and on one
with the joined batch, whose gradients are what the momenta of a first step are.

Both halves of the batch show the same images under different labels, because batch norms take the statistics of a
replica's half.
"""

import sys

import numpy as np

from delg_extract.network.model import Delg
from delg_extract.network.tensorflow import tf
from delg_extract.training.distribution import make_strategy, share_of_each
from delg_extract.training.flags import parse
from delg_extract.training.losses import add_classifiers
from delg_extract.training.step import CLIP_NORM, Trainer

args = parse(
    "", ["--train_list", "x", "--image_dir", "x", "--backbone", "small", "--delg_global_features", "--max_iters", "10"]
)
rng = np.random.default_rng(0)
half = rng.uniform(-1, 1, (3, 97, 97, 3)).astype(np.float32)
images, labels = np.concatenate([half, half]), np.array([0, 1, 2, 3, 4, 0], np.int32)


def trainer_on(strategy, values=None):
    with strategy.scope():
        model = Delg("small", seed=3, values=values)
        add_classifiers(model, 5)
    return Trainer(model, args, strategy)


strategy = make_strategy()
assert strategy.num_replicas_in_sync == 2
one = trainer_on(tf.distribute.get_strategy())
two = trainer_on(strategy, {name: variable.numpy() for name, variable in one.model.variables_by_name.items()})
results = {}
joined = tf.constant(images), tf.constant(labels)
for name, trainer, batch in (("one", one, joined), ("two", two, share_of_each(strategy, images, labels))):
    step = trainer.train_step(*batch)
    clipped_rate = args.initial_lr * min(1, CLIP_NORM / float(step.gradient_norm))
    results |= {f"{name}/step": np.array([float(x) for x in step])}
    results |= {f"{name}/gradient/{i}": m.numpy() / -clipped_rate for i, m in enumerate(trainer.optimizer.momenta)}
    results |= {f"{name}/after/{key}": v.numpy() for key, v in trainer.model.variables_by_name.items() if v.trainable}
np.savez(sys.argv[1], **results)
