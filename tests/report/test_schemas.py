import json
import math

from tmdeploy.report.schemas.document import Result, json_text


class _Report(Result):
    error: float
    rows: tuple[dict[str, float], ...]


def test_what_json_does_not_have_is_null():
    report = _Report(error=math.nan, rows=({"a": math.inf}, {"a": 1.5}))
    wanted = {"error": None, "rows": [{"a": None}, {"a": 1.5}]}
    assert json.loads(report.to_json(), parse_constant=lambda word: 1 / 0) == wanted
    assert json.loads(json_text({"error": -math.inf, "rows": (math.nan,)})) == {"error": None, "rows": [None]}


def test_letters_stay_letters_where_they_can():
    assert '"→"' in json_text({"a": "→"})
    assert r'"\u2192"' in json_text({"a": "→"}, ascii_only=True)
