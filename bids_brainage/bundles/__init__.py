"""Model bundles: their format, checks and what stands in them."""
