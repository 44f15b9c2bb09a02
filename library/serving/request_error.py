"""Why a request is refused: an error code for programs, a message for people, an HTTP status."""

# The codes are part of the JSON interface.
STATUSES = {
    "bad_form": 400,
    "other_origin": 403,
    "not_found": 404,
    "wrong_method": 405,
    "too_slow": 408,
    "too_large": 413,
    "too_many_pixels": 413,
    "wrong_type": 415,
    "no_image_format": 415,
    "no_image": 422,
    "damaged_image": 422,
    "unknown_class": 422,
    "bad_decision": 422,
    "failed": 500,
    "not_saved": 500,
    "busy": 503,
}


class RequestError(Exception):
    """A request that is refused.

    Args:
        code: One of STATUSES.
        message: One sentence, without a period.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUSES[code]

    @property
    def body(self) -> dict[str, str]:
        """The JSON object of the response."""
        return {"error": self.code, "message": str(self)}
