"""`kumactl` against a REST API: what it sends, what it prints, how it fails."""

from __future__ import annotations

import io
import json
import ssl
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest
import yaml

from xds_server.cli.kumactl import persistent_first
from xds_server.cli.rest import _unreachable

DATAPLANE = """\
type: Dataplane
mesh: default
name: {name}
networking:
  address: 10.0.0.1
  inbound:
  - port: 80
    tags: {{kuma.io/service: web, version: v1}}
  - port: 81
    tags: {{kuma.io/service: admin}}
"""
DEFAULT_DATAPLANES = "/meshes/default/dataplanes"


@pytest.fixture
def file(tmp_path):
    def write(text: str, name: str = "r.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


class TestApply:
    def test_says_what_was_created_and_what_updated(self, api, run, file) -> None:
        path = file(DATAPLANE.format(name="a"))
        assert run("apply", "-f", path) == (0, 'created Dataplane "a"\n', "")
        assert run("apply", "-f", path) == (0, 'updated Dataplane "a"\n', "")
        assert api.resources[f"{DEFAULT_DATAPLANES}/a"]["networking"]["address"] == "10.0.0.1"

    def test_takes_several_documents_from_stdin(self, api, run, monkeypatch) -> None:
        text = f"type: Mesh\nname: m1\n---\n{DATAPLANE.format(name='a')}---\n"
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert run("apply", "-f", "-")[1] == 'created Mesh "m1"\ncreated Dataplane "a"\n'
        assert set(api.resources) == {"/meshes/m1", f"{DEFAULT_DATAPLANES}/a"}

    def test_takes_the_files_of_a_directory_in_order(self, run, file, tmp_path) -> None:
        file(DATAPLANE.format(name="b"), "2.yml")
        file(json.dumps(yaml.safe_load(DATAPLANE.format(name="a"))), "1.json")
        file("not a resource", "notes.txt")
        assert run("apply", "-f", str(tmp_path))[1] == 'created Dataplane "a"\ncreated Dataplane "b"\n'

    def test_three_dashes_inside_a_value_do_not_cut(self, api, run, file) -> None:
        assert run("apply", "-f", file("type: Secret\nmesh: default\nname: s\ndata: |\n  ---BEGIN\n"))[0] == 0
        assert api.requests[0][2]["data"] == "---BEGIN\n"

    def test_fills_in_variables_only_if_some_are_given(self, api, run, file) -> None:
        path = file(DATAPLANE.format(name="'{{ n }}'"))
        assert "invalid characters" in run("apply", "-f", path)[2]
        assert run("apply", "-f", path, "-v", "n=x1")[1] == 'created Dataplane "x1"\n'

    def test_a_document_without_mesh_goes_to_the_mesh_of_the_flag(self, api, run, file) -> None:
        run("apply", "-m", "other", "-f", file("type: Dataplane\nname: a\n"))
        assert api.requests[0][1] == "/meshes/other/dataplanes/a"
        assert api.requests[0][2]["mesh"] == "other"

    def test_a_stdin_that_is_no_text_is_named(self, run, monkeypatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))
        assert run("apply", "-f", "-") == (1, "", "Error: -f - cannot be read: it is not UTF-8 text\n")

    def test_a_template_without_values_is_recognised(self, run, file) -> None:
        status, _, err = run("apply", "-f", file("type: Mesh\nname: {{ name }}\n"))
        assert status == 1
        assert err.endswith("it looks like a template: give its values by -v KEY=VALUE\n")

    def test_a_dry_run_sends_nothing(self, api, run, file) -> None:
        status, out, _ = run(
            "apply", "--dry-run", "-f", file(DATAPLANE.format(name="a") + "---\n" + DATAPLANE.format(name="b"))
        )
        assert status == 0
        assert [document["name"] for document in yaml.safe_load_all(out)] == ["a", "b"]
        assert api.requests == []

    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            ("type: Nothing\nname: x", "type: 'Nothing' is not a type of this version; known: "),
            ("name: x", "type: cannot be empty"),
            ("type: Dataplane\nmesh: default", "name: cannot be empty"),
            ("type: Dataplane\nmesh: default\nname: UP", "name: invalid characters. Valid characters are numbers"),
            ("- a\n- b", "a resource must be a mapping"),
            ("a: [", "not valid YAML"),
        ],
    )
    def test_one_bad_document_applies_nothing_and_is_placed(self, api, run, file, tmp_path, bad, said) -> None:
        file(DATAPLANE.format(name="a"), "1.yaml")
        bad_path = file(bad, "2.yaml")
        status, _, err = run("apply", "-f", str(tmp_path))
        assert status == 1
        assert err.startswith("Error: nothing was applied:\n")
        assert bad_path in err
        assert said in err
        assert api.requests == []

    def test_prints_violations_as_kuma_does(self, api, run, file) -> None:
        causes = [{"field": "networking.address", "message": "cannot be empty"}]
        refusal = {"title": "Could not process a resource", "details": "Resource is not valid", "causes": causes}
        api.refusals["PUT", f"{DEFAULT_DATAPLANES}/b"] = (400, refusal)
        status, out, err = run("apply", "-f", file(DATAPLANE.format(name="a") + "---\n" + DATAPLANE.format(name="b")))
        assert (status, out) == (1, 'created Dataplane "a"\n')
        assert err == (
            'Error: Dataplane "b": Could not process a resource (Resource is not valid)\n'
            "* networking.address: cannot be empty\n1 of 2 resources were applied before\n"
        )

    def test_shows_plain_text_refusals(self, api, run, file) -> None:
        api.refusals["PUT", f"{DEFAULT_DATAPLANES}/a"] = (405, "405: Method Not Allowed")
        assert "answered 405: Method Not Allowed" in run("apply", "-f", file(DATAPLANE.format(name="a")))[2]

    def test_warns_of_fields_that_mean_nothing_where_the_control_plane_does_not(self, run, file) -> None:
        _, _, err = run("apply", "-f", file(DATAPLANE.format(name="a") + "colour: red\n"))
        (line,) = err.splitlines()
        assert line.startswith('Warning: Dataplane "a": ')
        assert "colour" in line

    def test_shows_the_warnings_of_the_control_plane(self, api, run, file) -> None:
        api.warning = "the control plane has something to say"
        _, _, err = run("apply", "-f", file(DATAPLANE.format(name="a") + "colour: red\n"))
        assert err == 'Warning: Dataplane "a": the control plane has something to say\n'

    def test_prints_json(self, run, file) -> None:
        _, out, _ = run("apply", "-o", "json", "-f", file(DATAPLANE.format(name="a")))
        assert json.loads(out) == [{"type": "Dataplane", "mesh": "default", "name": "a", "result": "created"}]

    @pytest.mark.parametrize(("text", "said"), [("", "no resource in it"), (None, "no .yaml, .yml, .json file")])
    def test_nothing_to_apply_is_an_error(self, run, file, tmp_path, text, said) -> None:
        source = str(tmp_path) if text is None else file(text)
        status, _, err = run("apply", "-f", source)
        assert status == 1
        assert said in err

    @pytest.mark.parametrize("source", ["/nowhere.yaml", "https://example.com/x.yaml"])
    def test_names_a_source_that_cannot_be_read(self, run, source) -> None:
        status, _, err = run("apply", "-f", source)
        assert status == 1
        assert err.startswith(f"Error: -f {source}")


