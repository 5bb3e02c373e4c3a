"""Everything that can go wrong for a client, in one tree.

AnypoolError
├── BadRequest                     400 bad-request
├── Unauthorized                   401 unauthorized
├── Forbidden                      403 forbidden
├── NotFound                       404 not-found
├── RequestTimeout                 408 request-timeout
├── LimitExceeded                  413
│   ├── BodyTooLarge                   body-too-large
│   ├── TooManyImages                  too-many-images
│   └── TooManyPixels                  too-many-pixels
├── UnsupportedFormat              415 unsupported-format
├── Unprocessable                  422
│   ├── UndecodableImage               undecodable-image
│   ├── ImageTooSmall                  image-too-small
│   ├── ImageSizeNotSupported          image-size-not-supported
│   ├── BadAspect                      bad-aspect
│   └── BadParameter                   bad-parameter
├── InferenceFailed                500 inference-failed
├── TryAgain
│   ├── RateLimited                429 rate-limited
│   └── Unavailable                503
│       ├── Overloaded                 overloaded
│       ├── Draining                   draining
│       └── NotReady                   not-ready
└── DeadlineExceeded               504 deadline-exceeded

`status` is a hint for whoever speaks HTTP; nothing here knows about responses. `detail` names the
limit and the way out.
"""

from copy import copy
from typing import ClassVar, Self


class AnypoolError(Exception):
    """Something a client can be told: `type` and `title` name the kind, `detail` this case."""

    type: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def bare(self) -> Self:
        """The same error without what led to it, for keeping.

        A traceback holds frames, their callers and all they work on: the image, the engine, and
        where the error is kept. They would keep each other until the garbage collector comes.
        """
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)

    def of(self, what: str) -> "AnypoolError":
        """The same error, saying what it is about."""
        error = copy(self)
        error.detail = f"{what}: {self.detail}"
        error.__cause__ = self
        return error


class BadRequest(AnypoolError):
    type, title, status = "bad-request", "The request cannot be read", 400


class Unauthorized(AnypoolError):
    type, title, status = "unauthorized", "A key is needed", 401


class Forbidden(AnypoolError):
    type, title, status = "forbidden", "Not allowed here", 403


class NotFound(AnypoolError):
    type, title, status = "not-found", "No such model or version", 404


class RequestTimeout(AnypoolError):
    type, title, status = "request-timeout", "The request took too long to arrive", 408


class LimitExceeded(AnypoolError):
    status = 413


class BodyTooLarge(LimitExceeded):
    type, title = "body-too-large", "The body is too large"


class TooManyImages(LimitExceeded):
    type, title = "too-many-images", "Too many images in one request"


class TooManyPixels(LimitExceeded):
    type, title = "too-many-pixels", "Too many pixels"


class UnsupportedFormat(AnypoolError):
    type, title, status = "unsupported-format", "Not an image format that is accepted", 415


class Unprocessable(AnypoolError):
    status = 422


class UndecodableImage(Unprocessable):
    type, title = "undecodable-image", "The image is broken"


class ImageTooSmall(Unprocessable):
    type, title = "image-too-small", "The image is too small for the network"


class ImageSizeNotSupported(Unprocessable):
    type, title = "image-size-not-supported", "The network does not take this size"


class BadAspect(Unprocessable):
    type, title = "bad-aspect", "The image is too long for its width"


class BadParameter(Unprocessable):
    type, title = "bad-parameter", "A query parameter is wrong"


class InferenceFailed(AnypoolError):
    type, title, status = "inference-failed", "The network could not be run", 500


class TryAgain(AnypoolError):
    """Try again after `retry_after` seconds (a whole number, at least 1)."""

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = max(1, retry_after)


class RateLimited(TryAgain):
    type, title, status = "rate-limited", "The key's budget is spent", 429


class Unavailable(TryAgain):
    status = 503


class Overloaded(Unavailable):
    type, title = "overloaded", "The queue is full"


class Draining(Unavailable):
    type, title = "draining", "The service is shutting down"


class NotReady(Unavailable):
    type, title = "not-ready", "The service is not ready"


class DeadlineExceeded(AnypoolError):
    type, title, status = "deadline-exceeded", "The deadline passed before the image was run", 504
