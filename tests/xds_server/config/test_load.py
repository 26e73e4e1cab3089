from __future__ import annotations

import json
from pathlib import Path

import pytest

from xds_server.config import Config, ConfigError, load, to_rest
from xds_server.config.durations import format_duration, parse_duration_s
from xds_server.config.leaves import environment_variable, leaves


def test_defaults_are_kumas_and_ours():
    config, warnings = load(environ={})
    assert warnings == ()
    assert (config.api_server.http.port, config.dp_server.port, config.xds_port) == (5681, 5678, 5677)
    assert config.store.type == "sqlite"
    assert config.work_dir == Path.home() / ".kuma"


def test_flags_win_over_environment_over_file(tmp_path):
    file = tmp_path / "cp.yaml"
    file.write_text("xdsServer: {port: 1}\ndpServer: {port: 2}\ndiagnostics: {serverPort: 3}\n")
    environ = {"KUMA_XDS_SERVER_PORT": "11", "KUMA_DP_SERVER_PORT": "12"}
    config, _ = load(file, environ, {"xdsServer.port": 21, "general.workDir": str(tmp_path)})
    assert (config.xds_server.port, config.dp_server.port, config.diagnostics.server_port) == (21, 12, 3)
    assert config.work_dir == tmp_path


@pytest.mark.parametrize(
    ("path", "variable"),
    [
        ("store.postgres.dbName", "KUMA_STORE_POSTGRES_DB_NAME"),
        ("apiServer.corsAllowedDomains", "KUMA_API_SERVER_CORS_ALLOWED_DOMAINS"),
        ("general.dnsCacheTTL", "KUMA_GENERAL_DNS_CACHE_TTL"),
        ("dnsServer.CIDR", "KUMA_DNS_SERVER_CIDR"),
        ("bootstrapServer.params.adminPort", "KUMA_BOOTSTRAP_SERVER_PARAMS_ADMIN_PORT"),
        ("dpServer.hds.checkDefaults.timeout", "KUMA_DP_SERVER_HDS_CHECK_TIMEOUT"),
        ("access.static.viewConfigDump.users", "KUMA_ACCESS_STATIC_GET_CONFIG_DUMP_USERS"),
        ("experimental.meshGateway", "KUMA_EXPERIMENTAL_MESHGATEWAY"),
        ("monitoringAssignmentServer.port", "KUMA_MONITORING_ASSIGNMENT_SERVER_GRPC_PORT"),
    ],
)
def test_environment_names_are_kumas(path, variable):
    assert variable in leaves()[path].env


def test_regular_names_follow_the_path():
    assert environment_variable("xdsServer.drainTime") == "KUMA_XDS_SERVER_DRAIN_TIME"


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("KUMA_STORE_TYPE", "postgres", "store.type: 'postgres' is not supported by this version"),
        ("KUMA_MODE", "zone", "mode: 'zone' is not supported by this version; allowed: standalone"),
        ("KUMA_ENVIRONMENT", "kubernetes", "environment: 'kubernetes' is not supported by this version"),
        ("KUMA_STORE_TYPE", "tape", "store.type: 'tape' must be one of sqlite, memory"),
        ("KUMA_XDS_SERVER_PORT", "65536", "xdsServer.port: '65536' must be at most 65535"),
        ("KUMA_XDS_SERVER_PORT", "x", "xdsServer.port: 'x' must be a whole number"),
        ("KUMA_XDS_SERVER_DRAIN_TIME", "10", "xdsServer.drainTime: '10' must be a duration"),
        ("KUMA_DP_SERVER_HDS_INTERVAL", "0", "dpServer.hds.interval: '0' must be positive"),
        ("KUMA_DP_SERVER_HDS_ENABLED", "yes", "dpServer.hds.enabled: 'yes' must be true or false"),
        ("KUMA_API_SERVER_HTTP_INTERFACE", "lo", "apiServer.http.interface: 'lo' must be an IP address"),
        ("KUMA_MULTIZONE_ZONE_NAME", "A b", "multizone.zone.name: 'A b' must be a DNS name"),
        ("KUMA_GENERAL_TLS_CERT_FILE", "x", "general.tlsCertFile, general.tlsKeyFile: both or neither"),
        ("KUMA_XDS_SERVER_PORT", "5678", "dpServer.port: 5678 is also xdsServer.port"),
        ("KUMA_EXPERIMENTAL_MESHGATEWAY", "true", "experimental.meshGateway: 'true' MeshGateway is not supported"),
        ("KUMA_API_SERVER_AUTH_CLIENT_CERTS_DIR", "/x", "apiServer.auth.clientCertsDir"),
    ],
)
def test_a_bad_value_names_key_value_and_what_is_allowed(variable, value, fault):
    with pytest.raises(ConfigError) as error:
        load(environ={variable: value})
    assert len(error.value.faults) == 1
    assert error.value.faults[0].startswith(fault)


