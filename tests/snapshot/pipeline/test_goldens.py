"""Every case gives exactly its output. KOGUMA_REGENERATE=1 writes the outputs anew, to be reviewed as a diff."""

import os

import pytest

from tests.support.goldens import FOLDER, inputs, load, output_of

CASES = [load(source) for source in inputs()]

if os.environ.get("KOGUMA_REGENERATE"):
    for orphan in set(FOLDER.glob("*.out.yaml")) - {output_of(source) for source in inputs()}:
        orphan.unlink()
    for source, made in zip(inputs(), CASES, strict=True):
        output_of(source).write_text(made.rendered, encoding="utf-8")

OUTPUTS = {source.name.removesuffix(".in.yaml"): output_of(source).read_text(encoding="utf-8") for source in inputs()}
ORPHANS = sorted(path.name for path in set(FOLDER.glob("*.out.yaml")) - {output_of(source) for source in inputs()})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_proxy_gets_exactly_this(case):
    assert case.rendered == OUTPUTS[case.name]


def test_every_output_belongs_to_an_input():
    assert ORPHANS == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_resource_tells_which_objects_made_it(case):
    served = {(url, name) for url, named in case.built.snapshot.resources.items() for name in named}
    assert set(case.built.provenance) == served
    assert all(case.built.provenance[resource][0].type == "Dataplane" for resource in served)
