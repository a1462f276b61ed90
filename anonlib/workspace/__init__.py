"""The restricted tables of a job: their schemas, where they lie, who reads and writes them."""
