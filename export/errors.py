"""What can go wrong in an export. Every message says what to change."""


class ExportError(Exception):
    """The network did not become an artifact; nothing was written."""


class VersionExistsError(ExportError):
    """That version of the artifact is there already; artifacts are never overwritten."""


class CaptureError(ValueError):
    """The network cannot become an artifact; the message says why and what to change."""
