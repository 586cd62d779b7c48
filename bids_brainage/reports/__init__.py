"""Pages and pictures that a person reads; built only from the derivatives on disk."""
