"""A name that nobody knows is answered with those that would have done, wherever it stands."""

from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct, field

from hostler.kernel.fields import known_fields


class Lamp(Struct, forbid_unknown_fields=True):
    colour: str = "white"
    watts: int = 60


class Buoy(Struct, forbid_unknown_fields=True):
    lamp: Lamp | None = None
    spare: Annotated[tuple[Lamp, ...], Meta(max_length=3)] = ()
    by_name: dict[str, Lamp] = {}
    class_: str = field(default="", name="class")


LAMP = ", known are colour, watts; did you mean colour?"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"lampe": {}}, ", known are by_name, class, lamp, spare; did you mean lamp?"),
        ({"x": {}}, ", known are by_name, class, lamp, spare"),
        ({"lamp": {"color": "red"}}, LAMP),
        ({"spare": [{}, {"color": "red"}]}, LAMP),
        ({"by_name": {"aft": {"color": "red"}}}, LAMP),
        ({"lamp": {"watts": "many"}}, ""),
        ({"class": 3}, ""),
    ],
)
def test_it_is_answered_with_the_names_of_the_place_that_it_stands_in(value: Any, words: str) -> None:
    with pytest.raises(msgspec.ValidationError) as wrong:
        msgspec.convert(value, Buoy)
    assert known_fields(wrong.value, Buoy) == words


def test_a_name_that_may_not_be_given_is_not_offered() -> None:
    with pytest.raises(msgspec.ValidationError) as wrong:
        msgspec.convert({"lampe": {}}, Buoy)
    assert known_fields(wrong.value, Buoy, besides=("lamp", "class")) == ", known are by_name, spare"
