"""What a release is still good for: attributes kept, distribution shift, a downstream task."""
