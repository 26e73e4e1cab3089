"""What Envoy would refuse is not sent: it is replaced as promised, and reported with field and value."""

import math

import pytest

from snapshot.envoy.chains import http_chain, tcp_chain
from snapshot.envoy.clusters import eds_cluster
from snapshot.envoy.listeners import OUTBOUND, listener
from snapshot.envoy.routes import prefix, route, route_configuration
from snapshot.model.meta import NANOSECONDS
from snapshot.model.policies import (
    BackOff,
    CircuitBreakerConf,
    Detectors,
    GrpcRetry,
    GrpcTimeout,
    HttpRetry,
    HttpTimeout,
    RetryConf,
    StandardDeviation,
    TcpTimeout,
    TimeoutConf,
)
from snapshot.model.traffic_route import LeastRequest, LoadBalancer, RingHash
from snapshot.policies import timeout
from snapshot.policies.circuit_breaker import apply_circuit_breaker
from snapshot.policies.retry import apply_retry
from snapshot.policies.traffic_route import apply_load_balancer
from snapshot.topology.proxy import Protocol

SECOND = NANOSECONDS
FOREVER = 2**63 - 1
"""The longest duration that can be written."""


def http_listener(*, grpc=False):
    config = route_configuration("r", "v", [route(prefix("/"), [("c", 1)])])
    return listener("l", "127.0.0.1", 1, OUTBOUND, http_chain("s", config, grpc=grpc))


def tcp_listener():
    return listener("l", "127.0.0.1", 1, OUTBOUND, tcp_chain("s", [("c", 1)]))


@pytest.mark.parametrize(
    ("balancer", "reason", "kind"),
    [
        (LoadBalancer(least_request=LeastRequest(choice_count=1)), "choiceCount: 1 is less than 2; 2 is used", 1),
        (LoadBalancer(ring_hash=RingHash()), 'hashFunction: "" is none of XX_HASH, MURMUR_HASH_2', 0),
        (LoadBalancer(ring_hash=RingHash(hash_function="XX_HASH", min_ring_size=9, max_ring_size=8)), "9 to 8", 0),
        (LoadBalancer(ring_hash=RingHash(hash_function="XX_HASH", max_ring_size=8388609)), "1024 to 8388609", 0),
        (LoadBalancer(ring_hash=RingHash(hash_function="XX_HASH", min_ring_size=8388609)), "8388609 to 8388608", 0),
    ],
)
def test_load_balancers(balancer, reason, kind):
    draft = eds_cluster("c")
    (said,) = apply_load_balancer(draft, balancer)
    assert reason in said
    assert draft.cluster.lb_policy == kind


def test_a_ring_may_leave_its_sizes_open():
    draft = eds_cluster("c")
    assert apply_load_balancer(draft, LoadBalancer(ring_hash=RingHash(hash_function="XX_HASH"))) == []
    assert draft.cluster.lb_policy == draft.cluster.RING_HASH
    assert not draft.cluster.ring_hash_lb_config.HasField("minimum_ring_size")
    assert not draft.cluster.ring_hash_lb_config.HasField("maximum_ring_size")


def test_a_small_ring_is_not_refused_for_the_default_of_its_minimum():
    """Envoy's minimum is 1024 where it is not stated, and it refuses a maximum below."""
    draft = eds_cluster("c")
    conf = LoadBalancer(ring_hash=RingHash(hash_function="XX_HASH", max_ring_size=64))
    assert apply_load_balancer(draft, conf) == []
    assert draft.cluster.ring_hash_lb_config.minimum_ring_size.value == 64


