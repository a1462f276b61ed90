"""The stages: each works on one shard or one table and never imports Ray; only `runner` does."""
