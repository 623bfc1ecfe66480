"""A description that cannot work is refused with what to write; one that can says what it means."""

import json
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.connectors.services.generic.pointers import MISSING, find, find_all, text_at
from hostler.connectors.services.generic.templates import fill, write_path
from hostler.kernel.errors import InvalidError

KIND: dict[str, Any] = {"name": "any.thing", "submit": {"path": "/do"}}
FOLLOWED = {**KIND, "id": "/id"}
READING = {"state": "/s", "states": {"ok": "succeeded"}}


@pytest.mark.row("002:281")
@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({}, 'kinds = [{name = "image.paint"'),
        ({"kinds": [{"name": "any.thing"}]}, "missing required field `submit`"),
        ({"kinds": [KIND, KIND]}, "a name is written twice"),
        ({"kinds": [{**KIND, "submit": {"path": "do"}}]}, r"\$\.kinds\[0\]\.submit\.path"),
        ({"kinds": [{**KIND, "submit": {"path": "/{id}"}}]}, r"{id} names nothing; there is {fence}, {job}, {kind}"),
        ({"kinds": [{**KIND, "submit": {"path": "/", "body": {"a": "{x"}}}]}, "a brace that means itself is written"),
        ({"kinds": [FOLLOWED]}, r'work = {status = {path = "/jobs/{id}"}}'),
        ({"kinds": [FOLLOWED], "work": {"status": {"path": "/{id}"}}}, r'reading = {state = "/status"'),
        ({"kinds": [KIND], "work": {"status": {"path": "/{payload/x}"}}}, "there is {fence}, {id}, {job}"),
        ({"kinds": [{**KIND, "stream": "sse"}]}, r'last = "\[DONE\]"'),
        ({"kinds": [{**KIND, "gather": True}]}, 'stream = "sse"'),
        ({"kinds": [{**KIND, "payload": {"type": "objekt"}}]}, "no JSON Schema"),
        ({"kinds": [{**KIND, "payload": {"$ref": "http://127.0.0.1/x"}}]}, "no JSON Schema"),
        ({"kinds": [KIND], "reading": {"state": "/s"}}, "which word means success"),
        ({"kinds": [KIND], "reading": {"states": {"ok": "succeeded"}}}, 'state = "/status"'),
        ({"kinds": [KIND], "errors": {"codes": {"x": "auth"}}}, 'code = "/error/code"'),
        ({"kinds": [KIND], "errors": {"statuses": {"99": "auth"}}}, r"\$\.errors\.statuses"),
        ({"kinds": [KIND], "health": {"state": "/s"}}, "state and states belong together"),
        ({"kinds": [KIND], "url": "x"}, "unknown field `url`"),
        ({"kinds": [{**KIND, "http_cache": {"enabled": True}}]}, 'submit = {method = "GET", ...}'),
    ],
)
def test_options_that_cannot_work_are_refused_with_what_to_write(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(InvalidError, match=r"options of connector http-json") as caught:
        build("http-json", url="http://127.0.0.1:9", options=options)
    assert hint.replace("\\", "") in caught.value.message


def test_a_kind_has_the_limits_that_it_names_and_the_usual_ones_beside() -> None:
    options = {"kinds": [{**FOLLOWED, "timeouts": {"idle": 600.0}}], "work": {"status": {"path": "/{id}"}}}
    (spec,) = build("http-json", url="http://127.0.0.1:9", options={**options, "reading": READING}).kinds()
    assert (spec.timeouts.idle, spec.timeouts.connect) == (600.0, 5.0)


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", {"a": [{"b": 1}, {"b": None}], "c/d": {"~": "x"}, "on": True}),
        ("/a/0/b", 1),
        ("/a/1/b", None),
        ("/c~1d/~0", "x"),
        ("/a/2", MISSING),
        ("/a/b", MISSING),
        ("/a/0/b/c", MISSING),
        ("/a/-1", MISSING),
    ],
)
def test_a_pointer_finds_its_value_or_nothing(pointer: str, value: object) -> None:
    document = {"a": [{"b": 1}, {"b": None}], "c/d": {"~": "x"}, "on": True}
    assert find(document, pointer) == value
    assert find_all(document, "/a/*/b") == [1, None]
    assert [text_at(document, one) for one in ("/on", "/a/0/b", "/a", None)] == ["true", "1", None, None]


def test_a_template_keeps_types_leaves_out_what_is_missing_and_quotes_paths() -> None:
    payload = json.dumps({"n": 3, "list": [1, {"x": None}], "text": "a/b ?"}).encode()
    scope = {"payload": payload, "job": "q.1", "fence": 2, "kind": "k"}
    body = {"n": "{payload/n}", "l": "{payload/list}", "no": "{payload/none}", "t": "{{{job}}}-{fence}", "k": [1, True]}
    assert fill(body, scope) == {"n": 3, "l": [1, {"x": None}], "t": "{q.1}-2", "k": [1, True]}
    assert write_path("/x/{payload/text}/{fence}", scope) == "/x/a%2Fb%20%3F/2"
