"""What a call takes of what is counted and paid for."""

from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0)]


class Tokens(Struct, frozen=True, kw_only=True):
    """Tokens of one call, as its service counts them, or as they are expected."""

    input: Count = 0
    output: Count = 0

    @property
    def total(self) -> int:
        """Return both together."""
        return self.input + self.output
