"""Graph passes, one a file. Each takes an onnx_ir model and changes it in place."""
