"""Processes, files and caches: what every other package may use."""
