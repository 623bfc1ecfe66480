"""Who has which slot of a cluster, by what its nodes say."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hostler.valkeyio.keys import meta_key, prefix, registry_key
from hostler.valkeyio.slots import SLOTS, View, merged, read_view, slot_of

A, B, C = "a" * 40, "b" * 40, "c" * 40
PORTS = {A: 1, B: 2, C: 3}


def view(myself: str, *told: tuple[str, int, int, int], flags: str = "master", replicas: tuple[int, ...] = ()) -> View:
    """What a node says: who has which slots in which epoch."""
    others: list[Any] = [[b"h", port, b"r" * 40, []] for port in replicas]
    slots: list[Any] = [
        [first, last, [b"h", PORTS[id_], id_.encode(), []], *others] for id_, first, last, _ in told if first <= last
    ]
    lines = [
        f"{id_} h:{PORTS[id_]}@9 {'myself,' if id_ == myself else ''}{flags} - 0 0 {epoch} connected {first}-{last}"
        for id_, first, last, epoch in told
    ]
    return read_view(("asked", 9), slots, "\n".join(lines))


def test_one_node_tells_of_all_with_their_replicas() -> None:
    found = merged([view(A, (A, 0, 8191, 1), (B, 8192, 16383, 2), replicas=(7, 8))])
    assert (found.owners[0], found.owners[8191], found.owners[8192]) == (("h", 1), ("h", 1), ("h", 2))
    assert found.uncovered == 0
    assert found.slots_of(("h", 2)) == "8192-16383"
    assert found.primaries["h", 1].replicas == (("h", 7), ("h", 8))


def test_a_node_knows_best_what_it_has() -> None:
    left = view(A, (A, 1, 16383, 9), (B, 0, 0, 3))
    not_told_yet = view(C, (A, 0, 16383, 9))
    assert merged([not_told_yet, left]).owners[0] == ("h", 2)
    assert merged([not_told_yet]).owners[0] == ("h", 1)


def test_of_two_that_claim_a_slot_the_later_epoch_has_it() -> None:
    deposed, heir = view(A, (A, 0, 99, 4)), view(B, (B, 0, 99, 5))
    for views in ([deposed, heir], [heir, deposed]):
        found = merged(views)
        assert (found.owners[0], set(found.primaries)) == (("h", 2), {("h", 2)})
        assert found.uncovered == SLOTS - 100


def test_a_primary_is_down_when_its_peers_agreed_and_not_when_one_only_thinks_so() -> None:
    assert merged([view(C, (A, 0, 1, 1), flags="master,fail")]).primaries["h", 1].failed
    assert not merged([view(C, (A, 0, 1, 1), flags="master,fail?")]).primaries["h", 1].failed


def test_a_node_that_does_not_know_its_own_name_is_where_it_was_asked() -> None:
    for name in (None, b"", b"?"):
        found = read_view(
            ("asked", 9), [[0, 1, [name, 5, A.encode(), []]]], f"{A} :5@9 myself,master - 0 0 1 connected"
        )
        assert found.primaries[0].address == ("asked", 5)


@given(st.text(alphabet=st.characters(exclude_characters="{}", exclude_categories=("Cs",)), min_size=1))
def test_all_keys_of_a_queue_lie_in_one_slot(queue: str) -> None:
    if queue != "reg":
        assert slot_of(meta_key(queue)) == slot_of(prefix(queue) + "j:1{other}") == slot_of(prefix(queue).encode())


def test_all_keys_of_the_registry_lie_in_one_slot() -> None:
    assert slot_of(registry_key("meta")) == slot_of(registry_key("cmd:w1")) == slot_of(b"x{reg}y")
