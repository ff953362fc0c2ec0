"""The parts of scripts/same_artifacts.py."""
