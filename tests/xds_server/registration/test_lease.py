"""The rules of leases as tables (architecture §7)."""

import pytest

from xds_server.registration.lease import (
    Bid,
    Ending,
    Lease,
    Patience,
    State,
    Verdict,
    admit,
    after_last_stream,
    goes_at_s,
    next_epoch,
)

HELD = Lease(7, "cp-1", "run-1", "192.0.2.1:5")
ANONYMOUS = Lease(7, "cp-1")


@pytest.mark.parametrize(
    ("current", "bid", "verdict"),
    [
        (None, Bid("cp-1", "run-1"), Verdict.GRANT),
        (HELD, Bid("cp-1", "run-1"), Verdict.JOIN),
        (HELD, Bid("cp-2", "run-1"), Verdict.GRANT),
        (HELD, Bid("cp-1", ""), Verdict.JOIN),
        (HELD, Bid("cp-2", ""), Verdict.GRANT),
        (HELD, Bid("cp-1", "run-2"), Verdict.CONTEST),
        (HELD, Bid("cp-2", "run-2"), Verdict.CONTEST),
        (ANONYMOUS, Bid("cp-1", ""), Verdict.JOIN),
        (ANONYMOUS, Bid("cp-1", "run-2"), Verdict.GRANT),
        (Lease(7, "cp-1", "run-1", state=State.LEAVING, until_s=1), Bid("cp-1", "run-1"), Verdict.GRANT),
        (Lease(7, "cp-1", "run-1", state=State.LEAVING, until_s=1), Bid("cp-1", "run-2"), Verdict.GRANT),
        (Lease(7, "cp-1", "run-1", state=State.VANISHED, until_s=1), Bid("cp-2", "run-2"), Verdict.GRANT),
    ],
)
def test_who_is_admitted(current, bid, verdict):
    assert admit(current, bid) is verdict


@pytest.mark.parametrize(
    ("how", "state", "until_s"),
    [
        (Ending.LEFT, State.LEAVING, 102),
        (Ending.VANISHED, State.VANISHED, 100 + 72 * 3600),
        (Ending.SHUTDOWN, State.HELD, None),
    ],
)
def test_what_the_end_of_the_last_stream_means(how, state, until_s):
    after = after_last_stream(HELD, how, 100, Patience())
    assert (after.state, after.until_s, after.epoch) == (state, until_s, 7)


@pytest.mark.parametrize(
    ("until_s", "died_s", "started_s", "due_s"),
    [
        (None, 1000, 0, 1060),  # the instance died while others ran
        (None, 900, 1000, 1060),  # nothing expires for 60 s after a start
        (1002, 0, 1000, 1060),
        (5000, 0, 1000, 5000),
    ],
)
def test_when_a_proxy_of_another_instance_goes(until_s, died_s, started_s, due_s):
    lease = Lease(7, "cp-1", until_s=until_s)
    assert goes_at_s(lease, died_s, started_s, Patience()) == due_s


@pytest.mark.parametrize(("current", "head", "epoch"), [(None, 0, 1), (HELD, 3, 8), (HELD, 20, 21)])
def test_epochs_only_grow(current, head, epoch):
    assert next_epoch(current, head) == epoch


@pytest.mark.parametrize("lease", [HELD, ANONYMOUS, Lease(1, "cp", state=State.VANISHED, until_s=1.5)])
def test_a_lease_survives_the_store(lease):
    assert Lease.from_spec(lease.to_spec()) == lease
