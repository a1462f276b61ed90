"""The methods: what may replace a face, what each proves, and what it needs."""
