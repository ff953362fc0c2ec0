"""Validation that understands merging."""
