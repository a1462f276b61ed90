"""The stages of a job: each works on one shard or one table, and knows neither Ray nor another stage."""
