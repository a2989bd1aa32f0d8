"""Run by tests/delg_extract/training/test_distribution.py with DELG_CPU_REPLICAS=2: gradients and a step on two
replicas, and on one with the joined batch.

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
from delg_extract.training.step import Trainer

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


def loss_and_gradients(trainer, batch):
    def of_replica(images, labels):
        losses, _, gradients = trainer.gradients(images, labels)
        return losses.total, gradients

    @tf.function(autograph=False)
    def run(images, labels):
        return trainer.strategy.run(of_replica, args=(images, labels))

    total, gradients = run(*batch)
    total = sum(float(x) for x in trainer.strategy.experimental_local_results(total))
    return total, [trainer.strategy.experimental_local_results(gradient)[0].numpy() for gradient in gradients]


strategy = make_strategy()
assert strategy.num_replicas_in_sync == 2
one = trainer_on(tf.distribute.get_strategy())
two = trainer_on(strategy, {name: variable.numpy() for name, variable in one.model.variables_by_name.items()})
results = {}
joined = tf.constant(images), tf.constant(labels)
for name, trainer, batch in (("one", one, joined), ("two", two, share_of_each(strategy, images, labels))):
    total, gradients = loss_and_gradients(trainer, batch)
    step = trainer.train_step(*batch)
    results |= {f"{name}/total": total, f"{name}/step": np.array([float(x) for x in step])}
    results |= {f"{name}/gradient/{i}": gradient for i, gradient in enumerate(gradients)}
    results |= {f"{name}/after/{key}": v.numpy() for key, v in trainer.model.variables_by_name.items() if v.trainable}
np.savez(sys.argv[1], **results)
