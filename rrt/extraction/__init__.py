"""Images to descriptors without TensorFlow: the shipped `lite0`, ONNX files, the extraction of image lists."""
