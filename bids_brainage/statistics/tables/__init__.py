"""Tables of the group level, from rows of brain ages."""
