from collections.abc import Iterator

import pytest

from tests.methods.cases import GUIDE
from tmdeploy.methods import METHODS


@pytest.fixture(autouse=True, scope="package")
def _methods_of_the_guide() -> Iterator[None]:
    for info in GUIDE:
        METHODS.add(info)
    yield
    METHODS.forget()
