"""What clients of the Open Inference Protocol v2 send and get."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, FailFast, Field

from service.statistics import Duration, Record

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


def statistics(record: Record) -> dict[str, Any]:
    """As Triton's statistics extension has it; times in nanoseconds."""
    return {
        "last_inference": round(record.last * 1000),
        "inference_count": record.images,
        "execution_count": record.executions,
        "inference_stats": {
            "success": _duration(record.success),
            "fail": _duration(record.fail),
            "queue": _duration(record.queue),
            "compute_input": _duration(record.decode),
            "compute_infer": _duration(record.infer),
            "compute_output": _duration(record.answer),
            "cache_hit": _duration(Duration()),
            "cache_miss": _duration(Duration()),
        },
        "batch_stats": [
            {
                "batch_size": n,
                "compute_input": _duration(Duration()),
                "compute_infer": _duration(Duration(round(run.count / n), run.seconds / n)),
                "compute_output": _duration(Duration()),
            }
            for n, run in sorted(record.runs.items())
        ],
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": round(duration.seconds * 1e9)}
