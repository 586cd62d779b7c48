"""What models look at: one array for each kind of input."""
