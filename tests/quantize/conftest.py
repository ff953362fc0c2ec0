from tests.engine.conftest import exported

__all__ = ["exported"]
