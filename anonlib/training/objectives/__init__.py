"""What each network is trained for: one objective a network, its network beside it."""
