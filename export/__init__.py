"""From a PyTorch network to a verified ONNX artifact. Start reading at pipeline.py."""
