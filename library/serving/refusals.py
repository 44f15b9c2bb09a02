"""Why a request is refused: a word for programs, a sentence for people, an HTTP status."""

# Word → status. The words are part of what the endpoint promises.
STATUSES = {
    "bad_form": 400,
    "wrong_host": 400,
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
    "failed": 500,
    "busy": 503,
}


class RefusedError(Exception):
    """A request that gets no answer but this. `word` is one of STATUSES, the text says more."""

    def __init__(self, word, text):
        super().__init__(text)
        self.word = word
        self.status = STATUSES[word]

    @property
    def body(self):
        """The answer, as JSON has it."""
        return {"error": self.word, "message": str(self)}
