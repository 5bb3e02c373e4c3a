"""Which anypool this is."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """The installed version; "unknown" in a folder that was never installed."""
    try:
        return installed("anypool")
    except PackageNotFoundError:
        return "unknown"
