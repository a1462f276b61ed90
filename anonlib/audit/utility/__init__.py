"""The utility of a release: attributes kept, distribution shift, a downstream task."""
