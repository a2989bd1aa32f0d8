"""Run by tests/delg_extract/training/test_distribution.py with DELG_CPU_REPLICAS=2: a training on two replicas,
then a first step of the same trainer on a batch of noise, and one on one replica with the joined batch. The gradients
are what the momenta of a first step are.

Both halves of the batch show the same images under different labels, because batch norms take the statistics of a
replica's half.

    python tests/helpers/two_replicas.py RESULT FLAGS_OF_TRAIN...
"""

import sys

import numpy as np

from delg_extract.network.model import Delg
from delg_extract.network.tensorflow import tf
from delg_extract.training import run
from delg_extract.training.distribution import share_of_each
from delg_extract.training.flags import parse
from delg_extract.training.losses import add_classifiers
from delg_extract.training.step import CLIP_NORM, Trainer

result, *flags = sys.argv[1:]
args = parse("", flags)
trainers, make = [], run.build_trainer
run.build_trainer = lambda *given, **how: trainers.append(make(*given, **how)) or trainers[0]
run.train(args)
(two,) = trainers
assert two.strategy.num_replicas_in_sync == 2
for variable in (two.step_count, *two.optimizer.momenta):
    variable.assign(tf.zeros_like(variable))
model = Delg(**two.model.settings, values={n: v.numpy() for n, v in two.model.variables_by_name.items()})
add_classifiers(model, args.num_classes)
one = Trainer(model, args)

rng = np.random.default_rng(0)
half = rng.uniform(-1, 1, (args.batch_size // 2, args.image_size, args.image_size, 3)).astype(np.float32)
images, labels = np.concatenate([half, half]), np.arange(args.batch_size, dtype=np.int32) % args.num_classes
results = {}
joined = tf.constant(images), tf.constant(labels)
for name, trainer, batch in (("one", one, joined), ("two", two, share_of_each(two.strategy, images, labels))):
    step = trainer.train_step(*batch)
    clipped_rate = args.initial_lr * min(1, CLIP_NORM / float(step.gradient_norm))
    results |= {f"{name}/step": np.array([float(x) for x in step])}
    results |= {f"{name}/gradient/{i}": m.numpy() / -clipped_rate for i, m in enumerate(trainer.optimizer.momenta)}
    results |= {f"{name}/after/{key}": v.numpy() for key, v in trainer.model.variables_by_name.items() if v.trainable}
assert two.train_step.experimental_get_tracing_count() == 1  # it was that of the training
np.savez(result, **results)
