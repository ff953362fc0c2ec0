"""The two TensorRTs as Python packages, and whether they work here."""
