"""An object that cannot have its effect is reported to the operator, and stops nothing else."""

from __future__ import annotations

from xds_server.demo.mesh import TestMesh


def test_a_name_that_does_not_resolve_is_reported_and_harms_nobody(mesh: TestMesh) -> None:
    mesh.http_service("backend")
    client = mesh.proxy("client-1", service="client", outbounds=["backend"])
    mesh.apply(
        {
            "type": "Dataplane",
            "mesh": "default",
            "name": "lost",
            "networking": {
                "address": "nowhere.invalid",
                "inbound": [{"port": 80, "tags": {"kuma.io/service": "backend", "kuma.io/protocol": "http"}}],
            },
        }
    )

    def issues() -> list[dict[str, str]]:
        return mesh.rest.get("/issues", params={"name": "lost"}).json()["items"]

    mesh.wait_for(lambda: bool(issues()), "the issue being reported")
    (issue,) = issues()
    assert (issue["type"], issue["mesh"]) == ("Dataplane", "default")
    assert "nowhere.invalid" in issue["reason"]
    mesh.wait_for(lambda: mesh.get(client.port_of("backend")).status_code == 200, "an answer of the backend")
    log = mesh.control_plane.process.log
    mesh.wait_for(lambda: "an object has no effect, or only in part" in log.read_text(), "the issue in the log")

    mesh.delete("Dataplane", "lost")
    mesh.wait_for(lambda: not issues(), "the issue going with its object")
    mesh.wait_for(lambda: "an object has its effect again, or is gone" in log.read_text(), "its end in the log")
