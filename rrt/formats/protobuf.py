"""Protobuf message classes made at run time from a table of their fields: nothing is compiled, and every table has a
pool of its own, so that nothing collides with another program's classes of the same names."""

from google.protobuf import descriptor_pb2, message_factory


def message_classes(package, messages, oneofs=None):
    """{message: class} of a table of proto2 messages.

    messages: {message: {field: (number, type)}} or (number, type, default as text); a type is a message of the table or
    a number's, "bool" or "string", in a list when the field is repeated. oneofs: {message: {name: fields}}.
    """
    field_types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        alternatives = (oneofs or {}).get(message_name, {})
        for name in alternatives:
            message.oneof_decl.add(name=name)
        for field_name, (number, kind, *default) in fields.items():
            repeated = isinstance(kind, list)
            (kind,) = kind if repeated else [kind]
            field = message.field.add(name=field_name, number=number)
            field.label = field_types.LABEL_REPEATED if repeated else field_types.LABEL_OPTIONAL
            if kind in messages:
                field.type, field.type_name = field_types.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = getattr(field_types, f"TYPE_{kind.upper()}")
                if repeated and kind != "string":
                    field.options.packed = True
            if default:
                (field.default_value,) = default
            for index, members in enumerate(alternatives.values()):
                if field_name in members:
                    field.oneof_index = index
    # Of the ways to a class this is the one that protobuf 4.21 to 7 share.
    classes = message_factory.GetMessages([file])
    return {name: classes[f"{package}.{name}"] for name in messages}
