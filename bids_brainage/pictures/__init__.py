"""Pictures that workflow steps draw."""
