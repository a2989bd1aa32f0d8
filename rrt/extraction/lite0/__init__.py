"""How the shipped model `lite0` is made: the table of its blocks, their weights, and the ONNX file that is run."""
