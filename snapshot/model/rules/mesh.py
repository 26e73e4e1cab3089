"""Mesh (R §2.4) and the membership of its proxies (R §1.3)."""

from __future__ import annotations

from collections.abc import Mapping

from snapshot.model.dataplane import Dataplane
from snapshot.model.mesh import Mesh
from snapshot.model.rules.paths import not_supported
from snapshot.model.rules.tags import ANY_TAGS, check_tags
from snapshot.model.tags import ANY, Tags
from snapshot.model.validation import Violation

_LATER = tuple((field, field) for field in ("mtls", "logging", "tracing", "metrics", "networking"))


def validate(spec: Mesh) -> list[Violation]:
    """All violations, in order."""
    violations = not_supported(spec, "", _LATER)
    rules = spec.constraints.dataplane_proxy if spec.constraints else None
    if rules is not None:
        for field, selectors in (("requirements", rules.requirements), ("restrictions", rules.restrictions)):
            for index, selector in enumerate(selectors):
                path = f"constraints.dataplaneProxy.{field}[{index}].tags"
                violations += check_tags(path, selector.tags, ANY_TAGS)
    return violations


def membership_refusal(mesh_name: str, mesh: Mesh, dataplane: Dataplane) -> str | None:
    """Why `dataplane` may not join the mesh, or None: each of its tag sets must be allowed for itself (R §1.3)."""
    rules = mesh.constraints.dataplane_proxy if mesh.constraints else None
    if rules is None:
        return None
    for tags in dataplane.tag_sets:
        refused = f'dataplane cannot be a member of mesh "{mesh_name}" because its tags "{_text(tags)}"'
        if rules.requirements and not any(_satisfies(tags, rule.tags) for rule in rules.requirements):
            return f"{refused} does not fulfill any requirements defined on the Mesh"
        for rule in rules.restrictions:
            if _satisfies(tags, rule.tags):
                return f'{refused} matches restricted tags "{_text(rule.tags)}" defined on the Mesh'
    return None


def _satisfies(tags: Tags, rule: Mapping[str, str]) -> bool:
    return all((have := tags.get(name, "")) == value or (value == ANY and have != "") for name, value in rule.items())


def _text(tags: Tags) -> str:
    return " ".join(f"{name}={value}" for name, value in tags.items())
