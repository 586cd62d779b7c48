"""From a bundle and a prepared image to an age, its spread and the reason for it."""
