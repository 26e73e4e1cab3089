"""What users give to `kuma-dp run`: flags, templates, Dataplanes, tokens. Wrong input is named, with the way out."""

from __future__ import annotations

import base64
import json

import pytest

from xds_server.dp import main as dp_main
from xds_server.dp.admin_port import Claims
from xds_server.dp.bootstrap import UnavailableError, endpoint, patiently
from xds_server.dp.definition import definition
from xds_server.dp.documents import DocumentError, parse, render, unset_variables
from xds_server.dp.envoy_binary import Build
from xds_server.dp.errors import StartError
from xds_server.dp.go_syntax import duration_s, variables
from xds_server.dp.options import FLAGS, from_arguments
from xds_server.dp.token import checked_token, read_token


def _options(*flags: str, **environ: str):
    return from_arguments(dp_main._parser().parse_args(["run", *flags]), environ)


MINIMAL = "type: Dataplane\nmesh: default\nname: a\n"


class TestTemplates:
    @pytest.mark.parametrize(
        ("template", "values", "text"),
        [
            ("name: {{ name }}", {"name": "a"}, "name: a"),
            ("name: {{name}}!", {}, "name: !"),
            ("{{ a.b }}{{ a.c }}", {"a.b": "1", "a.c": "2"}, "12"),
            ("{{ x }}", {"x": "<&>"}, "&lt;&amp;&gt;"),
            ("{{{ x }}}", {"x": "<&>"}, "<&>"),
            ("{{> etc/passwd }}", {}, ""),
        ],
        ids=["plain", "undefined-is-empty", "dotted", "escaped", "unescaped", "no-partials-from-disk"],
    )
    def test_rendering(self, template, values, text) -> None:
        assert render(template, values) == text

    @pytest.mark.parametrize("template", ["{{ name", "{{#a}}x", "{{#a}}{{/b}}"])
    def test_broken_mustache_is_named(self, template) -> None:
        with pytest.raises(DocumentError, match="not valid Mustache"):
            render(template, {"a": "1"})

    @pytest.mark.parametrize("order", [("a", "a.b"), ("a.b", "a")])
    def test_a_name_cannot_be_text_and_table(self, order) -> None:
        with pytest.raises(DocumentError, match="contradicts"):
            render("", dict.fromkeys(order, "1"))


class TestUnsetVariables:
    @pytest.mark.parametrize(
        ("template", "values", "unset"),
        [
            ("{{ a }} {{{ b }}} {{& c }} {{ a }}", {}, ["a", "b", "c"]),
            ("{{ a }}{{ b.c }}", {"a": "", "b.c": "1"}, []),
            ("{{ b.d }}", {"b.c": "1"}, ["b.d"]),
            ("{{#a}}{{ b }}{{/a}}{{^a}}{{ c }}{{/a}}", {}, ["c"]),
            ("{{#a}}{{ b }}{{/a}}{{^a}}{{ c }}{{/a}}", {"a": "1"}, ["b"]),
            ("{{#a}}{{ b }}{{ . }}{{/a}}", {"a.b": "1"}, []),
            ("{{! a }}{{> a }}", {}, []),
        ],
        ids=["each once", "empty is a value", "dotted", "hidden", "shown", "of a table", "no variables"],
    )
    def test_are_those_that_a_shown_part_needs(self, template, values, unset) -> None:
        assert unset_variables(template, values) == unset

    def test_are_named_where_the_rest_is_no_dataplane(self) -> None:
        template = "type: Dataplane\nmesh: {{ mesh }}\nname: {{ my.name }}\n"
        with pytest.raises(StartError) as raised:
            definition(_options("--dataplane", template, "--dataplane-var", "mesh=default"))
        assert str(raised.value) == (
            "--dataplane: no value was given for {{ my.name }}, which becomes empty; give --dataplane-var "
            "my.name=VALUE (as it is: name: cannot be empty)"
        )

    def test_are_a_notice_where_the_rest_is_one(self) -> None:
        proxy = definition(_options("--dataplane", MINIMAL + "networking: {address: '{{ address }}'}\n"))
        assert proxy.address() == ""
        (notice,) = proxy.notices
        assert notice.startswith("WARNING: --dataplane: no value was given for {{ address }}")
        assert definition(_options("--dataplane", MINIMAL)).notices == ()


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.22.0", False), ("1.39.1", False), ("1.40.0", True), ("1.40.1-dev", True), ("2.0.0", True), ("mine", False)],
)
def test_from_1_40_on_envoy_counts_its_cpu_set_unasked(version, expected) -> None:
    assert Build(version, "").is_cpuset_default is expected


