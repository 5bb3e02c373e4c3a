"""What can go wrong in an export. Every message says what to change."""


class ExportError(Exception):
    """The network did not become an artifact; nothing was written."""
