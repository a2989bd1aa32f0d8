"""Training on several devices and machines by tf.distribute: which devices, who writes, and what each replica reads.

Several GPUs of a machine: MirroredStrategy, by itself. Several machines: the same command on each, with TF_CONFIG set
as TensorFlow documents it, and --logdir on a disk that all see. Results depend on the number of replicas only through
the batch norms, whose statistics are those of a replica's share of the batch, as in the reference.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from delg_extract.network.tensorflow import tf
from rrt.errors import InputError


def make_strategy() -> tf.distribute.Strategy:
    """MultiWorkerMirrored when TF_CONFIG names a cluster, Mirrored over several local devices; one device needs none.

    Raises InputError when TF_CONFIG is not what TensorFlow expects.
    """
    if "TF_CONFIG" in os.environ:
        try:
            cluster = json.loads(os.environ["TF_CONFIG"]).get("cluster")
            return tf.distribute.MultiWorkerMirroredStrategy() if cluster else tf.distribute.get_strategy()
        except (ValueError, AttributeError, TypeError) as error:
            raise InputError(f"TF_CONFIG: {error}; expected JSON with cluster.worker and task, or unset it") from None
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return (
        tf.distribute.MirroredStrategy([device.name for device in devices])
        if len(devices) > 1
        else tf.distribute.get_strategy()
    )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process prints, and writes what is kept."""
    resolver = strategy.cluster_resolver
    return (
        resolver is None
        or resolver.task_type in (None, "chief")
        or (resolver.task_type == "worker" and resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs)
    )


def check_shares(strategy: tf.distribute.Strategy, batch_size: int) -> None:
    """InputError unless every replica gets equally many images."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise InputError(
            f"--batch_size {batch_size} cannot be shared by {replicas} replicas; give a multiple of {replicas}"
        )


def distributed_batches(strategy: tf.distribute.Strategy, batches, batch_size: int, skip_steps: int = 0):
    """Batches over all replicas, that together hold the rows that one replica would get.

    ``batches(batch_size, skip_steps, shard)``: a dataset of a worker's batches, ``shard`` = (worker, workers).
    """
    replicas = strategy.num_replicas_in_sync

    def of_worker(context):
        local = replicas // context.num_input_pipelines  # replicas of a worker take turns at its batches
        return batches(
            batch_size // replicas, skip_steps * local, (context.input_pipeline_id, context.num_input_pipelines)
        )

    return strategy.distribute_datasets_from_function(of_worker)


def share_of_each(strategy: tf.distribute.Strategy, *arrays):
    """Arrays whose first dimension divides by the replicas, cut among them."""
    replicas = strategy.num_replicas_in_sync

    def share(array):
        rows = len(array) // replicas
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                array[context.replica_id_in_sync_group * rows : (context.replica_id_in_sync_group + 1) * rows]
            )
        )

    return tuple(map(share, arrays))


def checkpoint_folder(strategy: tf.distribute.Strategy, logdir: Path) -> Path:
    """Where this process saves: every worker has to take part in saving, and only the chief's files are kept."""
    return logdir / "checkpoints" if is_chief(strategy) else Path(tempfile.mkdtemp(prefix="delg_worker_"))