class TestDocuments:
    def test_a_date_is_text_as_in_json(self) -> None:
        assert parse("a: 2020-01-01") == [{"a": "2020-01-01"}]

    def test_only_a_document_marker_cuts(self) -> None:
        assert parse("a: |\n  ---BEGIN---\n---\nb: '---'\n---\n") == [{"a": "---BEGIN---\n"}, {"b": "---"}]

    def test_json_is_yaml(self) -> None:
        assert parse('{"a": [1, true, null]}') == [{"a": [1, True, None]}]

    @pytest.mark.parametrize(
        "text", ["a: [", "a: .nan", "- a", "a: !!python/object:os.system {}", "&a [*a]", "? [1]\n: 2"]
    )
    def test_what_json_cannot_say_is_refused(self, text) -> None:
        with pytest.raises(DocumentError):
            parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("type: ZoneIngress\nname: a", 'invalid proxy resource type "ZoneIngress", expected Dataplane'),
        ("mesh: default\nname: a", 'invalid proxy resource type "", expected Dataplane'),
        ("type: Dataplane\nmesh: default", "name: cannot be empty"),
        ("type: Dataplane\nname: a", "mesh: cannot be empty"),
        ("type: Dataplane\nmesh: default\nname:", "name: cannot be empty"),
        (
            "type: Dataplane\nmesh: default\nname: A.b",
            "name: invalid characters. Valid characters are numbers, lowercase",
        ),
        ("type: Dataplane\nmesh: default\nname: 12", 'quote it: name: "12"'),
        (MINIMAL + "---\n" + MINIMAL, "holds 2 documents"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_definition_that_cannot_be_one_proxy(text, said) -> None:
    with pytest.raises(StartError) as raised:
        definition(_options("--dataplane", text))
    assert said in str(raised.value)


def test_the_file_wins_over_the_inline_dataplane(tmp_path) -> None:
    (tmp_path / "dp.yaml").write_text(MINIMAL.replace("name: a", "name: file"))
    assert definition(_options("--dataplane", MINIMAL, "-d", str(tmp_path / "dp.yaml"))).name == "file"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--name=a", "--dataplane", MINIMAL], "--name and --mesh cannot be specified when a dataplane definition"),
        ([], ".Name must be non-empty"),
        (["--name=a"], ".Mesh must be non-empty"),
        (["--name=A.b", "--mesh=default"], "--name: invalid characters. Valid characters are numbers, lowercase"),
        (["--name=a", "--mesh=no mesh"], "--mesh: invalid characters. Valid characters are numbers, lowercase"),
        (["--name=" + "a" * 254, "--mesh=default"], "--name: must not be longer than 253 characters"),
        (["--dataplane-file=/nowhere.yaml"], "--dataplane-file /nowhere.yaml cannot be read: No such file"),
    ],
)
def test_which_proxy_must_be_said_once(flags, said) -> None:
    with pytest.raises(StartError) as raised:
        definition(_options(*flags))
    assert said in str(raised.value)


class TestOptions:
    @pytest.mark.parametrize("flag", [one for one in FLAGS if one.variable and one.flags], ids=lambda one: one.field)
    def test_the_environment_overrides_every_flag(self, flag) -> None:
        samples = {
            "proxy_type": ("dataplane", "dataplane"),
            "dns_enabled": ("true", "false"),
            "concurrency": ("1", "2"),
            "dns_envoy_port": ("1", "2"),
            "dns_empty_port": ("1", "2"),
        }
        by_flag, by_variable = samples.get(flag.field, ("flag", "variable"))
        options = _options(f"{flag.flags[-1]}={by_flag}", **{flag.variable: by_variable})
        if flag.field != "proxy_type":
            assert str(getattr(options, flag.field)).lower() == by_variable

    @pytest.mark.parametrize(
        ("flags", "environ", "said"),
        [
            (["--proxy-type=ingress"], {}, 'proxy type "ingress" is not supported by this version'),
            (["--proxy-type=x"], {}, 'invalid proxy type "x"'),
            (["--concurrency=-1"], {}, "--concurrency '-1' must be a whole number"),
            (["--log-level=loud"], {}, "--log-level 'loud' must be one of"),
            (["--xds-protocol=rest"], {}, "--xds-protocol 'rest' must be one of delta, sotw"),
            (["--dataplane-var=name"], {}, "--dataplane-var: 'name' must be formatted as key=value"),
            ([], {"KUMA_CONTROL_PLANE_RETRY_BACKOFF": "3"}, "KUMA_CONTROL_PLANE_RETRY_BACKOFF: '3' is not a duration"),
        ],
    )
    def test_a_wrong_value_is_named(self, flags, environ, said) -> None:
        with pytest.raises(StartError) as raised:
            _options(*flags, **environ)
        assert said in str(raised.value)

    def test_dns_off_sends_no_dns_ports(self) -> None:
        assert _options("--dns-enabled=false").dns_enabled is False
        assert _options("--dns-enabled").dns_enabled is True


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["name=a"], {"name": "a"}),
        (["a=1,b=2"], {"a": "1", "b": "2"}),
        (["a=1,2"], {"a": "1,2"}),
        (['"a=b,c"'], {"a": "b,c"}),
        (['a=1,"b=2,3"'], {"a": "1", "b": "2,3"}),
        (["a="], {"a": ""}),
    ],
)
def test_variables_are_read_as_kuma_reads_them(flags, found) -> None:
    assert variables(flags) == found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3s", 3), ("1h30m", 5400), ("100ms", 0.1), ("1.5s", 1.5), ("0", 0), ("87600h0m0s", 315360000)],
)
def test_durations(text, seconds) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "3", "3 s", "s", "-3s", "3d", "1h-3m"])
def test_no_durations(text) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration_s(text)