def test_all_faults_are_reported_at_once():
    with pytest.raises(ConfigError, match="Invalid configuration: ") as error:
        load(environ={"KUMA_MODE": "global", "KUMA_XDS_SERVER_PORT": "-1", "KUMA_STORE_TYPE": "x"})
    assert len(error.value.faults) == 3


def test_keys_without_effect_are_shown_and_warned_about_once(tmp_path):
    file = tmp_path / "cp.yaml"
    file.write_text(
        "store: {cache: {expirationTime: 5s}, postgres: {password: secret}}\nruntime: {kubernetes: {x: 1}}\n"
    )
    config, warnings = load(file, {"KUMA_STORE_CACHE_ENABLED": "false"})
    assert sorted(warning.split()[0] for warning in warnings) == [
        "runtime.kubernetes",
        "store.cache.enabled",
        "store.cache.expirationTime",
        "store.postgres.password",
    ]
    store = to_rest(config)["store"]
    assert store["cache"] == {"enabled": False, "expirationTime": "5s"}
    assert store["postgres"]["password"] == "*****"
    assert "secret" not in json.dumps(to_rest(config))


def test_unknown_keys_suggest_the_nearest(tmp_path):
    file = tmp_path / "cp.yaml"
    file.write_text("apiServer: {http: {prot: 1}}\n")
    assert "apiServer.http.prot is not a known key" in load(file, {}).warnings[0]
    assert load(file, {}).warnings[0].endswith("did you mean apiServer.http.port?")


@pytest.mark.parametrize("text", ["[1]", "a: [", "\xff"])
def test_a_broken_file_is_an_error(tmp_path, text):
    file = tmp_path / "cp.yaml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=str(file)):
        load(file, {})


def test_a_missing_file_is_an_error():
    with pytest.raises(ConfigError, match=r'Failed to access configuration file "/nowhere/x\.yaml"'):
        load(Path("/nowhere/x.yaml"), {})


def test_config_shows_what_the_gui_reads():
    shown = to_rest(Config())
    assert (shown["environment"], shown["mode"], shown["store"]["type"]) == ("universal", "standalone", "sqlite")
    assert shown["reports"] == {"enabled": False}
    assert shown["experimental"] == {"meshGateway": False}
    assert shown["runtime"]["universal"]["dataplaneCleanupAge"] == "72h0m0s"
    assert shown["general"]["dnsCacheTTL"] == "10s"


@pytest.mark.parametrize(
    ("text", "seconds"), [("1h30m", 5400), ("1.5s", 1.5), ("100ms", 0.1), ("0", 0), ("-2m", -120), ("1us", 1e-6)]
)
def test_durations_have_gos_syntax(text, seconds):
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", 'time: invalid duration ""'),
        ("10", 'time: missing unit in duration "10"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("x", 'time: invalid duration "x"'),
    ],
)
def test_bad_durations_have_gos_text(text, error):
    with pytest.raises(ValueError, match=error):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (1, "1s"), (1.5, "1.5s"), (0.1, "100ms"), (300, "5m0s"), (5400.5, "1h30m0.5s")]
)
def test_durations_print_as_go_does(seconds, text):
    assert format_duration(seconds) == text
