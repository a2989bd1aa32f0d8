"""How the shipped model `lite0` is made: the network in torch, its weights, and the ONNX file that is run."""
