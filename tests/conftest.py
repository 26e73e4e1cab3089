"""What holds for all tests: how Hypothesis searches, so that a busy machine fails nothing."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "koguma", deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("koguma")
