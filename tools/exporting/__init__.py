"""What tools/export.py makes of a checkpoint: a slim one, and ONNX models."""