class TestGet:
    @pytest.fixture(autouse=True)
    def _some(self, api) -> None:
        for name in ("a", "long-name"):
            document = yaml.safe_load(DATAPLANE.format(name=name))
            api.answer("PUT", f"{DEFAULT_DATAPLANES}/{name}", document)
        mtls = {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}
        api.answer("PUT", "/meshes/default", {"type": "Mesh", "name": "default", "mtls": mtls})

    def test_dataplanes_as_a_table(self, run) -> None:
        lines = run("get", "dataplanes")[1].splitlines()
        assert lines[0] == "MESH      NAME        TAGS                                   ADDRESS    AGE"
        assert lines[1].startswith("default   a           kuma.io/service=admin,web version=v1   10.0.0.1   ")
        assert lines[1][-1] == "y"

    def test_meshes_as_a_table(self, run) -> None:
        lines = run("get", "meshes")[1].splitlines()
        assert lines[0] == "NAME      mTLS           METRICS   LOGGING   TRACING   LOCALITY   AGE"
        assert lines[1].startswith("default   builtin/ca-1   off       off       off       off        ")

    def test_one_as_yaml_with_its_meta_fields_first(self, run) -> None:
        _, out, _ = run("get", "dataplane", "a", "-o", "yaml")
        assert [line.split(":")[0] for line in out.splitlines() if line[0].isalpha()] == [
            "creationTime",
            "mesh",
            "modificationTime",
            "name",
            "type",
            "networking",
        ]

    def test_a_list_as_json_as_rest_answers(self, run) -> None:
        found = json.loads(run("get", "dataplanes", "-o", "json")[1])
        assert [item["name"] for item in found["items"]] == ["a", "long-name"]
        assert found["total"] == 2

    def test_more_pages_are_announced(self, run) -> None:
        _, out, _ = run("get", "dataplanes", "--size", "1")
        assert out.endswith("\n\nRerun command with --offset=1 argument to retrieve more resources\n")
        assert "long-name" in run("get", "dataplanes", "--size=1", "--offset=1")[1]

    def test_nothing_is_said_so(self, run) -> None:
        assert run("get", "retries", "-m", "other")[1] == "No resources found in other mesh\n"
        assert run("get", "global-secrets")[1] == "No resources found\n"

    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (["widgets"], "Error: unknown TYPE: widgets. Allowed values: circuit-breaker, circuit-breakers, dataplane"),
            (["dataplane"], "Error: which dataplane? Give its NAME, or list all by `kumactl get dataplanes`"),
            (["dataplane", "zz"], 'there is no Dataplane with name "zz" in mesh "default"'),
        ],
    )
    def test_what_is_not_there(self, run, argv, said) -> None:
        status, _, err = run("get", *argv)
        assert status == 1
        assert said in err


