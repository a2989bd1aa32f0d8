"""SavedModels for tests: TF1 graphs as the published models are, and TF2 exports of any computation; a network quick to
save."""

import sys
from contextlib import contextmanager

import numpy as np
import pytest
from tiny_delg import TINY

from delg_extract.export import main
from delg_extract.extraction.pyramid import level_size
from delg_extract.extraction.serving import SPECS, Form, describe
from delg_extract.network.level import Level, level_weights
from delg_extract.network.model import BACKBONES, Delg, normalize_pixels
from delg_extract.network.tensorflow import tf

INPUTS = {name: (spec.dtype, spec.shape) for name, spec in SPECS.items()}
LOCAL_OUTPUTS = ("boxes", "features", "scales", "scores")
LOCAL_INPUTS, GLOBAL_INPUTS = Form(global_=False).inputs, Form(local=False).inputs


@contextmanager
def tiny_backbone():
    """A backbone of few layers and channels, quick to save, by the name "tiny"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", TINY)
        yield


def tiny_model(**settings):
    """A tiny network whose batch norms and biases do something, so that folding shows."""
    model = Delg("tiny", seed=1, **{"local_dim": 24, **settings})
    rng = np.random.default_rng(0)
    for name, variable in model.variables_by_name.items():
        if name.rsplit("/")[-1] in ("gamma", "beta", "moving_mean", "moving_variance", "bias"):
            variable.assign(variable + rng.uniform(0, 0.3, variable.shape))
    return model


def random_images(height, width, count=1, seed=0):
    """Images of blocks, so that neighbouring cells differ."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, -(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((1, 8, 8, 1), np.uint8))[:, :height, :width]


def plain_level(model, image, scale):
    """One scale through the whole network as it is trained: nothing folded, nothing thinned."""
    size = [level_size(side, scale) for side in image.shape[:2]]
    conv4 = model.conv4(tf.image.resize(normalize_pixels(image)[None], size))
    maps = model.local(model.block3(conv4))
    return maps.attention[0].numpy(), maps.descriptors[0].numpy(), model.embed(model.conv5(conv4))[0].numpy()


def save_tf1(folder, inputs, values, build):
    """A TF1-style SavedModel without signatures, tensors named as in the published models, old variables and control
    flow.

    ``values``: numpy arrays by variable name; ``build(inputs, variables) -> outputs``, all by name.
    """
    tf.compat.v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            placeholders = {name: tf.compat.v1.placeholder(*INPUTS[name], name=name) for name in inputs}
            # So that nothing comes out right unless the variables are really restored.
            zeros = tf.compat.v1.zeros_initializer()
            variables = {
                name: tf.compat.v1.get_variable(name, value.shape, initializer=zeros, use_resource=False)
                for name, value in values.items()
            }
            for name, tensor in build(placeholders, variables).items():
                tf.identity(tensor, name=name)
            session.run(
                [variable.initializer for variable in variables.values()],
                {variable.initializer.inputs[1]: values[name] for name, variable in variables.items()},
            )
            builder = tf.compat.v1.saved_model.Builder(str(folder))
            builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING])
            builder.save()
    finally:
        tf.compat.v1.enable_control_flow_v2()
    return folder


def save_delg_tf1(folder, model, form=None):
    """The TF1-style export of a network, by default of all it gives."""
    form = form or Form()
    weights = level_weights(model)

    def build(placeholders, variables):
        return describe(Level(model, tf.nest.pack_sequence_as(weights, list(variables.values()))), form, placeholders)

    return save_tf1(
        folder, form.inputs, {f"weight_{i}": array for i, array in enumerate(tf.nest.flatten(weights))}, build
    )


def save_tf2(folder, inputs, module, call):
    """A TF2 export whose ``serving_default`` takes ``inputs`` by name; ``call(inputs) -> outputs by name`` uses
    variables of ``module``."""
    spec = [tf.TensorSpec(INPUTS[name][1], INPUTS[name][0], name) for name in inputs]
    module.serve = tf.function(lambda *tensors: call(dict(zip(inputs, tensors))), input_signature=spec, autograph=False)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def toy(inputs, weights, outputs, own_scales=(0.5, 2.0)):
    """Scores are the red pixels of the first row; a global descriptor is the mean colour times scale and gain."""
    pixels = tf.cast(inputs["input_image"], tf.float32)
    scales = inputs.get("input_scales", tf.constant(own_scales))
    found = {}
    if "features" in outputs:
        scores, order = tf.nn.top_k(pixels[0, :, 0], inputs["input_max_feature_num"])
        number = tf.reduce_sum(tf.cast(scores >= inputs["input_abs_thres"], tf.int32))
        x = tf.cast(order, tf.float32)
        found = {
            "boxes": tf.stack([0 * x, x, 0 * x, x], 1)[:number],
            "features": tf.gather(pixels[0], order)[:number] * weights["gain"],
            "scales": tf.fill([number], 1 / scales[0]),
            "scores": scores[:number, None],
        }
    rows = tf.reduce_mean(pixels, (0, 1)) * scales[:, None] * weights["gain"]
    if "input_global_scales_ind" in inputs:
        rows = tf.gather(rows, inputs["input_global_scales_ind"])
    if "global_descriptors" in outputs:
        found["global_descriptors"] = rows
    if "global_descriptor" in outputs:
        found["global_descriptor"] = tf.reduce_sum(rows, 0)
    return found


GAIN = 3.0


def save_toy(style, folder, inputs, *outputs):
    if style == "tf1":
        return save_tf1(folder, inputs, {"gain": np.float32(GAIN)}, lambda given, weights: toy(given, weights, outputs))
    module = tf.Module()
    module.gain = tf.Variable(GAIN)
    return save_tf2(folder, inputs, module, lambda given: toy(given, {"gain": module.gain}, outputs))


def signature(folder):
    """What a SavedModel is called through."""
    return tf.saved_model.load(str(folder)).signatures["serving_default"]


def strongest(folder):
    found = signature(folder)(
        input_image=tf.constant(random_images(64, 64)[0]),
        input_scales=tf.constant([1.0]),
        input_max_feature_num=tf.constant(1),
        input_abs_thres=tf.constant(0.0),
    )
    return float(found["scores"][0, 0])


def run_export(monkeypatch, *arguments):
    """Runs the command in this process."""
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
    return main()
