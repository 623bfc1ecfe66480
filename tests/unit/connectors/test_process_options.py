"""A command that cannot work is refused with what to write."""

from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.kernel.errors import InvalidError

KINDS = [{"name": "any.thing"}]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"kinds": KINDS}, 'command = ["python3", "paint.py"]'),
        ({"command": ["cat"]}, 'kinds = [{name = "image.paint"}]'),
        ({"command": "cat", "kinds": KINDS}, "$.command"),
        ({"command": ["cat"], "kinds": [*KINDS, *KINDS]}, "a name is written twice"),
        ({"command": ["cat"], "kinds": KINDS, "ready": True}, "served = true"),
        ({"command": ["cat"], "kinds": KINDS, "exits": {"killed": "auth"}}, "$.exits"),
        ({"command": ["cat"], "kinds": KINDS, "limits": {"ram": 1}}, "ram"),
    ],
)
def test_options_that_cannot_work_are_refused_with_what_to_write(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(InvalidError, match="options of connector process") as caught:
        build("process", url="process:///x", options=options)
    assert hint in caught.value.message


def test_a_process_has_no_address_and_is_sent_no_credential() -> None:
    options: dict[str, Any] = {"command": ["cat"], "kinds": KINDS}
    with pytest.raises(InvalidError, match="leave the url out"):
        build("process", url="http://127.0.0.1:9", options=options)
    with pytest.raises(InvalidError, match=r"options\.inherit"):
        build("process", url="process:///x", options=options, api_key="sk-x")
