"""What TensorBoard shows of a training run: `tensorboard --logdir LOGDIR/train_logs`. Tags are those of the reference
(docs/delg.md 2.6)."""

from __future__ import annotations

from pathlib import Path

from delg_extract.network.tensorflow import tf

PICTURES = 8
FLUSH_MILLIS = 10_000
TAGS = {
    "total": "loss/total",
    "global": "loss/desc/crossentropy",
    "attention": "loss/attn/crossentropy",
    "reconstruction": "loss/recon/mse",
    "gradient_norm": "gradient_norm",
    "global_accuracy": "train_accuracy/desc",
    "local_accuracy": "train_accuracy/attn",
}


class Summaries:
    """Writes event files below ``folder``; with None nothing is written (summaries off, or another worker writes
    them)."""

    def __init__(self, folder: str | Path | None):
        self.writer = (
            tf.summary.create_file_writer(str(folder), flush_millis=FLUSH_MILLIS)
            if folder
            else tf.summary.create_noop_writer()
        )

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers by tag."""
        with self.writer.as_default(step):
            for tag, value in values.items():
                tf.summary.scalar(tag, value)

    def pictures(self, step: int, images: tf.Tensor, attention: tf.Tensor) -> None:
        """Statistics of the attention [B, h, w], and the first images of a batch [B, H, W, 3] (normalised) plain and
        with attention.

        The scores of an image are shown relative to its largest one, as in the reference; beside it the image dimmed
        by them.
        """
        with self.writer.as_default(step):
            ordered = tf.sort(tf.reshape(attention, [-1]))
            last = tf.cast(tf.size(ordered) - 1, tf.float32)
            for tag, value in (
                ("max", ordered[-1]),
                ("min", ordered[0]),
                ("mean", tf.reduce_mean(ordered)),
                *((f"percent_{p}", ordered[tf.cast(last * p / 100, tf.int32)]) for p in (25, 50, 75)),
            ):
                tf.summary.scalar(f"attention/{tag}", value)
            tf.summary.scalar("image_range/max", tf.reduce_max(images))
            tf.summary.scalar("image_range/min", tf.reduce_min(images))
            shown = tf.clip_by_value((images[:PICTURES] + 1) / 2, 0, 1)
            scores = attention[:PICTURES, ..., None]
            scores = tf.image.resize(
                scores / (tf.reduce_max(scores, (1, 2), keepdims=True) + 1e-3), tf.shape(images)[1:3]
            )
            tf.summary.image("batch_images", shown, max_outputs=PICTURES)
            tf.summary.image("batch_attention", tf.clip_by_value(scores, 0, 1), max_outputs=PICTURES)
            tf.summary.image(
                "batch_images_with_attention",
                shown * tf.clip_by_value(0.15 + 0.85 * scores, 0, 1),
                max_outputs=PICTURES,
            )
