"""What clients of the Open Inference Protocol v2 send."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

Parameters = dict[str, Any]


class InputTensor(BaseModel):
    """One input: its data as JSON, or as bytes behind the JSON."""

    name: str
    shape: list[Annotated[int, Field(ge=0, lt=2**31)]]
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
    inputs: list[InputTensor]
    outputs: list[RequestedOutput] = []
