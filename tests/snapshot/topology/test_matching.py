"""Which policy wins (R §3.1, §3.2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshot.model.tags import Tags
from snapshot.topology.matching import PolicyIndex, Rank, concerns, selector_rank
from tests.support.policies import SERVICE, policy, tags

WEB = (tags("web", version="1"),)


def winner(*policies, tag_sets=WEB, service="backend"):
    found = PolicyIndex(policies).best(tag_sets, service)
    return found.key.name if found else None


@pytest.mark.parametrize(
    ("selector", "rank"),
    [
        ({}, Rank(0, 0)),
        ({SERVICE: "*"}, Rank(1, 0)),
        ({SERVICE: "web"}, Rank(1, 1)),
        ({SERVICE: "*", "version": "*"}, Rank(2, 0)),
        ({SERVICE: "web", "version": "*"}, Rank(2, 1)),
    ],
)
def test_a_rank_is_the_number_of_tags_then_of_exact_ones(selector, rank):
    assert selector_rank(Tags(selector)) == rank


def timeout(name, source="*", to="*", age=0):
    return policy("Timeout", name, source=source, to=to, age=age)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        pytest.param([timeout("a", "other")], None, id="no source matches"),
        pytest.param([timeout("a", "web", "other")], None, id="no destination matches"),
        pytest.param([timeout("a", {"zone": "*"})], None, id="a star never matches an absent tag"),
        pytest.param([timeout("a", {})], "a", id="an empty selector matches everything"),
        pytest.param([timeout("a", {}), timeout("z")], "z", id="one star beats nothing"),
        pytest.param([timeout("a"), timeout("z", "web")], "z", id="exact beats star"),
        pytest.param([timeout("a"), timeout("z", "*", "backend")], "z", id="exact destination beats star"),
        pytest.param(
            [timeout("a", "web", "backend"), timeout("z", {SERVICE: "*", "version": "*"}, "*")],
            "z",
            id="tags count first",
        ),
        pytest.param(
            [timeout("z", "web"), timeout("a", "*", "backend")], "a", id="equal sums, equal times: first name"
        ),
        pytest.param([timeout("a", age=1), timeout("z", age=2)], "z", id="equal ranks: newest"),
        pytest.param([timeout("z", age=0), timeout("m", "web", age=0), timeout("a", age=9)], "m", id="rank before age"),
        pytest.param(
            [timeout("a", [{SERVICE: "no"}, {SERVICE: "web"}]), timeout("b")], "a", id="best of several sources"
        ),
        pytest.param([timeout("a", "*", ["no", "backend"]), timeout("b")], "a", id="best of several destinations"),
        pytest.param(
            [timeout("a", "*", {SERVICE: "backend", "version": "1"})], None, id="only the service is compared"
        ),
    ],
)
def test_one_policy_wins(policies, expected):
    assert winner(*policies) == expected
    assert winner(*reversed(policies)) == expected


def test_keys_are_never_combined_across_inbounds():
    both = timeout("a", {SERVICE: "web", "role": "admin"})
    assert winner(both, tag_sets=(tags("web"), tags("other", role="admin"))) is None
    assert winner(both, tag_sets=(tags("other"), tags("web", role="admin"))) == "a"


def test_answers_are_remembered_for_equal_tag_sets():
    index = PolicyIndex([timeout("a")])
    assert index.matcher((tags("web"),)) is index.matcher((tags("web"),))


def test_remembering_is_bounded(monkeypatch):
    monkeypatch.setattr("snapshot.topology.matching.MATCHERS_KEPT", 3)
    index = PolicyIndex([timeout("a")])
    for number in range(20):
        assert index.best((tags(f"web-{number}"),), "backend") is not None
        assert len(index._matchers) <= 3


@pytest.mark.parametrize(
    ("source", "to", "expected"),
    [("web", "backend", True), ("*", "*", True), ("other", "backend", False), ("web", "other", False)],
)
def test_a_policy_concerns_a_proxy_that_it_could_win_for(source, to, expected):
    assert concerns(timeout("a", source, to).spec, WEB, ["nothing", "backend"]) is expected


selectors = st.dictionaries(st.sampled_from((SERVICE, "a", "b")), st.sampled_from(("*", "1", "2")), max_size=3)
tag_sets = st.lists(
    st.dictionaries(st.sampled_from((SERVICE, "a", "b")), st.sampled_from(("1", "2")), max_size=3).map(Tags), max_size=3
)
few_selectors = st.lists(selectors, max_size=3)


@st.composite
def policies_of_one_type(draw):
    names = draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=4))
    return [timeout(n, draw(few_selectors), draw(few_selectors), draw(st.integers(0, 1))) for n in names]


def rank_by_definition(wanted, tag_sets):
    """R §3.1 word for word."""
    found = [
        (len(s.match), sum(v != "*" for v in s.match.values()))
        for s in wanted
        if any(all(k in tags and v in {"*", tags[k]} for k, v in s.match.items()) for tags in tag_sets)
    ]
    return max(found, default=None)


def winner_by_definition(policies, tag_sets, service):
    """R §3.1 and §3.2 word for word: one after the other by name, replaced by a higher rank or a later time."""
    best, best_rank = None, None
    for one in sorted(policies, key=lambda p: p.key.name):
        source = rank_by_definition(one.spec.sources, tag_sets)
        destination = rank_by_definition(one.spec.destinations, [{SERVICE: service}])
        if source is None or destination is None:
            continue
        rank = (source[0] + destination[0], source[1] + destination[1])
        if best is None or rank > best_rank or (rank == best_rank and one.creation_time > best.creation_time):
            best, best_rank = one, rank
    return best


@given(policies_of_one_type(), tag_sets, st.sampled_from(("1", "2", "3")))
def test_the_index_answers_as_the_definition_does(policies, tag_sets, service):
    expected = winner_by_definition(policies, tag_sets, service)
    assert PolicyIndex(policies).best(tuple(tag_sets), service) is expected
    could_win = [winner_by_definition([one], tag_sets, service) is one for one in policies]
    assert [concerns(one.spec, tuple(tag_sets), [service]) for one in policies] == could_win


def test_many_policies_and_many_destinations_are_not_compared_with_each_other(monkeypatch):
    many = 1000
    looked = 0

    def counted(self, selector, matches=Tags.matches):
        nonlocal looked
        looked += 1
        return matches(self, selector)

    monkeypatch.setattr(Tags, "matches", counted)
    index = PolicyIndex([timeout(f"t{i:04}", f"s{i}", f"s{i}") for i in range(many)])
    inbounds = tuple(tags(f"s{i}") for i in range(many))
    assert [index.best(inbounds, f"s{i}").key.name for i in range(many)] == [f"t{i:04}" for i in range(many)]
    assert looked <= 2 * many
