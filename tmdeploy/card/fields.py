"""What the documents of artifacts are made of: their base, bounds of their fields, and how damage in them is named."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

LARGEST = 2**31 - 1  # of what counts tokens: beyond any ViT
Side = Annotated[int, Field(ge=1, le=1 << 14)]  # pixels; a bound on what a file may make us allocate
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


def _encodable(text: object) -> object:
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


# A file name, of which bytes that are no UTF-8 are written as `\udcff`: a document could not hold them.
FileName = Annotated[str, BeforeValidator(_encodable)]


class Frozen(BaseModel):
    """Part of a document: it cannot be changed, and has no fields but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def first_problem(error: ValidationError) -> str:
    """The first thing pydantic found, as `field: what`."""
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"])
    what = found["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