class TestDelete:
    def test_says_what_it_deleted(self, api, run) -> None:
        api.answer("PUT", f"{DEFAULT_DATAPLANES}/a", {"type": "Dataplane", "mesh": "default", "name": "a"})
        assert run("delete", "dataplane", "a") == (0, 'deleted Dataplane "a"\n', "")
        assert run("delete", "dataplane", "a") == (1, "", 'Error: there is no Dataplane with name "a"\n')

    def test_takes_the_singular_only(self, run) -> None:
        status, _, err = run("delete", "dataplanes", "a")
        assert status == 1
        assert err.startswith("Error: unknown TYPE: dataplanes. Allowed values: circuit-breaker, dataplane, ")


class TestGenerateDataplaneToken:
    def test_prints_the_token_and_nothing_behind_it(self, api, run) -> None:
        argv = ["generate", "dataplane-token", "--name", "a", "--mesh", "m", "--tag", "kuma.io/service=web,api"]
        assert run(*argv) == (0, "a.b.c", "")
        wish = {"name": "a", "mesh": "m", "tags": {"kuma.io/service": ["web", "api"]}, "type": "", "validFor": "87600h"}
        assert api.requests == [("POST", "/tokens/dataplane", wish)]

    @pytest.mark.parametrize("text", ["forever", "0", "3"])
    def test_a_wrong_duration_is_named(self, api, run, text) -> None:
        status, _, err = run("generate", "dataplane-token", "--valid-for", text)
        assert (status, api.requests) == (1, [])
        assert err.startswith("Error: --valid-for: ")


class TestEveryCommandPrintsJson:
    @pytest.mark.parametrize(
        ("argv", "expected"),
        [
            ("delete dataplane a", {"type": "Dataplane", "mesh": "default", "name": "a", "result": "deleted"}),
            ("generate dataplane-token", {"token": "a.b.c"}),
        ],
    )
    def test_of_what_it_did(self, api, run, argv, expected) -> None:
        api.answer("PUT", f"{DEFAULT_DATAPLANES}/a", {"type": "Dataplane", "mesh": "default", "name": "a"})
        assert json.loads(run(*argv.split(), "-o", "json")[1]) == expected

    def test_of_a_dry_run(self, run, file) -> None:
        _, out, _ = run("apply", "--dry-run", "-o", "json", "-f", file(DATAPLANE.format(name="a")))
        assert [document["name"] for document in json.loads(out)] == ["a"]

    def test_of_versions_with_and_without_a_control_plane(self, run) -> None:
        assert json.loads(run("version", "-o", "json")[1])["server"]["version"] == "1.5.1"
        status, out, err = run("version", "-o", "json", "--address", "http://127.0.0.1:1")
        assert (status, json.loads(out)["server"]) == (0, None)
        assert err.startswith("Warning: the control plane at http://127.0.0.1:1 is not reachable")