@pytest.mark.parametrize(
    ("conf", "protocol", "reason"),
    [
        (TimeoutConf(connect_timeout=0), Protocol.TCP, "conf.connectTimeout: 0s is not greater than 0s; 10s is used"),
        (TimeoutConf(connect_timeout=FOREVER), Protocol.TCP, "is more than 292 years; 10s is used"),
        (
            TimeoutConf(http=HttpTimeout(idle_timeout=-SECOND)),
            Protocol.HTTP,
            "conf.http.idleTimeout: -1s is less than 0s",
        ),
        (TimeoutConf(grpc=GrpcTimeout(max_stream_duration=-1)), Protocol.GRPC, "conf.grpc.maxStreamDuration"),
    ],
)
def test_timeouts_of_clusters(conf, protocol, reason):
    draft = eds_cluster("c")
    (said,) = timeout.apply_to_cluster(draft, protocol, conf)
    assert reason in said
    assert draft.finish().connect_timeout.seconds == 10


@pytest.mark.parametrize(
    ("made", "conf", "protocol", "reason"),
    [
        (tcp_listener(), TimeoutConf(tcp=TcpTimeout(idle_timeout=-1)), Protocol.TCP, "conf.tcp.idleTimeout"),
        (http_listener(), TimeoutConf(http=HttpTimeout(request_timeout=-1)), Protocol.HTTP, "conf.http.requestTimeout"),
        (http_listener(), TimeoutConf(grpc=GrpcTimeout(stream_idle_timeout=-1)), Protocol.GRPC, "conf.grpc.stream"),
    ],
)
def test_timeouts_of_listeners(made, conf, protocol, reason):
    (said,) = timeout.apply_to_listener(made, protocol, conf)
    assert reason in said


@pytest.mark.parametrize("factor", [-1.0, math.nan, math.inf, 5e6])
def test_an_impossible_deviation_switches_its_detector_off(factor):
    draft = eds_cluster("c")
    conf = CircuitBreakerConf(detectors=Detectors(standard_deviation=StandardDeviation(factor=factor)))
    (said,) = apply_circuit_breaker(draft, conf)
    assert said.startswith(f"conf.detectors.standardDeviation.factor: {factor}")
    assert draft.cluster.outlier_detection.enforcing_success_rate.value == 0


@pytest.mark.parametrize(
    ("back_off", "reason", "base_s"),
    [
        (BackOff(base_interval=0), "conf.http.backOff.baseInterval: 0s is not greater than 0s", 0),
        (BackOff(base_interval=2 * SECOND, max_interval=SECOND), "maxInterval: is less than baseInterval", 2),
        (BackOff(base_interval=2 * SECOND, max_interval=0), "maxInterval: 0s is not greater", 2),
    ],
)
def test_pauses_between_retries(back_off, reason, base_s):
    made = http_listener()
    (said,) = apply_retry(made, Protocol.HTTP, RetryConf(http=HttpRetry(back_off=back_off)))
    assert reason in said
    policy = made.chains[0].http.route_config.virtual_hosts[0].retry_policy
    assert policy.retry_back_off.base_interval.seconds == base_s
    assert not policy.retry_back_off.HasField("max_interval")


@pytest.mark.parametrize(
    ("made", "protocol", "conf"),
    [
        (http_listener(), Protocol.HTTP, RetryConf(grpc=GrpcRetry(num_retries=1))),
        (http_listener(), Protocol.HTTP2, RetryConf(http=HttpRetry(num_retries=1), grpc=GrpcRetry(num_retries=1))),
        (http_listener(grpc=True), Protocol.GRPC, RetryConf(http=HttpRetry(num_retries=1))),
        (tcp_listener(), Protocol.TCP, RetryConf(http=HttpRetry(num_retries=1))),
    ],
)
def test_retries_of_another_protocol_change_nothing(made, protocol, conf):
    before = made.chains[0].terminal.SerializeToString()
    assert apply_retry(made, protocol, conf) == []
    assert made.chains[0].terminal.SerializeToString() == before


def test_the_retriable_method_none_is_skipped():
    made = http_listener()
    apply_retry(made, Protocol.HTTP, RetryConf(http=HttpRetry(num_retries=1, retriable_methods=("NONE", "GET"))))
    policy = made.chains[0].http.route_config.virtual_hosts[0].retry_policy
    assert policy.num_retries.value == 1
    assert [h.string_match.exact for h in policy.retriable_request_headers] == ["GET"]
