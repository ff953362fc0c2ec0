"""Latency, throughput and memory, measured side by side."""

from tmdeploy.lazy import called_as_verb

called_as_verb(__name__)
