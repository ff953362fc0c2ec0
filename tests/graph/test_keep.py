import pytest

from tmdeploy.errors import UsageError
from tmdeploy.graph.precision import GROUPS, parse_keep


def test_the_option_of_the_set():
    assert parse_keep(None) == GROUPS
    assert parse_keep("planner, Gelu") == ("planner", "Gelu")
    assert parse_keep("+Gelu,-softmax") == ("planner", "size", "layernorm", "Gelu")
    with pytest.raises(UsageError, match="with and without a sign"):
        parse_keep("+Gelu,softmax")
    with pytest.raises(UsageError, match="'Gelu' is not in the set"):
        parse_keep("-Gelu")
