"""Generated from `proto/` by `scripts/generate-protos`; never edited."""
