"""The parts of scripts/gpu_check.py; all but `stop` and `machine` import torch."""
