"""The evidence of an audit: people's faces before and after, as plain arrays."""
