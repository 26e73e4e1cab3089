"""Laws of the codec over documents nobody would write."""

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshot.model.codec import DecodeError, decode_resource, decode_spec, encode_spec
from snapshot.model.schema import camel_case
from snapshot.registry import TYPES


def messages(hint):
    """Every message class inside a type."""
    found = {hint} if hasattr(hint, "__struct_fields__") else set()
    parts = typing.get_type_hints(hint).values() if found else typing.get_args(hint)
    return found.union(*map(messages, parts))


NAMES = sorted({name for one in TYPES.values() for cls in messages(one.spec) for name in cls.__struct_fields__})
WORDS = st.sampled_from([*NAMES, *map(camel_case, NAMES), "kuma.io/service", "type", "name", "mesh"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 70_000),
    st.floats(),
    st.text(),
    st.text(st.characters(categories=["Cs", "Lu"])),
    st.sampled_from(["1s", "1h30m", "*", "9000", "XX_HASH", "GET", "aGVsbG8=", "2022-04-05T12:00:00Z", "127.0.0.1"]),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def of_type(hint, depth=4):
    """Documents that mostly fit the shape of a spec, so that the deep parts are reached."""
    if hasattr(hint, "__struct_fields__"):
        hints = typing.get_type_hints(hint)
        parts = {camel_case(name): of_type(part, depth - 1) for name, part in hints.items()} if depth else {}
        return st.fixed_dictionaries({}, optional=parts)
    arguments = [argument for argument in typing.get_args(hint) if argument not in {type(None), ...}]
    if typing.get_origin(hint) is tuple and typing.get_origin(arguments[0]) is tuple:
        return st.dictionaries(st.text(max_size=2), of_type(typing.get_args(arguments[0])[1], depth), max_size=2)
    if typing.get_origin(hint) is tuple:
        return st.lists(of_type(arguments[0], depth), max_size=2)
    if arguments:
        return of_type(arguments[0], depth)
    return SCALARS | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3)


def sayable(text):
    """Whether a response, a log line and a terminal can carry the text."""
    return len(text.encode()) < 10_000


@pytest.mark.parametrize("type_name", TYPES)
class TestLaws:
    @given(st.data())
    def test_reading_gives_a_spec_or_says_why_not(self, type_name, data):
        document = data.draw(DOCUMENTS | of_type(TYPES[type_name].spec))
        try:
            spec, warnings = decode_spec(type_name, document)
        except DecodeError as error:
            # either outcome is right, nothing else may be raised
            assert (error.field, error.message) == error.violations[0]  # noqa: PT017 - as said
            assert all(sayable(field + message) and message for field, message in error.violations)  # noqa: PT017
            assert len(error.violations) <= 101  # noqa: PT017
            return
        assert all(map(sayable, warnings))
        printed = encode_spec(spec)
        again = decode_spec(type_name, printed)
        assert again.spec == spec
        assert encode_spec(again.spec) == printed
        hash(spec)
        for field, message in TYPES[type_name].validate_spec(spec):
            assert field
            assert message
            assert sayable(field + message)

    @given(st.data())
    def test_documents_too(self, type_name, data):
        document = data.draw(DOCUMENTS | of_type(TYPES[type_name].spec))
        meta = data.draw(
            st.fixed_dictionaries({}, optional={"type": st.just(type_name) | SCALARS, "mesh": SCALARS, "name": SCALARS})
        )
        try:
            key, _ = decode_resource({**document, **meta} if isinstance(document, dict) else document)
        except DecodeError:
            return
        assert key.type in TYPES