def _jwt() -> str:
    part = base64.urlsafe_b64encode(json.dumps({"Name": "a"}).encode()).decode().rstrip("=")
    return f"{part}.{part}.{part}"


class TestTokens:
    def test_one_newline_at_the_end_is_forgiven(self, tmp_path) -> None:
        (tmp_path / "token").write_text(_jwt() + "\n")
        assert read_token(str(tmp_path / "token")) == _jwt()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "is empty"),
            ("\n", "is empty"),
            (_jwt() + "\n\n", r"contains '\n' at position"),
            ("a b", "contains ' ' at position 1"),
            ("Error: no", "contains ' '"),
            ("a.b.c", "is not a JSON Web Token"),
            (_jwt().rpartition(".")[0], "is not a JSON Web Token"),
        ],
    )
    def test_what_is_no_token_is_refused_before_it_travels(self, text, said) -> None:
        with pytest.raises(StartError) as raised:
            checked_token(text, "file 'x'")
        assert said in str(raised.value)
        assert "kumactl generate dataplane-token" in str(raised.value)

    def test_a_missing_file_is_named(self) -> None:
        with pytest.raises(StartError, match="dataplane token file '/nowhere' cannot be read: No such file"):
            read_token("/nowhere")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:5678", "must look like https://HOST:5678"),
        ("grpc://a:1", "must look like"),
        ("https://a:1/path", "must look like"),
        ("https://a:99999", "Port out of range"),
        ("http://10.0.0.1:5678", "a token must not travel in plain text"),
    ],
)
def test_addresses_that_cannot_be(address, said) -> None:
    with pytest.raises(StartError) as raised:
        endpoint(address)
    assert said in str(raised.value)


def test_an_ipv6_address_is_shown_as_typed() -> None:
    assert str(endpoint("https://[::1]:5678")) == "https://[::1]:5678"


class TestPatience:
    def test_pauses_double_with_jitter_up_to_four_times_the_backoff(self) -> None:
        pauses: list[float] = []
        now_s = 0.0

        def sleep(seconds: float) -> None:
            nonlocal now_s
            pauses.append(seconds)
            now_s += seconds

        def never() -> str:
            raise UnavailableError("away")

        with pytest.raises(StartError, match="away; gave up after 300 s"):
            patiently(never, 3.0, 300.0, lambda _: None, sleep, lambda: now_s)
        limits = [min(0.375 * 2**number, 12) for number in range(len(pauses))]
        assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, limits, strict=True))
        assert len({round(pause / limit, 6) for pause, limit in zip(pauses, limits, strict=True)}) > 3
        assert 285 <= now_s <= 300


@pytest.mark.parametrize("text", ["x", "-", "", "2-1", "0", "70000", "1-2-3"])
def test_admin_port_ranges_that_cannot_be(text) -> None:
    with pytest.raises(StartError, match="invalid value"):
        Claims("", ()).first_of(text)


def test_a_claimed_port_and_one_of_the_dataplane_are_passed_over() -> None:
    claims, others = Claims("127.0.0.1", {20001}), Claims("127.0.0.1", ())
    port = claims.any_free()
    assert not claims.claim(20001)
    assert not others.claim(port)
    with pytest.raises(StartError, match="unable to find a free port in the range"):
        others.first_of(str(port))
    claims.keep_only(0)
    assert others.first_of(f"{port}-{port}") == port
    others.keep_only(0)
