"""Promise 4: what is sealed opens with its key, in its place, unaltered, and not otherwise."""

import base64
from collections.abc import Callable

import pytest

from authserver.storage.keyring import DecryptionFailed, Keyring, read_key

ONE, TWO = ("k1", b"\1" * 32), ("k2", b"\2" * 32)
PLACE = ("connections", "sealed_tokens", "alice", "mcp-servers", "notes", "acme", 3)
TEXT = b"the plaintext canary"


def sealed(keyring: Keyring | None = None) -> bytes:
    return (keyring or Keyring([ONE])).seal(TEXT, *PLACE)


def test_what_was_sealed_opens_in_its_place_and_is_not_readable() -> None:
    assert Keyring([ONE]).open(sealed(), *PLACE) == TEXT
    assert TEXT not in sealed()


def test_the_same_text_never_looks_the_same_twice() -> None:
    assert len({sealed() for _ in range(50)}) == 50
    # Not only the value's nonce differs, but its data key.
    assert len({sealed()[4 + 12 : 4 + 12 + 48] for _ in range(50)}) == 50


@pytest.mark.parametrize("at", range(len(PLACE)))
def test_a_value_moved_to_another_place_does_not_open(at: int) -> None:
    moved: list[str | int] = [*PLACE]
    moved[at] = "other" if isinstance(moved[at], str) else 2
    with pytest.raises(DecryptionFailed):
        Keyring([ONE]).open(sealed(), *moved)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (("a|b", "c"), ("a", "b|c")),
        (("ab", "c"), ("a", "bc")),
        (("a", "b"), ("a", "b", "")),
        (("a", "b", ""), ("a", "", "b")),
        (("a\0b",), ("a", "b")),
        (("",), ()),
        (("a", "b"), ("b", "a")),
    ],
)
def test_places_that_only_look_alike_are_told_apart(
    here: tuple[str, ...], there: tuple[str, ...]
) -> None:
    with pytest.raises(DecryptionFailed):
        Keyring([ONE]).open(Keyring([ONE]).seal(TEXT, *here), *there)


def test_no_bit_can_be_flipped() -> None:
    whole = sealed()
    for at in range(len(whole)):
        flipped = whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :]
        with pytest.raises(DecryptionFailed):
            Keyring([ONE]).open(flipped, *PLACE)


def test_no_part_can_be_cut_off_or_added() -> None:
    whole = sealed()
    for cut in range(len(whole)):
        with pytest.raises(DecryptionFailed):
            Keyring([ONE]).open(whole[:cut], *PLACE)
    for more in (whole + b"\0", b"\1" + whole, b""):
        with pytest.raises(DecryptionFailed):
            Keyring([ONE]).open(more, *PLACE)


def test_halves_of_two_values_do_not_make_a_third() -> None:
    one, other = sealed(), sealed()
    wrapped = 4 + 12 + 48
    with pytest.raises(DecryptionFailed):
        Keyring([ONE]).open(one[:wrapped] + other[wrapped:], *PLACE)


@pytest.mark.parametrize(
    "keyring",
    [
        lambda: Keyring([TWO]),
        lambda: Keyring([("k1", TWO[1])]),
        lambda: Keyring([("k2", ONE[1])]),
    ],
    ids=["another key", "another key of that name", "that key by another name"],
)
def test_another_key_opens_nothing(keyring: Callable[[], Keyring]) -> None:
    with pytest.raises(DecryptionFailed):
        keyring().open(sealed(), *PLACE)


def test_the_first_key_seals_and_every_key_opens() -> None:
    both = Keyring([TWO, ONE])
    assert both.open(sealed(), *PLACE) == TEXT
    assert Keyring([TWO]).open(sealed(both), *PLACE) == TEXT
    with pytest.raises(DecryptionFailed):
        Keyring([ONE]).open(sealed(both), *PLACE)


def test_the_name_of_the_key_is_part_of_what_is_sealed() -> None:
    """Two names for one key: a value is not opened under the other name."""
    twins = Keyring([("k1", ONE[1]), ("k9", ONE[1])])
    relabelled = sealed().replace(b"k1", b"k9", 1)
    with pytest.raises(DecryptionFailed):
        twins.open(relabelled, *PLACE)


def test_without_a_key_there_is_no_keyring() -> None:
    with pytest.raises(ValueError, match="no encryption key"):
        Keyring([])


@pytest.mark.parametrize(
    "text",
    ["", "x", "=" * 44,
     base64.b64encode(b"\1" * 31).decode(), base64.b64encode(b"\1" * 33).decode(),
     base64.b64encode(b"\1" * 32).decode() + "!", "01" * 32],
)  # fmt: skip
def test_a_key_file_holds_32_bytes_in_base64_or_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|bytes") as refused:
        read_key(text)
    assert not text or text not in str(refused.value)


def test_a_key_file_may_end_in_a_newline() -> None:
    assert read_key(base64.b64encode(ONE[1]).decode() + "\n") == ONE[1]
