"""SavedModels of both styles for tests, made by the rules of DELG_SPEC 4 from a Delg network: TF1 graphs and TF2 exports."""
import copy

import tensorflow as tf

from delg_extract.model import normalize_pixels

FIELD_CORNER = 145.0
INPUTS = {
    "input_image": (tf.uint8, [None, None, 3]), "input_scales": (tf.float32, [None]), "input_abs_thres": (tf.float32, []),
    "input_max_feature_num": (tf.int32, []), "input_global_scales_ind": (tf.int32, [None]),
}
LOCAL_INPUTS = ("input_image", "input_scales", "input_abs_thres", "input_max_feature_num")
GLOBAL_INPUTS = ("input_image", "input_scales", "input_global_scales_ind")


def delg_outputs(model, inputs, local=True, global_=True):
    """The tensors of the reference's exports as graph operations: a loop over the scales, boxes, threshold, suppression at 1.0."""
    image, scales = normalize_pixels(inputs["input_image"]), inputs["input_scales"]
    sides = tf.cast(tf.shape(image)[:2], tf.float32)

    def level(i, arrays):
        scale = scales[i]
        resized = tf.image.resize(image[None], tf.cast(tf.round(sides * scale), tf.int32))
        conv4 = model.conv4(resized)
        found = {}
        if local:
            maps = model.local(model.block3(conv4))
            height, width = tf.shape(maps.attention)[1], tf.shape(maps.attention)[2]
            y, x = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
            centres = tf.reshape(tf.stack([y, x, y, x], -1), [-1, 4])
            boxes = float(model.stride) * tf.cast(centres, tf.float32) + [-FIELD_CORNER, -FIELD_CORNER, FIELD_CORNER, FIELD_CORNER]
            attention = tf.reshape(maps.attention, [-1])
            keep = tf.where(attention >= inputs["input_abs_thres"])[:, 0]
            found = {"boxes": tf.gather(boxes / scale, keep), "scores": tf.gather(attention, keep)[:, None],
                     "features": tf.gather(tf.reshape(maps.descriptors, [-1, maps.descriptors.shape[-1]]), keep),
                     "scales": tf.fill([tf.size(keep)], 1.0 / scale)}
        if global_:
            wanted = tf.reduce_any(tf.equal(inputs["input_global_scales_ind"], i))
            embedding = model.embed(model.conv5(conv4))
            found["global_descriptors"] = tf.boolean_mask(embedding, tf.reshape(wanted, [1]))
        return i + 1, {name: array.write(i, found[name]) for name, array in arrays.items()}

    widths = {}
    if local:
        depth = model.local_dim or model.sizes.local_channels
        widths = {"boxes": [4], "features": [depth], "scales": [], "scores": [1]}
    if global_:
        widths["global_descriptors"] = [model.embedding_dim]
    arrays = {name: tf.TensorArray(tf.float32, tf.size(scales), element_shape=[None, *width], infer_shape=False)
              for name, width in widths.items()}
    _, arrays = tf.while_loop(lambda i, _: i < tf.size(scales), level, (tf.constant(0), arrays), parallel_iterations=1)
    out = {name: tf.ensure_shape(array.concat(), [None, *widths[name]]) for name, array in arrays.items()}
    if local:
        count = tf.minimum(inputs["input_max_feature_num"], tf.size(out["scales"]))
        best = tf.image.non_max_suppression(out["boxes"], out["scores"][:, 0], count, 1.0)
        out.update({name: tf.gather(out[name], best) for name in ("boxes", "features", "scales", "scores")})
    return out


def save_tf1(folder, inputs, values, build):
    """A TF1-style SavedModel without signatures, tensors named as in the published models, old variables and control flow.

    ``values``: numpy arrays by variable name; ``build(inputs, variables) -> outputs``, all by name.
    """
    tf.compat.v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            placeholders = {name: tf.compat.v1.placeholder(*INPUTS[name], name=name) for name in inputs}
            # So that nothing comes out right unless the variables are really restored.
            zeros = tf.compat.v1.zeros_initializer()
            variables = {name: tf.compat.v1.get_variable(name, value.shape, initializer=zeros, use_resource=False)
                         for name, value in values.items()}
            for name, tensor in build(placeholders, variables).items():
                tf.identity(tensor, name=name)
            session.run([variable.initializer for variable in variables.values()],
                        {variable.initializer.inputs[1]: values[name] for name, variable in variables.items()})
            builder = tf.compat.v1.saved_model.Builder(str(folder))
            builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING])
            builder.save()
    finally:
        tf.compat.v1.enable_control_flow_v2()
    return folder


def save_delg_tf1(folder, inputs, model, **heads):
    """The TF1-style export of a network; ``heads``: ``local`` and ``global_`` of ``delg_outputs``."""
    def build(placeholders, variables):
        twin = copy.copy(model)
        # Not as an attribute: the copy shares the original's list of tracked variables.
        vars(twin)["variables_by_name"] = variables
        return delg_outputs(twin, placeholders, **heads)

    return save_tf1(folder, inputs, {name: variable.numpy() for name, variable in model.variables_by_name.items()}, build)


def save_tf2(folder, inputs, module, call):
    """A TF2 export whose ``serving_default`` takes ``inputs`` by name; ``call(inputs) -> outputs by name`` uses variables of ``module``."""
    spec = [tf.TensorSpec(INPUTS[name][1], INPUTS[name][0], name) for name in inputs]
    module.serve = tf.function(lambda *tensors: call(dict(zip(inputs, tensors))), input_signature=spec, autograph=False)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def save_delg_tf2(folder, inputs, model, **heads):
    """The TF2 export of a network; ``heads``: ``local`` and ``global_`` of ``delg_outputs``."""
    module = tf.Module()
    module.network = model
    return save_tf2(folder, inputs, module, lambda given: delg_outputs(model, given, **heads))
