"""What calls take of an entry's limits, and which limits cannot be kept account of."""

import json

import msgspec
import pytest
from msgspec import Raw

from hostler.connectors.catalogue import build
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.service import Failed, Finished, ServiceCall
from hostler.contracts.timeouts import SERVICE_TIMEOUTS
from hostler.dispatch.account import Account
from hostler.kernel.errors import InvalidError
from hostler.kernel.settings import PriceSettings

OPENAI = build("openai-http", url="http://127.0.0.1:9")
SIMULATION = build("simulation-http", url="http://127.0.0.1:9")
DEAR = PriceSettings(input=1_000_000, output=2_000_000)


def call(kind: str = "chat.complete", /, **payload: object) -> ServiceCall:
    sealed = Raw(json.dumps(payload).encode())
    return ServiceCall(job_id="j", fence=1, kind=kind, payload=sealed, timeouts=SERVICE_TIMEOUTS, tenant="blue")


def expected(limit: str, asked: ServiceCall, price: PriceSettings | None = None) -> int:
    ((want, _),) = Account(OPENAI, [limit], price).wants(asked)
    return want.units


@pytest.mark.parametrize("word", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_expected_are_a_token_for_four_bytes_and_as_many_as_the_answer_may_have(word: str) -> None:
    asked = call(messages="x" * 100, n=3, **{word: 50})
    size = -(-len(bytes(asked.payload)) // 4)
    assert expected("100000 tokens/min", asked) == size + 150
    assert expected("100000 tokens/min", call()) == 1 + 1024
    assert expected("100000 tokens/min", call("embed.create", input="word")) == 5
    assert expected("100000 cents/day", call(max_tokens=50), DEAR) == 1000 * (5 + 2 * 50)


def test_more_than_may_go_at_once_is_asked_for_as_just_that() -> None:
    assert expected("1000 tokens/min burst 300", call(max_tokens=5000)) == 300


def test_what_no_connector_would_take_is_still_accounted_for() -> None:
    assert expected("100000 tokens/min", call(max_tokens="many")) == 6 + 1024
    assert Account(OPENAI, ["9 tokens/min burst 9"]).wants(msgspec.structs.replace(call(), payload=Raw(b"[]")))


def test_used_is_what_the_service_counted_nothing_when_it_refused_and_as_expected_when_nobody_knows() -> None:
    account = Account(OPENAI, ["100000 tokens/min", "100 cents/day per tenant", "3/s", "in_flight 2"], DEAR)
    asked = call(max_tokens=50)
    wants = [want for want, _ in account.wants(asked)]
    tokens, cents = wants[0].limit.name, wants[1].limit.name
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    counted = Finished(result=Raw(json.dumps({"usage": usage}).encode()))
    assert account.used(asked, wants, counted) == {tokens: 10, cents: 13_000}
    assert account.used(asked, wants, Finished(result=Raw(b'{"usage": null}'))) == {}
    for class_, known in ((FailureClass.OVERLOADED, {tokens: 0, cents: 0}), (FailureClass.TIMEOUT, {})):
        failed = Failed(failure=Failure(class_=class_, message="words"))
        assert account.used(asked, wants, failed) == known


@pytest.mark.parametrize("counted", [10**12, 10**400], ids=["much", "endless"])
def test_no_call_is_charged_more_than_all_of_a_limit_whatever_its_service_counts(counted: int) -> None:
    account = Account(OPENAI, ["5000 tokens/min", "100 cents/day"], DEAR)
    asked = call(max_tokens=50)
    wants = [want for want, _ in account.wants(asked)]
    usage = {"prompt_tokens": 7, "completion_tokens": counted, "total_tokens": counted}
    said = Finished(result=Raw(json.dumps({"usage": usage}).encode()))
    used = account.used(asked, wants, said)
    assert all(used.get(want.limit.name, 0) <= want.limit.most for want in wants)
    if counted < 2**63:
        assert [used[want.limit.name] for want in wants] == [5000, 100_000]


def test_a_price_for_each_call_needs_no_count_of_tokens() -> None:
    account = Account(SIMULATION, ["100 cents/day"], PriceSettings(call=1.5))
    asked = call("image.generate")
    wants = [want for want, _ in account.wants(asked)]
    assert [want.units for want in wants] == [1500]
    assert account.used(asked, wants, Finished(result=Raw(b"{}"))) == {wants[0].limit.name: 1500}


def test_the_model_is_the_payloads_else_what_the_job_needs() -> None:
    account = Account(OPENAI, ["in_flight 2 per model"])
    needing = msgspec.structs.replace(call(), models=("b", "a"))
    names = [account.wants(asked)[0][0].limit.name for asked in (call(model="gpt"), needing, call())]
    assert [name.split("|")[1] for name in names] == ["model=gpt", "model=a+b", "model=-"]


@pytest.mark.parametrize(
    ("limits", "price", "words"),
    [
        (["100 tokens/min"], None, "simulation-http has no count of tokens for image.generate, sim.echo"),
        (["100 cents/day"], None, "set price beside it"),
        (["100 cents/day"], DEAR, "no count of tokens"),
        (["in_flight 0"], None, "at least 1"),
        (["3/s", "9/min", "3/s"], None, "'3/s': the same limit is written twice"),
        ([f"{n}/s" for n in range(1, 17)], None, "16 limits are more than an entry may have: 15"),
    ],
)
def test_a_limit_that_cannot_be_kept_account_of_is_refused_at_once(
    limits: list[str], price: PriceSettings | None, words: str
) -> None:
    with pytest.raises(InvalidError, match=words):
        Account(SIMULATION, limits, price)


def test_tokens_of_pictures_are_not_counted_so_they_are_not_limited() -> None:
    both = build("openai-http", url="http://127.0.0.1:9", options={"kinds": ["chat.complete", "openai.image"]})
    with pytest.raises(InvalidError, match=r"no count of tokens for openai\.image"):
        Account(both, ["100 tokens/min"])
