"""Shared fixtures; hypothesis runs the same examples everywhere."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "tmdeploy", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tmdeploy")
