"""What clients of the Open Inference Protocol v2 send."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, FailFast, Field

Parameters = dict[str, Any]

# Only the first error is looked for: a million of them take minutes and gigabytes.
_T = TypeVar("_T")
_Few = Annotated[list[_T], FailFast(), Field(max_length=100)]


class InputTensor(BaseModel):
    """One input: its data as JSON, or as bytes behind the JSON."""

    name: str
    shape: _Few[Annotated[int, Field(ge=0, lt=2**31)]]
    datatype: str
    parameters: Parameters = {}
    data: list[Any] | None = None


class RequestedOutput(BaseModel):
    """An output that is wanted, and how."""

    name: str
    parameters: Parameters = {}


class InferRequest(BaseModel):
    """The JSON of an inference request. What else stands in it is ignored, as the protocol asks."""

    id: str = ""
    parameters: Parameters = {}
    inputs: _Few[InputTensor]
    outputs: _Few[RequestedOutput] = []
