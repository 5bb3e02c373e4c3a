"""What pydantic finds wrong, as a client is told it."""

from collections.abc import Iterable
from typing import Any


def told(errors: Iterable[Any]) -> str:
    """Where each error is, and what."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in errors)
