"""API keys: who is asking, and how much they may ask for.

The file is JSON: {"keys": [{"name": "shop", "key": "…", "megapixels_per_s": 20}]}. It is read when
the service starts. Only digests of the keys are kept, and nothing here ever logs or shows one.
"""

import hashlib
import hmac
import logging
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from service.budget import Budget
from service.settings import MEGA
from service.workers import Number

logger = logging.getLogger(__name__)

_BURST_S = 10  # of the rate, where the file does not say how much at once
_SHORTEST = 16


class KeysError(Exception):
    """The keys file cannot be used; says which file and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Client:
    """Whoever holds a key; `admin` may control models."""

    name: str
    admin: bool = False
    budget: Budget | None = None


class KeyEntry(BaseModel):
    """One key of the file: itself, or its SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[\w.-]{1,64}$")
    key: SecretStr | None = None
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    megapixels_per_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    burst_megapixels: float | None = Field(None, gt=0, allow_inf_nan=False)
    admin: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("give either key or sha256")
        if self.key is not None:
            text = self.key.get_secret_value()
            if len(text) < _SHORTEST or not (
                text.isascii() and text.isprintable() and " " not in text
            ):
                raise ValueError(f"a key has at least {_SHORTEST} ASCII characters and no space")
        if self.burst_megapixels is not None and self.megapixels_per_s is None:
            raise ValueError("burst_megapixels needs megapixels_per_s")
        return self

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key."""
        if self.key is None:
            return bytes.fromhex(self.sha256 or "")
        return _digest(self.key.get_secret_value())

    def client(self, spent: Number) -> Client:
        """Its holder; what of the budget is spent is kept in `spent`."""
        budget = None
        if self.megapixels_per_s is not None:
            burst = self.burst_megapixels or _BURST_S * self.megapixels_per_s
            budget = Budget(self.megapixels_per_s * MEGA, burst * MEGA, full_at=spent)
        return Client(self.name, self.admin, budget)


class KeysFile(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    keys: list[KeyEntry] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, values in (
            ("name", [entry.name for entry in self.keys]),
            ("key", [entry.digest for entry in self.keys]),
        ):
            if len(set(values)) < len(values):
                raise ValueError(f"two entries have the same {what}")
        return self


class Keys:
    """Every key there is."""

    def __init__(
        self, entries: Sequence[KeyEntry], number: Callable[[str], Number] | None = None
    ) -> None:
        """number: by name, what all workers share; without it this process is alone."""
        self._clients = [
            (entry.digest, entry.client(Number() if number is None else number(entry.name)))
            for entry in entries
        ]

    def find(self, sent: str) -> Client | None:
        """Who holds the key that was sent, if anybody does.

        Digests are compared, all of them and each in constant time: how long it takes tells
        nothing about any key.
        """
        digest, found = _digest(sent), None
        for known, client in self._clients:
            if hmac.compare_digest(known, digest):
                found = client
        return found

    def __iter__(self) -> Iterator[Client]:
        return (client for _, client in self._clients)


def read_keys(path: Path) -> KeysFile:
    """What a keys file says; raises KeysError."""
    try:
        return KeysFile.model_validate_json(path.read_bytes())
    except OSError as exc:
        raise KeysError(f"{path}: {exc.strerror}") from exc
    except ValidationError as exc:
        said = "; ".join(_said(error) for error in exc.errors(include_url=False))
        raise KeysError(f"{path}: {said}") from None  # the cause would show what is in the file


def load_keys(path: Path, number: Callable[[str], Number] | None = None) -> Keys:
    """The keys of a file; raises KeysError. Warns when others on the machine may read them.

    number: see Keys
    """
    file = read_keys(path)
    plain = any(entry.key is not None for entry in file.keys)
    if plain and path.stat().st_mode & stat.S_IROTH:
        logger.warning("%s holds keys and everybody here may read it: chmod o-r", path)
    return Keys(file.keys, number)


def _said(error: ErrorDetails) -> str:
    """What is wrong where, and nothing of what stands there: it could be a key."""
    where, what = error["loc"], error["msg"]
    if error["type"] == "extra_forbidden":
        where, what = where[:-1], f"unknown field; there are {', '.join(KeyEntry.model_fields)}"
    return f"{'.'.join(map(str, where)) or 'the file'}: {what}"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
