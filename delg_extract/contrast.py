"""Teaches the whole network that two pictures show the same landmark, before any classifier.

    python delg_extract/contrast.py --init_weights logs/pretrained/weights.h5 --train_list data/x/train.txt --image_dir data/x \
        --logdir logs/contrasted

A batch holds two pictures of each of some landmarks. Each has to find the other among all (InfoNCE), twice: by global descriptors, and by
late interaction of local ones (Khattab and Zaharia, ColBERT, SIGIR 2020): the mean over one picture's cells, weighted by attention, of
the cosine to the best cell of the other. That is how local descriptors are compared later, so they, and the attention, learn what they
are for. Afterwards the decoder of the autoencoder is fitted by least squares. A killed run continues from its last checkpoint.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import delg_extract  # noqa: F401, I001  (quiets TensorFlow before anything else loads it)
import numpy as np
import tensorflow as tf

from delg_extract.data import pair_batches, read_labelled_pictures
from delg_extract.model import Delg
from delg_extract.pretrain import Contrast, add_flags, fit, info_nce, other_light, start_model
from delg_extract.weights import save_weights
from rrt.errors import run_command

UNTRAINED = ("autoenc_conv2/",)
DECODER_BATCHES = 30


def late_interaction(ours: tf.Tensor, theirs: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Similarities [P, Q] of pictures with unit descriptors ours [P, N, D] and theirs [Q, M, D]; weights [P, N] sum to 1."""
    cosines = tf.einsum("pnd,qmd->pnqm", ours, theirs)
    return tf.einsum("pn,pnq->pq", weights, tf.reduce_max(cosines, -1))


class LandmarkContrast(Contrast):
    """One training step on pairs of pictures of a landmark."""

    def __init__(self, model: Delg, args: argparse.Namespace):
        names = tuple(n for n in model.variables_by_name if not n.startswith(UNTRAINED))
        super().__init__(model, args, names)

    @tf.function(reduce_retracing=True)
    def train_step(self, images, labels):
        """One Adam step on images [2 P, s, s, 3] and labels [2 P], the second half the partners of the first. Returns the loss and
        the shares of pictures whose partner is found by local and by global descriptors."""
        half = tf.shape(images)[0] // 2
        images = other_light(images, self.generator)
        with tf.GradientTape() as tape:
            conv4 = self.model.conv4(images, training=True)
            maps = self.model.local(self.model.block3(conv4), training=True)
            embedding = tf.nn.l2_normalize(self.model.embed(self.model.conv5(conv4, training=True)), axis=-1)
            descriptors = tf.nn.l2_normalize(maps.descriptors, axis=-1)
            descriptors = tf.reshape(descriptors, (2 * half, -1, descriptors.shape[-1]))
            attention = tf.reshape(maps.attention, (2 * half, -1)) + 1e-6
            weights = attention / tf.reduce_sum(attention, 1, keepdims=True)
            ours, theirs = descriptors[:half], descriptors[half:]
            similarities = (late_interaction(ours, theirs, weights[:half])
                            + tf.transpose(late_interaction(theirs, ours, weights[half:]))) / 2
            local_loss, local_hits = info_nce(similarities, self.args.temperature, labels[:half])
            similarities = tf.matmul(embedding[:half], embedding[half:], transpose_b=True)
            global_loss, global_hits = info_nce(similarities, self.args.temperature, labels[:half])
            loss = local_loss + global_loss
        self.descend(tape.gradient(loss, self.trained))
        return loss, local_hits, global_hits


def fit_decoder(model: Delg, data: tf.data.Dataset) -> None:
    """Sets the autoencoder's second layer to the least-squares way back from descriptors to conv4 cells."""
    @tf.function(reduce_retracing=True)
    def forward(images):
        cells = model.block3(model.conv4(images))
        return cells, model.local(cells).descriptors

    rows = [[x.numpy().reshape(-1, x.shape[-1]) for x in forward(images)] for images, _ in data.take(DECODER_BATCHES)]
    cells, descriptors = (np.concatenate(column) for column in zip(*rows))
    design = np.hstack([descriptors, np.ones((len(descriptors), 1), np.float32)])
    solution = np.linalg.lstsq(design, cells, rcond=None)[0].astype(np.float32)
    model.variables_by_name["autoenc_conv2/kernel"].assign(solution[None, None, :-1])
    model.variables_by_name["autoenc_conv2/bias"].assign(solution[-1])


def contrast(args: argparse.Namespace) -> Path:
    """Runs or continues the training of ``args`` (see ``parser``) and returns the path of the weight file."""
    pictures = read_labelled_pictures(args.train_list, args.image_dir, args.repeat, validation_fraction=0.0)
    model = start_model(args)

    def data_from(start):
        area = args.min_crop_area, args.max_crop_area
        return pair_batches(pictures, args.batch_size, args.image_size, args.seed, area, args.group, start)

    fit(LandmarkContrast(model, args), args, ("loss", "local", "global"), data_from)
    fit_decoder(model, data_from(0))
    return save_weights(Path(args.logdir) / "weights.h5", model, image_size=args.image_size, steps=args.max_iters)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(p, logdir="logs/contrasted", max_iters=1500, batch_size=24, min_crop_area=0.3, max_crop_area=1.0, temperature=0.05)
    p.add_argument("--group", type=int, default=1, help="classes that follow each other in the lists and come into a batch together, "
                   "so that look-alikes are told apart; for tools/make_scenes.py its --family (default %(default)s)")
    return p


def main() -> None:
    args = parser().parse_args()
    print(f"wrote {contrast(args)}")


if __name__ == "__main__":
    run_command(main)