class TestConnection:
    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["--token-file", "/nowhere"], "Error: --token-file '/nowhere' cannot be read"),
            (["--token-file", "/dev/null"], "Error: --token-file '/dev/null' is empty"),
            (["--token-file", __file__], f"Error: --token-file {__file__!r} holds no token"),
            (["--api-timeout", "soon"], "Error: --api-timeout: 'soon' is not a duration"),
            (
                ["--address", "https://a", "--ca-cert-file", "/dev/null"],
                "Error: --ca-cert-file '/dev/null' is not a PEM",
            ),
        ],
    )
    def test_a_wrong_setting_is_named(self, run, flags, said) -> None:
        status, _, err = run("get", "meshes", *flags)
        assert status == 1
        assert err.startswith(said)

    def test_a_refused_connection_names_address_and_remedy(self, run) -> None:
        status, _, err = run("get", "meshes", "--address", "http://127.0.0.1:1")
        assert status == 1
        assert err.startswith("Error: the control plane at http://127.0.0.1:1 is not reachable: ")
        assert "kuma-cp run" in err
        assert err.count("\n") == 1

    def test_a_certificate_that_nothing_vouches_for_is_named_with_the_remedy(self) -> None:
        error = ssl.SSLCertVerificationError("no")
        error.verify_message = "self-signed certificate"
        text = _unreachable("https://a", urllib.error.URLError(error))
        assert text.startswith("the certificate of https://a is not accepted: self-signed certificate; give the one")

    @pytest.mark.parametrize("way", ["file", "environment"])
    def test_a_user_token_is_sent(self, api, run, tmp_path, monkeypatch, way) -> None:
        (tmp_path / "token").write_text("x.y.z\n")
        if way == "environment":
            monkeypatch.setenv("KUMACTL_TOKEN", "x.y.z")
        flags = [] if way == "environment" else ["--token-file", str(tmp_path / "token")]
        run("get", "meshes", *flags)
        assert api.headers[0]["Authorization"] == "Bearer x.y.z"

    def test_a_token_does_not_leave_the_machine_in_plain_text(self, run, monkeypatch) -> None:
        monkeypatch.setenv("KUMACTL_TOKEN", "x.y.z")
        assert "must not travel in plain text" in run("get", "meshes", "--address", "http://10.0.0.1:5681")[2]

    @pytest.mark.parametrize(
        ("status", "text", "said"),
        [
            (400, "Client sent an HTTP request to an HTTPS server.", "Use https:// (the REST API's TLS port is 5682)"),
            (404, "404 page not found", "this is no REST API of a control plane, which listens on 5681"),
        ],
    )
    def test_another_port_of_the_control_plane_is_told_apart(self, api, run, status, text, said) -> None:
        api.refusals["GET", "/meshes"] = (status, text)
        code, _, err = run("get", "meshes")
        assert (code, err.count("\n")) == (1, 1)
        assert said in err

    def test_a_port_without_tls_is_named_as_such(self, api, run) -> None:
        said = run("get", "meshes", "--address", api.address.replace("http:", "https:"))[2]
        assert "does not speak TLS; its REST API is http://HOST:5681" in said

    @pytest.mark.parametrize(
        "address", ["localhost:5681", "ftp://a", "", "http://[::1", "http://a:99999", "http://a b", "http://a:0"]
    )
    def test_a_wrong_address_is_named(self, run, address) -> None:
        assert run("get", "meshes", f"--address={address}")[2].startswith(
            f"Error: --address {address!r} must look like"
        )


@pytest.mark.parametrize(
    ("argv", "ordered"),
    [
        ("get dataplanes -m x", "-m x get dataplanes"),
        ("get --mesh=x dataplanes --address a", "--mesh=x --address a get dataplanes"),
        ("apply -f - -- -m x", "apply -f - -- -m x"),
        ("get dataplanes -m", "-m get dataplanes"),
    ],
)
def test_connection_flags_may_stand_anywhere(argv: str, ordered: str) -> None:
    assert persistent_first(argv.split()) == ordered.split()


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_completion_is_a_script_of_the_shell(run, shell) -> None:
    status, out, _ = run("completion", shell)
    assert status == 0
    assert "_KUMACTL_COMPLETE" in out


@pytest.mark.parametrize(
    "argv", [("get", "mesh", "../x"), ("delete", "mesh", "a/b"), ("get", "dataplanes", "-m", "..")]
)
def test_a_name_that_is_a_path_is_not_asked_for(api, run, argv) -> None:
    status, _, err = run(*argv)
    assert (status, api.requests) == (1, [])
    assert "it consists of a-z, 0-9" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_an_output_that_cannot_be_written_is_an_error_of_one_line(api) -> None:
    command = [sys.executable, "-m", "xds_server.cli.kumactl", "generate", "dataplane-token", "--address", api.address]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: the output cannot be written: No space left on device\n")


def test_versions_of_both_sides(run) -> None:
    _, out, _ = run("version")
    assert out.splitlines()[0].startswith("Client: koguma ")
    assert out.splitlines()[1] == "Server: Kuma 1.5.1"


HEAVY = ("grpc", "envoy", "google", "sqlalchemy", "httpx", "starlette", "structlog", "asyncio", "cryptography")


@pytest.mark.parametrize(
    ("module", "argv"),
    [
        ("kumactl", ["--help"]),
        ("kumactl", ["get", "dataplanes", "--address", "http://127.0.0.1:1"]),
        ("kuma_cp", ["--help"]),
        ("kuma_cp", ["version"]),
    ],
)
def test_starting_up_loads_no_grpc_no_envoy_no_store(module: str, argv: list[str]) -> None:
    program = f"""
import sys
sys.argv[1:] = {argv!r}
from xds_server.cli.{module} import main
try:
    main()
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
